"""Events become values: of the node, of its shared caches, and of the application's processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from dewy import events as node
from dewy import supervision as worker
from dewy.telemetry import instruments as i
from dewy.telemetry.metrics import Metrics
from kvcache import events as cache

CacheName: TypeAlias = Literal["answers", "artifacts"]
_OUTCOMES: Final = {"sent": "sent", "failed": "failed", "dropped": "dropped", "told by another node": "elsewhere"}


class Observer:
    """Writes what it is told into `metrics`. For any number of threads. `now`: seconds since the Unix epoch."""

    def __init__(
        self, metrics: Metrics, mode: str, *, version: str, interval: float, now: Callable[[], float] = time.time
    ) -> None:
        self._metrics = metrics
        self._mode = mode
        self._now = now
        metrics.only(i.INFO, 1, version=version, command=mode)
        metrics.set(i.INTERVAL, interval)
        metrics.set(i.LAST_TICK, 0)
        metrics.set(i.LAST_SUCCESS, 0)
        metrics.set(i.ANSWER_TIME, 0)
        for counter in (i.DEPLOYMENTS, i.DEPLOYMENT_ERRORS):
            metrics.add(counter, 0, command=mode)
        for name in ("answers", "artifacts"):
            metrics.set(i.STALE_AGE, 0, cache=name)

    def release(self, tag: str) -> None:
        """A release is in place already."""
        self._metrics.only(i.RELEASE_INFO, 1, tag=tag)

    def on_node(self, event: node.Event) -> None:
        """What the loop tells."""
        m = self._metrics
        match event:
            case node.TickEnded(duration, error):
                m.add(i.TICKS, outcome="error" if error else "ok")
                m.observe(i.TICK_DURATION, duration)
                m.set(i.LAST_TICK, self._now())
                if not error:
                    m.set(i.LAST_SUCCESS, self._now())
            case node.Obtained(_, source, size, duration):
                m.add(i.ARTIFACTS, source=source)
                m.add(i.ARTIFACT_BYTES, size, source=source)
                m.observe(i.ARTIFACT_DURATION, duration, source=source)
            case node.Deployed(tag=tag, duration=duration):
                m.add(i.DEPLOYMENTS, command=self._mode)
                m.observe(i.DEPLOYMENT_DURATION, duration, command=self._mode)
                m.set(i.RELEASE_TIME, self._now())
                m.only(i.RELEASE_INFO, 1, tag=tag)
            case node.DeployFailed(duration=duration):
                m.add(i.DEPLOYMENT_ERRORS, command=self._mode)
                m.observe(i.DEPLOYMENT_DURATION, duration, command=self._mode)
            case node.RolledBack(to=to):
                m.add(i.ROLLBACKS)
                m.only(i.RELEASE_INFO, 1, tag=to)
            case node.Restarted(tag, reason):
                m.add(i.SERVER_RESTARTS, reason=reason)
                m.only(i.RELEASE_INFO, 1, tag=tag)

    def on_cache(self, name: CacheName, event: cache.Event) -> None:
        """What a shared cache tells."""
        self._answered(name, event)
        if name == "answers":
            self._upstream(event)
        m = self._metrics
        match event:
            case cache.LockAwaited():
                m.add(i.LOCK_WAITS, cache=name)
            case cache.Claimed():
                m.add(i.CLAIMS, cache=name)
            case cache.ClaimLost():
                m.add(i.CLAIMS_LOST, cache=name)
            case cache.LeaseLost():
                m.add(i.LEASES_LOST, cache=name)
            case cache.Published():
                m.add(i.PUBLISHED, cache=name)
            case cache.UpstreamCalled(ok=False):
                m.add(i.LOADS_FAILED, cache=name)
            case cache.StoreDown():
                m.add(i.STORE_FAILURES, cache=name)
            case cache.RecordHealed():
                m.add(i.RECORDS_HEALED, cache=name)

    def on_worker(self, event: worker.Event) -> None:
        """What the supervisor tells."""
        match event:
            case worker.WorkerStarted():
                self._metrics.add(i.WORKERS_STARTED)
            case worker.WorkerCrashed():
                self._metrics.add(i.WORKER_CRASHES)
            case worker.WorkerRefused():
                self._metrics.add(i.WORKERS_REFUSED)
            case worker.WorkerKilled():
                self._metrics.add(i.WORKERS_KILLED)
            case _:
                pass

    def on_notification(self, outcome: str) -> None:
        """What came of a message, in the outbox's words."""
        self._metrics.add(i.NOTIFICATIONS, outcome=_OUTCOMES[outcome])

    def _answered(self, name: CacheName, event: cache.Event) -> None:
        """How old what was served is."""
        m = self._metrics
        match event:
            case cache.Hit(_, age, stored):
                m.add(i.CACHE_HITS, cache=name, source="store" if stored else "memory")
                m.set(i.STALE_AGE, 0, cache=name)
            case cache.StaleServed(_, age, on_error):
                m.add(i.STALE_SERVED, cache=name, why="error" if on_error else "refresh")
                m.set(i.STALE_AGE, age, cache=name)
            case cache.UpstreamCalled(ok=True):
                age = 0.0
                m.set(i.STALE_AGE, 0, cache=name)
            case _:
                return
        if name == "answers":
            m.set(i.ANSWER_TIME, self._now() - age)

    def _upstream(self, event: cache.Event) -> None:
        m = self._metrics
        match event:
            case cache.UpstreamCalled(_, duration, ok):
                m.add(i.REGISTRY_CALLS, outcome="ok" if ok else "error")
                m.observe(i.REGISTRY_CALL_DURATION, duration)
                if ok:
                    m.set(i.REGISTRY_FAILURES, 0)
                    m.set(i.REGISTRY_BACKOFF, 0)
            case cache.UpstreamFailed(_, _, _, count, backoff):
                m.set(i.REGISTRY_FAILURES, count)
                m.set(i.REGISTRY_BACKOFF, backoff)
            case _:
                pass
