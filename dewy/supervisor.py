"""Keeps one application running: starts, replaces without losing a request, restarts after a crash, stops it.

    with open_listeners(parse_ports(["8000"])) as listeners:
        supervisor = Supervisor(["./app"], listeners)
        supervisor.start()
        supervisor.restart()     # a new worker beside the old one; the old one finishes when the new one is up
        supervisor.stop()

One thread owns all state and every process; all else talks to it through one queue. What to do is decided by
`dewy.lifecycle`, which is pure; here it is done: processes are started and signalled, callers are answered, observers
are told. That thread lives until the last worker is gone, as it must: Linux ends a worker together with the thread
that started it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self

from dewy import lifecycle
from dewy.errors import StartFailed
from dewy.guard import Guard
from dewy.lifecycle_state import (
    Answer,
    Asked,
    Effect,
    Exited,
    Finish,
    GroupGone,
    Happening,
    Kill,
    Phase,
    Probed,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAsked,
    Tell,
    Tick,
)
from dewy.listen import Listeners
from dewy.reaper import Reaper
from dewy.signals import Signals, install_signals
from dewy.supervision import Candidate, Event, Launch, Observer, Readiness, Settings, Snapshot
from dewy.worker import Process, spawn

__all__ = ["Launch", "Settings", "Signals", "Snapshot", "Supervisor", "install_signals"]

_GROUP_STEP: Final = 0.05
"""Seconds between two looks for children that a worker left behind; their end is nobody's to wait for."""
_REAP_STEP: Final = 1.0
"""Seconds between two looks for adopted children."""

_log: Final = logging.getLogger(__name__)


