"""Calls that hang end for the caller, and do not pile up."""

from __future__ import annotations

import threading
import time

import pytest

from dewy.deadline import MOST_LEFT_BEHIND, Bounded, Deadline, Overdue


def test_what_a_call_returns_or_raises_comes_through() -> None:
    bounded = Bounded()
    assert bounded.call("it", lambda: 7, 60.0) == 7
    with pytest.raises(ZeroDivisionError):
        bounded.call("it", lambda: 1 / 0, 60.0)
    with pytest.raises(TimeoutError, match="its own"):  # no Overdue: it has come back
        bounded.call("it", lambda: (_ for _ in ()).throw(TimeoutError("its own")), 60.0)


def test_calls_that_hang_are_left_behind_but_not_without_end() -> None:
    bounded, release = Bounded(), threading.Event()
    before = threading.active_count()
    for _ in range(MOST_LEFT_BEHIND):
        with pytest.raises(Overdue, match="registry: no answer within 0 s"):
            bounded.call("registry", lambda: release.wait(60), 0.01)
    with pytest.raises(Overdue, match=f"registry: {MOST_LEFT_BEHIND} earlier calls hang still"):
        bounded.call("registry", lambda: None, 60.0)
    assert threading.active_count() <= before + MOST_LEFT_BEHIND
    release.set()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bounded.call("registry", lambda: "again", 60.0) == "again"


def test_a_deadline_always_leaves_a_chance() -> None:
    assert Deadline(0.0).left == 1.0
    assert 50 < Deadline(60.0).left <= 60
