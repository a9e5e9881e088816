"""Store time, estimated from the answers of the store."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from kvcache.clock import Clock, StoreClock


class Hands(Clock):
    """A clock that is set by hand; its wall clock is wrong on purpose."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 5e6


OFFSET = 1_790_000_000.25
"""What the store's clock shows more than ours."""

delays = st.floats(0.0, 100.0)
exchanges = st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=20)
"""Seconds before the question, from question to the store's look at its clock, and from there to our look at it."""


@given(exchanges, st.sampled_from([0.0, 1.0]))
def test_no_answer_makes_the_estimate_worse(exchanges: list[tuple[float, float, float]], resolution: float) -> None:
    """However long it was under way, and however coarsely it tells the time."""
    clock = Hands()
    time = StoreClock(clock, resolution)
    before = math.inf
    for pause, there, back in exchanges:
        clock.now += pause
        asked_at = clock.now
        clock.now += there
        told = clock.now + OFFSET
        clock.now += back
        time.observe(math.floor(told) if resolution else told, asked_at)
        error = abs(time.at(clock.now) - (clock.now + OFFSET))
        assert error <= max(before, 0.0) + 1e-6
        assert error <= resolution + there + back + 1e-6
        before = error


def test_without_an_answer_it_is_the_wall_clock() -> None:
    clock = Hands()
    time = StoreClock(clock)
    time.observe(None, clock.now)
    assert time.now().store == clock.wall()
