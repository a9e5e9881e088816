"""All checks of the port's contract, in the order in which a reader would ask."""

from __future__ import annotations

from typing import Final

from kvcache.conformance import changes, conditions, keys, races, streams, times, values
from kvcache.conformance.check import Check, collect

CONTRACT: Final[tuple[Check, ...]] = collect(values, keys, conditions, streams, races, times, changes)
