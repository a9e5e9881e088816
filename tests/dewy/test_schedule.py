"""When a node polls: spread over the interval, and never far away, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dewy.schedule import phase_of, until_next

intervals = st.floats(0.1, 86_400)


@given(st.floats(-1e9, 1e11), intervals, st.floats(0, 1, exclude_max=True))
def test_the_next_poll_is_at_most_an_interval_away_wherever_the_clock_jumps(
    wall: float, interval: float, part: float
) -> None:
    assert 0 < until_next(wall, interval, part * interval) <= interval


@given(st.text(), intervals)
def test_a_node_has_its_place(node: str, interval: float) -> None:
    phase = phase_of(node, interval)
    assert 0 <= phase < interval and phase == phase_of(node, interval)


def test_at_its_place_again() -> None:
    assert until_next(1_000_000.0, 10.0, 3.0) == 3.0
    assert until_next(1_000_003.0, 10.0, 3.0) == 10.0
    assert until_next(1_000_003.5, 10.0, 3.0) == 9.5


def test_a_fleet_does_not_poll_in_step() -> None:
    """300 nodes in 30 slots of a second: no slot has many times its share."""
    slots = [int(phase_of(f"node-{number}|/srv/app", 30.0)) for number in range(300)]
    assert len(set(slots)) == 30 and max(slots.count(slot) for slot in set(slots)) <= 25
