"""What is news, and what is not: decisions about messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.log import Log
from dewy.notify.message import HookRun, Message, Weight
from dewy.notify.notices import Notices, Topics
from dewy.notify.once import LEASE, WINDOW, Later, Mine, Note, Told, judge


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        self.time += 1
        return self.time


@pytest.fixture
def told() -> list[Message]:
    return []


@pytest.fixture
def notices(told: list[Message]) -> Notices:
    return Notices(Log(), told.append, now=Clock())


def texts(told: list[Message]) -> list[str]:
    return [message.text for message in told]


def test_failures_are_told_three_times_then_the_recovery(notices: Notices, told: list[Message]) -> None:
    for _ in range(5):
        notices.failed("no route")
    notices.worked()
    notices.worked()
    notices.failed("again")
    assert texts(told) == [
        "Error occurred (count: 1): no route",
        "Error occurred (count: 2): no route",
        "No more error notifications will be sent until it works again. Error occurred (count: 3): no route",
        "Works again after 5 errors",
        "Error occurred (count: 1): again",
    ]
    assert [message.weight for message in told[2:4]] == [Weight.FAILURE, Weight.IMPORTANT]


def test_news_of_the_tick_that_recovers_is_not_lost(notices: Notices, told: list[Message]) -> None:
    """B11: Dewy v2 holds back all but errors until the tick is over."""
    notices.failed("bad archive")
    notices.tell("Download notification", "Downloaded artifact for `v2`")
    notices.tell("Restart notification", "Server restarted for `v2`")
    notices.worked()
    assert texts(told)[1:] == ["Downloaded artifact for `v2`", "Server restarted for `v2`", "Works again after 1 error"]


def test_what_is_tried_over_and_over_is_told_once(notices: Notices, told: list[Message]) -> None:
    notices.failed("does not start")
    for _ in range(3):
        notices.tell("Download notification", "Downloaded artifact for `v2`")
        notices.hook(HookRun("before", "false", 1, "", "", 0.1, succeeded=False))
        notices.failed("does not start")
    assert texts(told).count("Downloaded artifact for `v2`") == 1
    assert texts(told).count("Before Deploy Hook failed") == 1
    notices.worked()
    notices.tell("Download notification", "Downloaded artifact for `v2`")
    assert texts(told).count("Downloaded artifact for `v2`") == 2


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("Dewy start notification", Weight.NEWS),
        ("Download notification", Weight.NEWS),
        ("Shutdown notification", Weight.NEWS),
        ("Start notification", Weight.IMPORTANT),
        ("Restart notification", Weight.IMPORTANT),
        ("Outage notification", Weight.IMPORTANT),
    ],
)
def test_weights(notices: Notices, told: list[Message], kind: str, weight: Weight) -> None:
    notices.tell(kind, "x")
    assert [message.weight for message in told] == [weight]


def test_hooks_matter_when_they_fail(notices: Notices, told: list[Message]) -> None:
    notices.hook(HookRun("before", "true", 0, "", "", 0.1, succeeded=True))
    notices.hook(HookRun("after", "false", 1, "", "", 0.1, succeeded=False))
    assert [(message.text, message.weight) for message in told] == [
        ("Before Deploy Hook succeeded", Weight.NEWS),
        ("After Deploy Hook failed", Weight.FAILURE),
    ]


def test_nodes_that_fail_alike_speak_of_one_event(notices: Notices, told: list[Message]) -> None:
    notices.failed("no answer within 1.25 s; pid 4711 at 0x7f00")
    notices.worked()
    notices.failed("no answer within 90 s; pid 12 at 0x1")
    notices.worked()
    notices.failed("v1.2.0: not found")
    assert told[0].event == told[2].event != told[4].event
    assert "v1.2.0" in told[4].event


def test_every_occurrence_is_told_of_by_its_own(notices: Notices, told: list[Message]) -> None:
    """A failure after a recovery, and a version after another one, are news although the words are the same."""
    notices.failed("x")
    notices.worked()
    notices.failed("x")
    first, recovery, second = told
    assert first.not_before < recovery.not_before < second.not_before
    told.clear()
    for tag in ("v1", "v2", "v1"):
        notices.tell("Restart notification", f"Server restarted for `{tag}`")
    assert told[0].event == told[2].event and told[2].not_before > 1000.0 == told[0].not_before + 1000.0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 10)), min_size=1, max_size=20))
def test_an_occurrence_is_as_old_as_the_state_before(steps: list[tuple[str, float]]) -> None:
    topics, now, entered = Topics(), 0.0, []
    for state, passed in steps:
        now += passed
        before = topics.enter("t", state, now)
        if not entered or entered[-1][0] != state:
            entered.append((state, now))
        assert before == (entered[-2][1] if len(entered) > 1 else 0.0)
        assert before <= now


# -- one for the fleet -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "age", "occurrence", "verdict"),
    [
        (None, 0.0, 1e9, Mine()),
        (Note(0, "n", sent=True), 5.0, 1e9, Told()),
        (Note(0, "n", sent=True), WINDOW + 1, 1e9, Mine()),
        (Note(0, "n", sent=True), 5.0, 3.0, Mine()),
        (Note(0, "n", sent=False), 5.0, 1e9, Later(LEASE - 5)),
        (Note(0, "n", sent=False), LEASE, 1e9, Mine()),
        (Note(0, "n", sent=True), -5.0, 1e9, Told()),
        (Note(0, "n", sent=False), -5.0, 1e9, Later(LEASE)),
    ],
)
def test_judging_a_note(note: Note | None, age: float, occurrence: float, verdict: object) -> None:
    assert judge(note, age, occurrence) == verdict


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"at": "x", "by": "n", "sent": true}', b"\xff", b'{"at":1,"by":"n"}']
)
def test_what_is_no_note(data: bytes) -> None:
    assert Note.decode(data) is None


@given(st.floats(0, 1e11), st.text(max_size=10), st.booleans())
def test_notes_come_back(at: float, by: str, sent: bool) -> None:
    note = Note(at, by, sent)
    assert Note.decode(note.encode()) == note
