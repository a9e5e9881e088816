"""What a simulated fleet has to do, and what goes wrong: data, from the command line's `--faults` or from a test.

    NAME[=VALUE][@START[-END]], ...      times are seconds from the start, or durations such as 10m

A fault without times lasts for the whole run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from kvcache.units import parse_duration


@dataclass(frozen=True, slots=True)
class Workload:
    """One fleet that asks for one key. Times in seconds; latencies are medians of log-normal distributions.

    `interval`: each node asks that often, with a phase of its own. `clock_offset`: standard deviation of the hosts'
    wall clocks. `clock_rate`: the most by which a host's clock runs too fast or too slow, as a fraction.
    `date_resolution`: granularity of the store's clock. `request_timeout`: when a client gives a store request up.
    """

    nodes: int = 1000
    hours: float = 1.0
    seed: int = 0
    interval: float = 10.0
    ttl: float = 60.0
    max_stale: float | None = None
    lease: float = 30.0
    refresh_ahead: float = 0.0
    store_latency: float = 0.02
    upstream_latency: float = 0.3
    request_timeout: float = 5.0
    clock_offset: float = 2.0
    clock_rate: float = 1e-4
    date_resolution: float = 1.0
    restart: float = 5.0

    @property
    def seconds(self) -> float:
        return self.hours * 3600


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault's value means; `default` None: it has to be given. `instant`: happens once, at START."""

    meaning: str
    default: float | None = None
    most: float = math.inf
    instant: bool = False


KINDS: Final = {
    "upstream-down": Kind("fraction of the upstream calls that fail", 1.0, 1.0),
    "upstream-slow": Kind("seconds added to every upstream call"),
    "rate-limit": Kind("calls that the upstream takes from START to END; then it says Retry-After: END"),
    "store-down": Kind("fraction of the nodes that cannot reach the store", 1.0, 1.0),
    "store-slow": Kind("seconds added to every store request"),
    "store-writes": Kind("writes a second that the store takes; the rest is told to slow down"),
    "store-careless": Kind("fraction of the writes whose condition the store ignores", 1.0, 1.0),
    "lost": Kind("fraction of the store requests of which the request, or the reply, is lost", None, 1.0),
    "crash": Kind("crashes of one node in an hour"),
    "pause": Kind("pauses of one node in an hour, each of up to three leases"),
    "crash-leader": Kind("the next leader dies in the middle of its load", 0.0, instant=True),
    "pause-leader": Kind("the next leader stands still for two leases in the middle of its load", 0.0, instant=True),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; it lasts from `start` to just before `end`, in seconds from the start of the run."""

    name: str
    value: float
    start: float = 0.0
    end: float = math.inf

    def on(self, time: float) -> bool:
        return self.start <= time < self.end


def strength(faults: list[Fault], time: float) -> float:
    """The greatest value of those that are on; 0.0 where none is."""
    return max((fault.value for fault in faults if fault.on(time)), default=0.0)


def parse_faults(text: str) -> tuple[Fault, ...]:
    """`--faults`. ValueError, in one line, names the part and the accepted form."""
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(part: str) -> Fault:
    spec, at, times = part.partition("@")
    name, equals, value = spec.partition("=")
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(f"--faults: {part!r}: unknown fault {name!r}; expected one of {', '.join(sorted(KINDS))}")
    if kind.instant:
        if equals or not at or "-" in times:
            raise ValueError(f"--faults: {part!r}: expected {name}@TIME")
        start = _time(part, times)
        return Fault(name, 0.0, start, start)
    number = _number(part, kind, value) if equals else kind.default
    if number is None:
        raise ValueError(f"--faults: {part!r}: expected {name}=NUMBER ({kind.meaning})")
    if not at:
        return Fault(name, number)
    first, dash, last = times.partition("-")
    start, end = _time(part, first), _time(part, last) if dash else math.inf
    if end <= start:
        raise ValueError(f"--faults: {part!r}: the fault ends before it starts; expected {name}@START-END")
    return Fault(name, number, start, end)


def _number(part: str, kind: Kind, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= kind.most or math.isinf(number):
        most = "" if math.isinf(kind.most) else f", at most {kind.most:g}"
        raise ValueError(f"--faults: {part!r}: {text!r}: expected a positive number{most} ({kind.meaning})")
    return number


def _time(part: str, text: str) -> float:
    try:
        return parse_duration(text, plain_seconds=True)
    except ValueError:
        raise ValueError(f"--faults: {part!r}: {text!r}: expected seconds, or a duration such as 10m") from None
