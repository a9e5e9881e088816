"""All checks of the port's contract, what a shared cache stands on first: odd keys have brought servers down."""

from __future__ import annotations

from typing import Final

from kvcache.conformance import changes, conditions, keys, races, streams, times, values
from kvcache.conformance.check import Check, collect
from kvcache.conformance.registers import linearizable


def contract(seed: int = 0, *, faults: bool = False) -> tuple[Check, ...]:
    """The checks. `seed` decides what the clients of a recorded race do; `faults`: for a store behind faults."""
    return (
        *collect(values, conditions, races),
        linearizable(seed, faults=faults),
        *collect(times, changes, streams, keys),
    )


CONTRACT: Final[tuple[Check, ...]] = contract()
