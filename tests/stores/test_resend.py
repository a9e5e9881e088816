"""Which requests are sent again, for how long, and which error is left when it was in vain."""

from __future__ import annotations

import itertools

import pytest

from kvcache.backends.resend import LONGEST_PAUSE, Pace, Sender, Trouble, Verdict
from kvcache.errors import AmbiguousWrite, StoreUnavailable, Throttled
from tests.stores.shelf import HandClock


class Failed(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class Server:
    """Answers as it is told, one after the other, and then `done`."""

    def __init__(self, *verdicts: Verdict, retry_after: float | None = None) -> None:
        self.sent = 0
        self._verdicts = list(verdicts)
        self._retry_after = retry_after

    def __call__(self) -> str:
        self.sent += 1
        if self._verdicts:
            verdict = self._verdicts.pop(0)
            raise Failed(Trouble(verdict, verdict.name, self._retry_after))
        return "done"


@pytest.fixture
def sender() -> Sender:
    return Sender("store://", (Failed,), lambda error: error.trouble, within=0.5)  # type: ignore[attr-defined]  # all are Failed


UNKNOWN, NOT_NOW, THROTTLED, NO, HALF = Verdict.UNKNOWN, Verdict.NOT_NOW, Verdict.THROTTLED, Verdict.NO, Verdict.HALF


@pytest.mark.parametrize(
    ("verdicts", "maybe_twice"),
    [([], False), ([NOT_NOW], False), ([THROTTLED], False), ([UNKNOWN], True), ([NOT_NOW, UNKNOWN, NOT_NOW], True)],
)
def test_what_can_pass_is_sent_again(sender: Sender, verdicts: list[Verdict], maybe_twice: bool) -> None:
    server = Server(*verdicts)
    assert sender.send(server, writes=True) == ("done", maybe_twice)
    assert server.sent == len(verdicts) + 1


@pytest.mark.parametrize(
    ("verdicts", "again", "error", "sent"),
    [
        ([NO], True, StoreUnavailable, 1),
        ([HALF], True, AmbiguousWrite, 1),
        ([UNKNOWN, NO], True, AmbiguousWrite, 2),  # the first may have landed, whatever became of the second
        ([UNKNOWN], False, AmbiguousWrite, 1),
        ([NOT_NOW, NOT_NOW, UNKNOWN], False, AmbiguousWrite, 3),
        ([NOT_NOW, NO], False, StoreUnavailable, 2),
    ],
)
def test_what_is_left_of_a_write(
    sender: Sender, verdicts: list[Verdict], again: bool, error: type[Exception], sent: int
) -> None:
    server = Server(*verdicts)
    with pytest.raises(StoreUnavailable) as caught:
        sender.send(server, again=again, writes=True)
    assert type(caught.value) is error
    assert server.sent == sent
    assert str(caught.value) == f"store://: {verdicts[-1].name}"


@pytest.mark.parametrize(
    ("verdict", "writes", "error"),
    [
        (UNKNOWN, True, AmbiguousWrite),
        (UNKNOWN, False, StoreUnavailable),
        (NOT_NOW, True, StoreUnavailable),
        (THROTTLED, True, Throttled),
    ],
)
def test_patience_ends(sender: Sender, verdict: Verdict, writes: bool, error: type[Exception]) -> None:
    server = Server(*[verdict] * 1000)
    with pytest.raises(StoreUnavailable) as caught:
        sender.send(server, writes=writes)
    assert type(caught.value) is error
    assert 3 < server.sent < 20


def test_a_pause_that_is_asked_for_is_kept_or_not_begun(sender: Sender) -> None:
    server = Server(THROTTLED, retry_after=7)
    with pytest.raises(Throttled) as caught:
        sender.send(server)
    assert (caught.value.retry_after, server.sent) == (7, 1)


def test_pauses_grow_and_stay_within_the_deadline() -> None:
    clock = HandClock()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.time += seconds

    pace = Pace(clock.monotonic() + 10.0, clock, sleep)
    while pace.again():
        pass
    assert sum(pauses) < 10.0
    assert max(pauses) <= LONGEST_PAUSE
    assert all(later > earlier / 2 for earlier, later in itertools.pairwise(pauses))


def test_other_errors_pass_through(sender: Sender) -> None:
    def bug() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        sender.ask(bug)
