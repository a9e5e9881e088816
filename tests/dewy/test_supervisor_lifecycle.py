"""The supervisor's decisions: any sequence of events, in virtual time, keeps the promises."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dewy.lifecycle import backoff, due, step
from dewy.lifecycle_state import (
    Answer,
    Asked,
    Exited,
    Finish,
    GroupGone,
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
from dewy.supervision import (
    Launch,
    Settings,
    WorkerUp,
)

FIRST = Launch(("first",))


@dataclass
class Fake:
    """A process group of the virtual system."""

    pid: int
    launch: Launch
    asked_by_then: int
    """The newest request when it was started."""
    alive: bool = True
    child: bool = False
    told: bool = False


class Everything(RuleBasedStateMachine):
    """A virtual system of processes: callers ask; workers crash, leave children, come up or do not; time passes."""

    @initialize(probing=st.booleans(), chance=st.floats(0, 1, exclude_max=True))
    def begin(self, probing, chance):
        self.settings = Settings(ready=(lambda _: None) if probing else None)
        self.chance = chance
        self.now = 1000.0
        self.state = State(FIRST)
        self.pids = count(100)
        self.numbers = count(1)
        self.processes: dict[int, Fake] = {}
        self.spawn_fails = False
        self.open: dict[int, Launch | None] = {}
        self.newest = 0
        self.failed_at = float("-inf")
        self.stopped = False
        self.events = []

    # ---- The driver, in small ----

    def take(self, happened):
        pending = [happened]
        while pending:
            now = pending.pop(0)
            before = self.state
            self.state, effects = step(before, now, now=self.now, chance=self.chance, settings=self.settings)
            assert step(before, now, now=self.now, chance=self.chance, settings=self.settings) == (self.state, effects)
            self.check_finishes(before, effects)
            for effect in effects:
                report = self.carry_out(effect)
                if report is not None:
                    pending.insert(0, report)

    def carry_out(self, effect):
        match effect:
            case Spawn(launch, _):
                assert not self.stopped, "nothing is started once a stop was asked for"
                if not self.state.coming.requests:
                    earliest = self.failed_at + self.settings.backoff_base / 2
                    assert self.now >= earliest - 1e-6, "a crash loop is never tight"
                if self.spawn_fails:
                    self.failed_at = self.now
                    return SpawnFailed("no such file")
                pid = next(self.pids)
                self.processes[pid] = Fake(pid, launch, self.newest)
                return Spawned(pid, started_at=self.now)
            case Finish(pid):
                self.processes[pid].told = True
            case Kill(pid):
                assert self.processes[pid].told, "nobody is killed who was not told to finish before"
                self.processes[pid].alive = self.processes[pid].child = False
            case Answer(request, failure):
                self.check_answer(request, failure)
            case Tell(event):
                self.events.append(event)
        return None

    def check_answer(self, request, failure):
        launch = self.open.pop(request)  # KeyError: answered twice
        if failure is not None:
            return
        serving = self.processes[self.state.serving.pid]
        assert serving.asked_by_then >= request, "answered by a worker that was started before it was asked for"
        if request == self.newest and launch is not None:
            assert serving.launch == launch

    def check_finishes(self, before, effects):
        """The one promise that matters most: who serves is told to finish only by a successor, or by a stop."""
        if before.serving is None or Finish(before.serving.pid) not in effects:
            return
        if not self.processes[before.serving.pid].alive:
            return
        successor = any(isinstance(effect, Tell) and isinstance(effect.event, WorkerUp) for effect in effects)
        assert successor or self.state.phase in (Phase.STOPPING, Phase.STOPPED)

    # ---- What may happen ----

    @rule(command=st.sampled_from([None, None, "second", "third"]))
    def ask(self, command):
        launch = None if command is None else Launch((command,))
        number = next(self.numbers)
        self.open[number] = launch
        self.newest = number
        self.take(Asked(number, launch))

    @rule(fails=st.booleans())
    def change_the_command(self, fails):
        self.spawn_fails = fails

    @rule(seconds=st.sampled_from([0.001, 0.1, 1.0, 5.0, 40.0, 100.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.take(Tick())
        self.bury()

    @precondition(lambda self: due(self.state, self.settings) is not None)
    @rule()
    def until_something_is_due(self):
        self.now = max(self.now, due(self.state, self.settings))
        before = (self.state, len(self.events))
        self.take(Tick())
        assert (self.state, len(self.events)) != before, "what is due is done, or the driver would spin"
        self.bury()

    def living(self):
        return [process for process in self.processes.values() if process.alive]

    @precondition(lambda self: self.living())
    @rule(data=st.data(), child=st.booleans())
    def a_worker_ends(self, data, child):
        process = data.draw(st.sampled_from(self.living()))
        process.alive, process.child = False, child
        if not process.told:
            self.failed_at = self.now
        self.take(Exited(process.pid, 1, children=child))

    @precondition(lambda self: any(process.child and not process.alive for process in self.processes.values()))
    @rule(data=st.data())
    def the_last_child_ends(self, data):
        process = data.draw(st.sampled_from([p for p in self.processes.values() if p.child and not p.alive]))
        process.child = False
        self.take(GroupGone(process.pid))

    @precondition(lambda self: self.settings.ready is not None and self.processes)
    @rule(data=st.data(), missing=st.sampled_from([None, "503", "refused"]))
    def a_check_answers(self, data, missing):
        pid = data.draw(st.sampled_from(sorted(self.processes)))
        before, coming = self.state, self.state.coming
        self.take(Probed(pid, missing))
        if coming is None or coming.worker.pid != pid:
            assert self.state == before, "what is said of another worker, or too late, changes nothing"

    @rule(drain=st.sampled_from([None, 0.0, 3.0]), sure=st.integers(0, 9))
    def stop(self, drain, sure):
        if sure == 0:  # seldom, or hardly anything else would be seen
            self.stopped = True
            self.take(StopAsked(drain))

    def bury(self):
        """Those that were killed are noticed."""
        for worker in self.state.leaving:
            pid = worker.worker.pid
            if not self.processes[pid].alive and worker.status is None:
                self.take(Exited(pid, -9, children=False))
            elif not self.processes[pid].alive and not self.processes[pid].child:
                self.take(GroupGone(pid))

    # ---- What always holds ----

    @invariant()
    def everything_alive_is_known(self):
        if not hasattr(self, "state"):
            return
        coming = self.state.coming.worker if self.state.coming else None
        known = {w.pid for w in (self.state.serving, coming) if w} | {w.worker.pid for w in self.state.leaving}
        for process in self.processes.values():
            if process.alive or process.child:
                assert process.pid in known
            if process.told and (process.alive or process.child):
                assert process.pid in {w.worker.pid for w in self.state.leaving}, "who must go is waited for"

    @invariant()
    def who_serves_lives(self):
        if hasattr(self, "state") and self.state.serving is not None:
            assert self.processes[self.state.serving.pid].alive
            assert not self.processes[self.state.serving.pid].told

    @invariant()
    def it_never_gives_up(self):
        if hasattr(self, "state") and self.state.phase is Phase.RUNNING:
            assert self.state.serving or self.state.coming or self.state.retry_at is not None

    @invariant()
    def every_request_is_answered_or_has_its_turn(self):
        if hasattr(self, "state"):
            coming = self.state.coming.requests if self.state.coming else ()
            assert set(self.open) == {asked.request for asked in (*coming, *self.state.waiting)}
            assert self.state.coming or not self.state.waiting, "nobody waits for nothing"

    def teardown(self):
        """From wherever it stands, a stop comes to its end."""
        if not hasattr(self, "state"):
            return
        self.stopped = True
        self.take(StopAsked())
        for _ in range(1000):
            if self.state.phase is Phase.STOPPED:
                break
            self.now = max(self.now, due(self.state, self.settings))
            self.take(Tick())
            self.bury()
        assert self.state.phase is Phase.STOPPED
        assert not any(process.alive or process.child for process in self.processes.values())
        assert not self.open


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_up_to_its_cap(crashes, chance):
    patience = Settings(backoff_base=0.5, backoff_cap=60)
    longest = min(60, 0.5 * 2.0 ** min(crashes - 1, 100))
    wait = backoff(crashes, chance, patience)
    assert longest / 2 <= wait <= longest
    assert backoff(crashes, 0, patience) <= backoff(crashes + 1, 0, patience)
