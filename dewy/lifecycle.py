"""What becomes of workers: every decision of the supervisor, pure. No clock, no chance, no process in here.

    asked ──> candidate ──up──> serving ──replaced, or stop──> leaving ──> gone
                  │                │                             ^
                  │                └──crash──> back-off ──> candidate (the same launch again)
                  └──did not come up: told to leave; whoever serves goes on, untouched

One rule stands over all others: at most one candidate, at most one worker that serves, and the serving one is told to
finish only when its successor is up. Any number may be leaving, so a restart never waits for an old worker to drain.
Requests that come while a candidate is on its way wait for their turn, and one new worker, started after all of them,
answers all of them: none is dropped, and a hundred SIGHUPs are not a hundred restarts.

`step` takes what happened and the time, and says what to do. The driver (`dewy.supervisor`) carries that out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from dewy.lifecycle_state import (
    Answer,
    Asked,
    Coming,
    Effect,
    Exited,
    Finish,
    GroupGone,
    Happening,
    Kill,
    Leaving,
    Phase,
    Probed,
    Spawn,
    Spawned,
    SpawnFailed,
    State,
    StopAsked,
    Tell,
    Tick,
    Worker,
)
from dewy.supervision import (
    Settings,
    WorkerCrashed,
    WorkerFinishing,
    WorkerGone,
    WorkerKilled,
    WorkerRecovered,
    WorkerRefused,
    WorkerStarted,
    WorkerUp,
    how_it_ended,
)

ABANDON_AFTER: Final = 10.0
"""Seconds after SIGKILL. A process that the kernel itself cannot end (a dead disk) must not keep dewy from stopping."""

STOPPING: Final = "dewy is stopping"


def step(
    state: State, happened: Happening, *, now: float, chance: float, settings: Settings
) -> tuple[State, tuple[Effect, ...]]:
    """The next state, and what to do, in this order. `now` is monotonic; `chance` is uniform in [0, 1)."""
    turn = _Turn(state, now, chance, settings)
    turn.take(happened)
    return turn.state, tuple(turn.effects)


def due(state: State, settings: Settings) -> float | None:
    """When the next `Tick` has something to do; None: not before something happens."""
    times = [leaving.kill_at for leaving in state.leaving]
    if state.coming is not None and state.coming.due is not None:
        times.append(state.coming.due)
    if state.retry_at is not None:
        times.append(state.retry_at)
    if state.serving is not None and state.crashes:
        times.append(state.serving.since + settings.well_after)
    return min(times, default=None)


def backoff(crashes: int, chance: float, settings: Settings) -> float:
    """Seconds to wait after so many crashes in a row (1, 2, ...): doubled each time, capped, jittered over its upper
    half, so that nodes that crash together do not start together."""
    # 2.0**n overflows far beyond any cap.
    longest = min(settings.backoff_cap, settings.backoff_base * 2.0 ** min(crashes - 1, 64))
    return longest * (0.5 + chance / 2)


class _Turn:
    """One step in the making."""

    def __init__(self, state: State, now: float, chance: float, settings: Settings) -> None:
        self.state = state
        self.effects: list[Effect] = []
        self._now = now
        self._chance = chance
        self._settings = settings

    def take(self, happened: Happening) -> None:
        match happened:
            case Asked():
                self._asked(happened)
            case StopAsked(drain):
                self._stop(self._settings.drain if drain is None else drain)
            case Spawned(pid, started_at):
                self._spawned(pid, started_at)
            case SpawnFailed(reason, host):
                self._refuse(reason, host)
            case Probed(pid, missing):
                self._probed(pid, missing)
            case Exited():
                self._exited(happened)
            case GroupGone(pid):
                self._group_gone(pid)
            case Tick():
                self._tick()

    # ---- Coming up ----

    def _asked(self, request: Asked) -> None:
        if self.state.phase in (Phase.STOPPING, Phase.STOPPED):
            self._do(Answer(request.request, STOPPING))
            return
        self._set(waiting=(*self.state.waiting, request))
        if self.state.coming is None:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        requests = self.state.waiting
        self._set(waiting=())
        self._begin(requests)

    def _begin(self, requests: tuple[Asked, ...]) -> None:
        """A new candidate: for `requests`, the newest wish counting, or, without any, in place of a crashed one."""
        launch = next((asked.launch for asked in reversed(requests) if asked.launch is not None), self.state.launch)
        generation = self.state.generation + 1
        coming = Coming(generation=generation, launch=launch, requests=requests)
        self._set(coming=coming, generation=generation, retry_at=None)
        self._do(Spawn(launch, generation))

    def _spawned(self, pid: int, started_at: float) -> None:
        coming = self.state.coming
        assert coming is not None and coming.worker is None, "nothing happens between Spawn and its report"
        worker = Worker(pid, coming.generation, coming.launch, since=self._now, started_at=started_at)
        settings = self._settings
        patience = max(settings.settle, self._overlap) if settings.ready is None else settings.ready_timeout
        self._set(coming=replace(coming, worker=worker, due=self._now + patience))
        self._do(Tell(WorkerStarted(pid, worker.generation)))

    def _probed(self, pid: int, missing: str | None) -> None:
        coming = self.state.coming
        if coming is None or coming.worker is None or coming.worker.pid != pid:
            return  # the answer came too late: it has failed, or dewy stops
        if missing is None and self._overlap > 0:
            self._set(coming=replace(coming, ready=True, due=self._now + self._overlap))
        elif missing is None:
            self._up(coming, coming.worker)
        else:
            self._set(coming=replace(coming, missing=missing))

    @property
    def _overlap(self) -> float:
        """Seconds that a candidate has to serve beside the old one; without one there is nothing to wait for."""
        return self._settings.overlap if self.state.serving is not None else 0.0

    def _up(self, coming: Coming, worker: Worker) -> None:
        old = self.state.serving
        # Only who asked for a new worker has changed something. A crashed one that was merely started again has
        # proved nothing until it has run well.
        crashes = 0 if coming.requests else self.state.crashes
        self._set(phase=Phase.RUNNING, launch=coming.launch, serving=worker, coming=None, crashes=crashes)
        self._do(Tell(WorkerUp(worker.pid, worker.generation, after=self._now - worker.since)))
        if old is not None:
            self._retire(old, self._settings.drain)
        self._answer(coming.requests, None)
        if self.state.waiting:
            self._begin_waiting()

    def _refuse(self, reason: str, host: bool = False) -> None:
        """The candidate has failed, whatever the way, and is no more, or leaves; who serves goes on."""
        coming = self.state.coming
        assert coming is not None
        self._set(coming=None)
        if not coming.requests:
            self._set(crashes=self.state.crashes + 1)
        # Whoever waits will have a new worker at once; otherwise a node that had one is to have one again.
        retry_in = None if self.state.waiting else self._plan_retry()
        pid = coming.worker.pid if coming.worker is not None else None
        self._do(Tell(WorkerRefused(pid, coming.generation, reason, retry_in)))
        self._answer(coming.requests, reason, host)
        if self.state.waiting:
            self._begin_waiting()

    def _plan_retry(self) -> float | None:
        """A new try after the back-off, where nothing serves and something is to; the seconds until then."""
        if self.state.phase is not Phase.RUNNING or self.state.serving is not None or self.state.coming is not None:
            return None
        wait = backoff(max(1, self.state.crashes), self._chance, self._settings)
        self._set(retry_at=self._now + wait)
        return wait

    # ---- Ending ----

    def _exited(self, exited: Exited) -> None:
        how = how_it_ended(exited.status)
        coming, serving = self.state.coming, self.state.serving
        if coming is not None and coming.worker is not None and coming.worker.pid == exited.pid:
            if exited.children:
                self._leave(coming.worker, self._settings.drain_failed, exited.status)
            self._refuse(f"{how} after {self._now - coming.worker.since:.1f} s, before it was up")
        elif serving is not None and serving.pid == exited.pid:
            if exited.children:
                self._leave(serving, self._settings.drain_failed, exited.status)
            self._crashed(serving, how)
        else:
            self._change_leaving(exited.pid, status=exited.status)
            if not exited.children:
                self._group_gone(exited.pid)

    def _crashed(self, worker: Worker, how: str) -> None:
        self._set(serving=None, crashes=self.state.crashes + 1)
        retry_in = self._plan_retry()
        ran_for = self._now - worker.since
        self._do(Tell(WorkerCrashed(worker.pid, worker.generation, how, ran_for, self.state.crashes, retry_in)))

    def _retire(self, worker: Worker, drain: float) -> None:
        self._do(Tell(WorkerFinishing(worker.pid, worker.generation, drain)))
        self._leave(worker, drain)

    def _leave(self, worker: Worker, patience: float, status: int | None = None) -> None:
        leaving = Leaving(worker, told_at=self._now, kill_at=self._now + patience, status=status)
        self._set(leaving=(*self.state.leaving, leaving))
        self._do(Finish(worker.pid))

    def _group_gone(self, pid: int) -> None:
        for leaving in self.state.leaving:
            if leaving.worker.pid == pid:
                how = "could not be killed" if leaving.status is None else how_it_ended(leaving.status)
                self._do(Tell(WorkerGone(pid, leaving.worker.generation, how, after=self._now - leaving.told_at)))
        self._set(leaving=tuple(leaving for leaving in self.state.leaving if leaving.worker.pid != pid))
        self._stopped_if_empty()

    def _stop(self, drain: float) -> None:
        """Everybody leaves. Who leaves already keeps its own patience, where that is shorter."""
        if self.state.phase is Phase.STOPPED:
            return
        for leaving in self.state.leaving:
            if not leaving.killed:
                self._change_leaving(leaving.worker.pid, kill_at=min(leaving.kill_at, self._now + drain))
        coming, serving, waiting = self.state.coming, self.state.serving, self.state.waiting
        self._set(phase=Phase.STOPPING, coming=None, serving=None, waiting=(), retry_at=None)
        if coming is not None:
            self._answer(coming.requests, STOPPING)
            if coming.worker is not None:
                self._leave(coming.worker, drain)
        self._answer(waiting, STOPPING)
        if serving is not None:
            self._retire(serving, drain)
        self._stopped_if_empty()

    def _stopped_if_empty(self) -> None:
        if self.state.phase is Phase.STOPPING and not self.state.leaving:
            self._set(phase=Phase.STOPPED)

    # ---- Time ----

    def _tick(self) -> None:
        self._candidate_due()
        self._forget_crashes()
        if _reached(self.state.retry_at, self._now):
            self._begin(())
        for leaving in self.state.leaving:
            if _reached(leaving.kill_at, self._now):
                self._out_of_patience(leaving)

    def _candidate_due(self) -> None:
        coming = self.state.coming
        if coming is None or coming.worker is None or not _reached(coming.due, self._now):
            return
        if self._settings.ready is None or coming.ready:
            self._up(coming, coming.worker)
            return
        missing = f": {coming.missing}" if coming.missing else ""
        self._leave(coming.worker, self._settings.drain_failed)
        self._refuse(f"not ready within {self._settings.ready_timeout:g} s{missing}")

    def _forget_crashes(self) -> None:
        serving, crashes = self.state.serving, self.state.crashes
        if serving is not None and crashes and self._now >= serving.since + self._settings.well_after:
            self._do(Tell(WorkerRecovered(serving.pid, serving.generation, crashes)))
            self._set(crashes=0)

    def _out_of_patience(self, leaving: Leaving) -> None:
        pid = leaving.worker.pid
        if leaving.killed:
            self._group_gone(pid)
            return
        self._change_leaving(pid, killed=True, kill_at=self._now + ABANDON_AFTER)
        self._do(Tell(WorkerKilled(pid, leaving.worker.generation, after=self._now - leaving.told_at)))
        self._do(Kill(pid))

    # ---- Small things ----

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _change_leaving(self, pid: int, **changes: Any) -> None:
        self._set(
            leaving=tuple(
                replace(leaving, **changes) if leaving.worker.pid == pid else leaving for leaving in self.state.leaving
            )
        )

    def _do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def _answer(self, requests: Iterable[Asked], failure: str | None, host: bool = False) -> None:
        for asked in requests:
            self._do(Answer(asked.request, failure, host))


def _reached(time: float | None, now: float) -> bool:
    return time is not None and now >= time
