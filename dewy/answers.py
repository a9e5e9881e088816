"""What the registry announces, as this node knows it: shared with the fleet where `registry-ttl` says so.

Either way the answer comes through a `SharedCache`, so that back-off, Retry-After, revalidation and the last known
answer work alike; a node on its own merely has a private store for it. While the registry is down the last answer is
served: that is logged when it begins and when it ends, and people are told if it lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from dewy.errors import ArtifactNotFound
from dewy.log import Log, seconds
from dewy.notify import Notices
from dewy.plan import Artifact, Missing, NoAnswer, Said
from dewy.registry import Announced, InvalidAnswer, Pending, Registry, artifact_not_found
from kvcache import KVCacheError, Result, SharedCache, UpstreamUnavailable, format_duration
from kvcache import events as ev

LONG_OUTAGE: Final = 600.0
"""Seconds of stale answers after which people are told, and not just the log."""
PATIENCE: Final = 90.0
"""Seconds that a tick waits for an answer at most; calls of the registry have shorter time-outs of their own."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What asking came to. `announced` is there exactly where `said` is an Artifact."""

    said: Said
    announced: Announced | None = None
    missing: Missing | None = None
    failure: str | None = None
    """Why there is no answer, for somebody to be told; None: there is one, or it was told before."""
    state: str = ""
    """Of the answer: "fresh", "stale" or "stale-on-error"; `age` in seconds."""
    age: float = 0.0


def artifact_of(announced: Announced) -> Artifact:
    """What tells the announced artifact from others."""
    at = announced.created_at.timestamp() if announced.created_at is not None else None
    return Artifact(announced.key, announced.tag, announced.slot, announced.digest, announced.size, at)


class Answers:
    """Asks for the newest artifact under one key of a cache. Not for several threads at a time.

    `ttl` as in `registry-ttl`; None: the cache is this node's own.
    """

    def __init__(
        self,
        registry: Registry,
        key: str,
        *,
        open_cache: Callable[[Callable[[ev.Event], None]], SharedCache],
        log: Log,
        notices: Notices,
        node: str,
        shared: bool,
    ) -> None:
        self._registry = registry
        self._key = key
        self._log = log
        self._node = node
        self._shared = shared
        self._outage = Outage(log, notices)
        self._store_failed = ""
        """Why, while it does."""
        self._last_failure = ""
        self._told: tuple[str, int] | None = None
        self._passed_over = ""
        self._cache = open_cache(self._observe)

    def ask(self) -> Heard:
        """The newest artifact. Never raises for what a registry or a store does."""
        try:
            result = self._cache.get(self._key, self._registry.current, timeout=PATIENCE)
        except UpstreamUnavailable as error:
            return self._refused(error)
        self._told = None
        try:
            announced = Announced.from_value(result.value, result.extra)
        except InvalidAnswer as error:
            with suppress(KVCacheError):  # a store that does not answer now will be asked again
                self._cache.invalidate(self._key)
            return Heard(NoAnswer(), failure=str(error))
        self._outage.follow(result, self._last_failure, self._store_failed)
        if announced.newest not in ("", self._passed_over):
            why = "no artifact for this machine"
            self._log.warn("Newest release passed over", newest=announced.newest, tag=announced.tag, reason=why)
        self._passed_over = announced.newest
        pending = Pending.from_extra(result.extra)
        missing = _missing(pending.error()) if pending is not None else None
        return Heard(artifact_of(announced), announced, missing, state=result.state, age=result.age)

    def _refused(self, error: UpstreamUnavailable) -> Heard:
        not_found = artifact_not_found(error)
        if not_found is not None:
            return Heard(NoAnswer(), missing=_missing(not_found))
        # While the fleet backs off, every tick hears of the same failure again: it is news only once.
        failure = (error.failure, error.count)
        news = error.count == 0 or failure != self._told
        self._told = failure
        return Heard(NoAnswer(), failure=str(error) if news else None)

    def _observe(self, event: ev.Event) -> None:
        """Called from the threads of the cache."""
        match event:
            case ev.UpstreamCalled(_, duration, True):
                self._last_failure = ""
                write = self._log.info if self._shared else self._log.debug
                write("Registry result refreshed from upstream", node=self._node, duration=seconds(duration))
            case ev.UpstreamFailed(_, kind, message, count, backoff):
                self._last_failure = f"{kind}: {message}"
                self._log.debug("Registry failed", error=message, kind=kind, count=count, backoff=seconds(backoff))
            case ev.StoreDown(_, why) if not self._store_failed:
                self._store_failed = why
                self._log.warn("failed to read shared registry cache", error=why)
            case ev.Published() | ev.Hit(_, _, True) if self._store_failed:
                self._store_failed = ""
                self._log.info("shared registry cache works again")
            case ev.LeaseLost():
                self._log.warn("failed to publish refreshed registry cache", error="another node has taken over")
            case ev.RecordHealed():
                self._log.info("Unreadable registry cache entry replaced", key=self._key)
            case _ if self._shared:
                self._log.debug("Registry cache", event=type(event).__name__)
            case _:
                pass


def _missing(error: ArtifactNotFound) -> Missing:
    return Missing(str(error), error.release_time.timestamp() if error.release_time is not None else None)


class Outage:
    """The times in which stale answers are served because of an error."""

    def __init__(self, log: Log, notices: Notices) -> None:
        self._log = log
        self._notices = notices
        self._on = False
        self._people_know = False

    def follow(self, result: Result, upstream: str, store: str) -> None:
        """`result` was served; `upstream` and `store` say how they failed as far as this node has seen it, or ""."""
        if result.state == "stale-on-error":
            what = "shared cache unavailable" if store else "upstream registry failed"
            self._goes_on(result.age, what, store or upstream or "reported by another node")
        elif self._on and result.state == "fresh":
            self._is_over()

    def _goes_on(self, age: float, what: str, why: str) -> None:
        if not self._on:
            self._on = True
            self._log.warn(f"{what}; serving stale cache", age=seconds(age), error=why)
        if not self._people_know and age >= LONG_OUTAGE:
            self._people_know = True
            since = format_duration(round(age))
            self._notices.tell("Outage notification", f"{what}; going by an answer that is {since} old: {why}")

    def _is_over(self) -> None:
        self._on = False
        self._log.info("upstream registry answers again")
        if self._people_know:
            self._people_know = False
            self._notices.tell("Outage notification", "upstream registry answers again")
