"""The supervisor's decisions, one course of events after the other, as an operator sees them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from dewy.lifecycle import ABANDON_AFTER, STOPPING, due, step
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
    WorkerCrashed,
    WorkerFinishing,
    WorkerGone,
    WorkerKilled,
    WorkerRecovered,
    WorkerRefused,
    how_it_ended,
)

FIRST = Launch(("first",))


class Course:
    """A supervisor with virtual processes 1, 2, ...; its events are kept."""

    def __init__(self, **settings):
        self.settings = Settings(**{"settle": 1.0, **settings})
        self.state = State(FIRST)
        self.now = 0.0
        self.pids = count(1)
        self.broken = False
        self.effects = []

    def take(self, happened):
        self.state, effects = step(self.state, happened, now=self.now, chance=0.0, settings=self.settings)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Spawn):
                self.take(SpawnFailed("no such file") if self.broken else Spawned(next(self.pids), 0.0))

    def sleep(self, seconds):
        self.now += seconds
        self.take(Tick())

    def told(self, kind):
        return [e.event for e in self.effects if isinstance(e, Tell) and isinstance(e.event, kind)]

    def answers(self):
        return {e.request: e.failure for e in self.effects if isinstance(e, Answer)}

    @classmethod
    def running(cls, **settings):
        course = cls(**settings)
        course.take(Asked(1))
        course.sleep(1.0)
        assert course.state.serving.pid == 1
        return course


def test_a_worker_that_exits_before_it_has_settled_is_refused():
    course = Course()
    course.take(Asked(1))
    course.now = 0.5
    course.take(Exited(1, 3, children=False))
    assert course.answers() == {1: "exited with status 3 after 0.5 s, before it was up"}
    assert course.state.phase is Phase.IDLE
    assert due(course.state, course.settings) is None, "whoever asked for the first start decides about the next"


def test_the_old_one_is_told_only_when_the_new_one_is_up():
    course = Course.running(drain=30)
    course.take(Asked(2))
    course.sleep(0.999)
    assert Finish(1) not in course.effects
    course.sleep(0.001)
    assert course.state.serving.pid == 2
    assert course.told(WorkerFinishing) == [WorkerFinishing(1, 1, 30)]
    assert course.effects.index(Finish(1)) < course.effects.index(Answer(2, None))


def test_with_an_overlap_both_serve_for_a_while():
    """KILL_OLD_DELAY of server-starter."""
    course = Course.running(overlap=5.0)
    course.take(Asked(2))
    course.sleep(4.9)
    assert course.state.serving.pid == 1 and 2 not in course.answers()
    course.sleep(0.1)
    assert course.state.serving.pid == 2 and course.answers()[2] is None
    assert course.told(WorkerFinishing) == [WorkerFinishing(1, 1, course.settings.drain)]


def test_an_overlap_begins_when_the_new_one_is_ready_and_its_death_keeps_the_old_one():
    course = Course(ready=lambda _: None, ready_timeout=30.0, overlap=5.0)
    course.take(Asked(1))
    course.take(Probed(1, None))
    assert course.state.serving.pid == 1, "there is no other one to overlap with"
    course.take(Asked(2))
    course.sleep(29.0)
    course.take(Probed(2, None))
    course.sleep(4.0)  # beyond the time in which it had to be ready
    assert course.state.serving.pid == 1 and course.told(WorkerRefused) == []
    course.take(Exited(2, 3, children=False))
    assert course.state.serving.pid == 1 and course.answers()[2].startswith("exited with status 3")
    assert course.told(WorkerFinishing) == []
    course.take(Asked(3))
    course.take(Probed(3, None))
    course.sleep(5.0)
    assert course.state.serving.pid == 3 and course.answers()[3] is None


def test_a_failure_of_the_host_is_told_from_one_of_the_release():
    course = Course.running()
    course.take(Asked(2))
    course.effects.clear()
    state, effects = step(
        State(FIRST, coming=replace(course.state.coming, worker=None)),
        SpawnFailed("no process left", host=True),
        now=0.0,
        chance=0.0,
        settings=course.settings,
    )
    assert Answer(2, "no process left", host=True) in effects and state.coming is None


def test_a_restart_does_not_wait_for_one_that_drains():
    course = Course.running()
    for number in (2, 3, 4):
        course.take(Asked(number))
        course.sleep(1.0)
    assert course.state.serving.generation == 4
    assert [leaving.worker.pid for leaving in course.state.leaving] == [1, 2, 3]


def test_requests_during_a_start_share_the_next_one_and_the_newest_wish_counts():
    course = Course.running()
    second, third = Launch(("second",)), Launch(("third",))
    course.take(Asked(2))
    for number, launch in ((3, second), (4, third), (5, None)):
        course.take(Asked(number, launch))
    course.sleep(1.0)
    assert course.answers() == {1: None, 2: None}
    course.sleep(1.0)
    assert course.answers() == dict.fromkeys(range(1, 6))
    assert course.state.generation == 3
    assert course.state.launch == third


def test_a_failed_restart_changes_nothing():
    course = Course.running()
    before = course.state
    course.broken = True
    course.take(Asked(2, Launch(("bad",))))
    assert course.answers()[2] == "no such file"
    assert course.state == replace(before, generation=2)


def test_crashes_are_restarted_ever_more_slowly_until_one_runs_well():
    course = Course.running(backoff_base=1.0, backoff_cap=4.0, well_after=60)
    waits = []
    for crash in range(1, 6):
        course.take(Exited(course.state.serving.pid, -11, children=False))
        event = course.told(WorkerCrashed)[-1]
        assert (event.how, event.crashes) == ("killed by SIGSEGV", crash)
        waits.append(event.retry_in)
        course.sleep(event.retry_in)
        course.sleep(1.0)
    assert waits == [0.5, 1.0, 2.0, 2.0, 2.0]
    course.sleep(59)
    assert course.told(WorkerRecovered) == [WorkerRecovered(6, 6, crashes=5)]
    course.take(Exited(6, 0, children=False))
    assert course.told(WorkerCrashed)[-1].retry_in == 0.5


def test_a_crash_while_a_restart_is_under_way_starts_no_third_worker():
    course = Course.running()
    course.take(Asked(2))
    course.take(Exited(1, 1, children=False))
    assert course.told(WorkerCrashed)[0].retry_in is None
    course.sleep(1.0)
    assert course.state.serving.pid == 2
    assert course.state.crashes == 0


def test_a_crash_and_then_a_failed_restart_brings_back_what_ran_before():
    course = Course.running()
    course.take(Asked(2, Launch(("bad",))))
    course.take(Exited(1, 1, children=False))
    course.take(Exited(2, 1, children=False))
    refused = course.told(WorkerRefused)[0]
    assert refused.retry_in == course.settings.backoff_base / 2
    course.sleep(refused.retry_in)
    assert course.state.coming.launch == FIRST


def test_a_restart_during_the_backoff_does_not_wait_for_its_end():
    course = Course.running(backoff_base=60)
    course.take(Exited(1, 1, children=False))
    course.take(Asked(2))
    course.sleep(1.0)
    assert course.answers()[2] is None
    assert (course.state.crashes, course.state.retry_at) == (0, None)


def test_children_of_a_crashed_worker_are_ended():
    course = Course.running(drain_failed=5)
    course.take(Exited(1, 1, children=True))
    assert Finish(1) in course.effects
    course.sleep(5)
    assert Kill(1) in course.effects
    course.take(GroupGone(1))
    assert not course.state.leaving


def test_not_ready_in_time_is_refused_with_what_was_missing():
    course = Course(ready=lambda _: None, ready_timeout=10, drain_failed=5)
    course.take(Asked(1))
    course.take(Probed(1, "GET /healthz: 503"))
    course.sleep(10)
    assert course.answers() == {1: "not ready within 10 s: GET /healthz: 503"}
    course.take(Probed(1, None))
    assert course.state.serving is None, "too late"
    course.sleep(5)
    assert course.told(WorkerKilled) == [WorkerKilled(1, 1, after=5)]


def test_stop_drains_kills_and_gives_up_on_what_the_kernel_cannot_end():
    course = Course.running(drain=30)
    course.take(Asked(2))
    course.take(StopAsked())
    assert course.answers()[2] == STOPPING
    course.take(Asked(3))
    assert course.answers()[3] == STOPPING
    course.take(Exited(2, 0, children=False))
    course.sleep(29)
    assert not course.told(WorkerKilled)
    course.take(StopAsked(drain=0.5))
    course.sleep(0.5)
    assert course.told(WorkerKilled)
    assert course.state.phase is Phase.STOPPING
    course.sleep(ABANDON_AFTER)
    assert course.told(WorkerGone)[-1].how == "could not be killed"
    assert course.state.phase is Phase.STOPPED


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_how_it_ended(status, words):
    assert how_it_ended(status) == words