class Supervisor:
    """Keeps `command` running on `listeners`. Thread-safe; a context manager that stops at the end.

    `cwd` and `env` as in `Launch`. `on_event` is called in the supervisor's own thread, so it must be brief, and must
    not wait for `start`, `restart` or `stop`. The sockets stay the caller's to close, after `stop`.

    If the process ends without `stop`, were it by kill -9, its workers are told to finish, and soon killed, by a guard
    process. What leaves its worker's session on purpose (a daemon) is beyond reach, here as there.
    """

    def __init__(
        self,
        command: Sequence[str],
        listeners: Listeners | None = None,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        settings: Settings | None = None,
        on_event: Observer | None = None,
    ) -> None:
        self._listeners = Listeners() if listeners is None else listeners
        self._settings = Settings() if settings is None else settings
        self._on_event = on_event
        self._inbox: queue.SimpleQueue[Happening | None] = queue.SimpleQueue()  # None: only look around
        self._requests = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        # Guards `_promised`, `_begun` and `_ended` against the thread that asks and the supervisor's own.
        self._lock = threading.Lock()
        self._promised: dict[int, Future[None]] = {}
        self._begun = False
        self._ended = False
        # All below is changed by the supervisor's thread alone; others read `_state`, which is frozen.
        self._state = State(Launch(tuple(command), cwd, env))
        self._processes: dict[int, Process] = {}
        self._guard = Guard(lambda: self._inbox.put(None), self._settings.orphan_grace)
        self._reaper = Reaper() if self._settings.reap_orphans else None
        self._probe_over = threading.Event()

    # ---- For everybody ----

    def start(self) -> None:
        """Starts the first worker and returns when it is up. StartFailed: it is not, and nothing runs; ask again."""
        self.restart()

    def restart(self, launch: Launch | None = None) -> None:
        """Starts a new worker beside the old one; returns when the new one is up and the old one was told to finish.

        With `launch`, also what is started changes, for restarts after a crash too. StartFailed: the new worker did not
        come up and was ended; the old one serves on, untouched, and what is started stays as it was. Requests that come
        while another is under way are answered together, by one more worker.
        """
        self._refuse_own_thread()
        self.request_restart(launch).result()

    def request_restart(self, launch: Launch | None = None) -> Future[None]:
        """As `restart`, without waiting: the future ends as that returns or raises. For signal handlers, say."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: the restart could not be, either
        with self._lock:
            if self._ended:
                future.set_exception(StartFailed(lifecycle.STOPPING))
                return future
            number = next(self._requests)
            self._promised[number] = future
            self._inbox.put(Asked(number, launch))
            if not self._begun:
                self._begun = True
                self._thread.start()
        return future

    def request_stop(self, drain: float | None = None) -> None:
        """As `stop`, without waiting."""
        self._inbox.put(StopAsked(drain))

    def stop(self, drain: float | None = None) -> None:
        """Tells all workers to finish, and returns when they and their children are gone: after `drain` seconds (those
        of the settings) they are killed. For good: afterwards nothing can be started. Harmless when repeated."""
        self._refuse_own_thread()
        with self._lock:
            self._ended = self._ended or not self._begun
            begun = self._begun
        if begun:
            self.request_stop(drain)
            self._thread.join()

    def snapshot(self) -> Snapshot:
        """What runs now. Never blocks."""
        return _snapshot(self._state, time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("an observer must not wait for the supervisor that tells it; use request_restart")

    # ---- In the supervisor's thread ----

    def _run(self) -> None:
        try:
            while self._state.phase is not Phase.STOPPED:
                self._look_around(self._next_happening())
        finally:
            # Reached by an error of our own, too: then nothing may live on that nobody looks after.
            for process in self._processes.values():
                process.signal_group(signal.SIGKILL)
            self._guard.close()
            with self._lock:
                self._ended = True
                promised, self._promised = self._promised, {}
            for future in promised.values():
                future.set_exception(StartFailed(lifecycle.STOPPING))

    def _next_happening(self) -> Happening | None:
        try:
            return self._inbox.get(timeout=self._patience())
        except queue.Empty:
            return None

    def _patience(self) -> float | None:
        """Seconds until something is due; None: not before something happens."""
        now = time.monotonic()
        waits = []
        if (next_due := lifecycle.due(self._state, self._settings)) is not None:
            waits.append(next_due - now)
        if any(leaving.status is not None for leaving in self._state.leaving):
            waits.append(_GROUP_STEP)
        if self._reaper is not None:
            waits.append(_REAP_STEP)
        if (wait := self._keep_guard(now)) is not None:
            waits.append(wait)
        return max(0.0, min(waits)) if waits else None

    def _keep_guard(self, now: float) -> float | None:
        """Replaces a guard that died; seconds until the next try, where one is needed."""
        try:
            return self._guard.keep(self._processes, now) if self._processes else None
        except StartFailed as error:
            _log.warning("workers have no guard for now: %s", error)
            return self._guard.pause

    def _look_around(self, happened: Happening | None) -> None:
        if happened is not None:
            self._take(happened)
        for leaving in self._state.leaving:
            pid = leaving.worker.pid
            if leaving.status is not None and not self._processes[pid].group_lives():
                self._take(GroupGone(pid))
        self._take(Tick())
        if self._reaper is not None:
            known = [*self._processes, *self._guard.pids]
            self._reaper.reap(known, time.monotonic())

    def _take(self, happened: Happening) -> None:
        """Has it decided what to do, and does it. What a `Spawn` reports comes before anything else."""
        pending = deque([happened])
        while pending:
            self._state, effects = lifecycle.step(
                self._state,
                pending.popleft(),
                now=time.monotonic(),
                chance=random.random(),
                settings=self._settings,
            )
            for effect in effects:
                report = self._carry_out(effect)
                if report is not None:
                    pending.appendleft(report)
        self._let_go()

    def _carry_out(self, effect: Effect) -> Happening | None:
        match effect:
            case Spawn(launch, generation):
                return self._spawn(launch, generation)
            case Finish(pid):
                self._processes[pid].signal_group(signal.SIGTERM)
            case Kill(pid):
                self._processes[pid].signal_group(signal.SIGKILL)
            case Answer(request, failure, host):
                self._answer(request, failure, host)
            case Tell(event):
                self._tell(event)
        return None

    def _spawn(self, launch: Launch, generation: int) -> Spawned | SpawnFailed:
        try:
            self._guard.ensure(self._processes)
            process = spawn(launch, generation, self._listeners, self._guard, self._ended_by_itself)
        except StartFailed as error:
            return SpawnFailed(str(error), error.host)
        self._processes[process.pid] = process
        if self._settings.ready is not None:
            self._start_probe(self._settings.ready, process.pid, generation)
        return Spawned(process.pid, time.time())

    def _ended_by_itself(self, pid: int, status: int, children: bool) -> None:
        """In another thread."""
        self._inbox.put(Exited(pid, status, children))

    def _start_probe(self, ready: Readiness, pid: int, generation: int) -> None:
        self._probe_over = over = threading.Event()
        arguments = (ready, pid, generation, over)
        try:
            threading.Thread(target=self._probe, args=arguments, name=f"ready-{pid}", daemon=True).start()
        except RuntimeError as error:  # the limit of threads is reached; the time-out will tell why
            self._inbox.put(Probed(pid, f"no readiness check: {error}"))

    def _probe(self, ready: Readiness, pid: int, generation: int, over: threading.Event) -> None:
        """In a thread of its own: asks until the candidate is up, or is none any more."""
        started = time.monotonic()
        while not over.is_set():
            try:
                missing = ready(Candidate(pid, generation, age=time.monotonic() - started))
            except Exception as error:  # a check may fail in any way; each means that the worker is not up yet
                missing = f"{type(error).__name__}: {error}"
            self._inbox.put(Probed(pid, missing))
            if missing is None:
                return
            over.wait(self._settings.ready_interval)

    def _answer(self, request: int, failure: str | None, host: bool) -> None:
        with self._lock:
            future = self._promised.pop(request)
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(StartFailed(failure, host=host))

    def _tell(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # whatever an observer does, the application is looked after
            _log.exception("observer of the supervisor failed")

    def _let_go(self) -> None:
        """Forgets what no decision will name again."""
        state = self._state
        coming = state.coming.worker if state.coming is not None else None
        if coming is None:
            self._probe_over.set()
        workers = [worker for worker in (state.serving, coming) if worker is not None]
        alive = {worker.pid for worker in (*workers, *(leaving.worker for leaving in state.leaving))}
        for pid in self._processes.keys() - alive:
            del self._processes[pid]
            self._guard.drop(pid)


def _snapshot(state: State, now: float) -> Snapshot:
    serving, coming = state.serving, state.coming
    return Snapshot(
        running=serving is not None,
        generation=serving.generation if serving is not None else 0,
        pid=serving.pid if serving is not None else None,
        since=serving.started_at if serving is not None else None,
        crashes=state.crashes,
        retry_in=max(0.0, state.retry_at - now) if state.retry_at is not None else None,
        starting=coming.worker.pid if coming is not None and coming.worker is not None else None,
        draining=tuple(leaving.worker.pid for leaving in state.leaving),
        stopping=state.phase in (Phase.STOPPING, Phase.STOPPED),
    )
