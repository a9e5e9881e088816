"""The values of instruments. For any number of threads; a snapshot is of one moment."""

from __future__ import annotations

import itertools
import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dewy.telemetry.instruments import INSTRUMENTS, Instrument, Kind

Labels: TypeAlias = tuple[str, ...]
"""Values, in the order of the instrument's labels."""
MOST_SERIES: Final = 200
"""Of one instrument. Beyond it new ones are not kept: a metric must not grow with what the world sends."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """`counts` by bucket, the last one without a bound; not cumulative. `least` and `most` are 0 where all are."""

    counts: tuple[int, ...]
    sum: float
    least: float
    most: float

    @property
    def count(self) -> int:
        return sum(self.counts)


Value: TypeAlias = float | Distribution


@dataclass(frozen=True, slots=True)
class Family:
    """One instrument with its series, sorted by labels."""

    instrument: Instrument
    series: tuple[tuple[Labels, Value], ...]


@dataclass(slots=True)
class _Tally:
    counts: list[int]
    sum: float = 0.0
    least: float = math.inf
    most: float = 0.0

    def add(self, bucket: int, value: float) -> None:
        self.counts[bucket] += 1
        self.sum += value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def frozen(self) -> Distribution:
        return Distribution(tuple(self.counts), self.sum, min(self.least, self.most), self.most)


@dataclass(slots=True)
class _Series:
    numbers: dict[Labels, float] = field(default_factory=dict)
    tallies: dict[Labels, _Tally] = field(default_factory=dict)
    read: Callable[[], float | None] | None = None


class Metrics:
    """Values of `instruments`, from zero."""

    def __init__(self, instruments: Sequence[Instrument] = INSTRUMENTS) -> None:
        self._lock = threading.Lock()  # guards the values
        self._series = {instrument: _Series() for instrument in instruments}
        for instrument in instruments:
            for labels in itertools.product(*instrument.labels.values()):
                self._begin(instrument, labels)

    def add(self, instrument: Instrument, amount: float = 1.0, **labels: str) -> None:
        """Counts on."""
        assert instrument.kind is Kind.COUNTER and amount >= 0, instrument.name
        key = _key(instrument, labels)
        with self._lock:
            numbers = self._series[instrument].numbers
            if key in numbers or len(numbers) < MOST_SERIES:
                numbers[key] = numbers.get(key, 0.0) + amount

    def set(self, instrument: Instrument, value: float, **labels: str) -> None:
        """A gauge's value as of now."""
        assert instrument.kind is Kind.GAUGE, instrument.name
        with self._lock:
            self._series[instrument].numbers[_key(instrument, labels)] = value

    def only(self, instrument: Instrument, value: float, **labels: str) -> None:
        """As `set`, and the gauge's other series are gone."""
        assert instrument.kind is Kind.GAUGE, instrument.name
        with self._lock:
            self._series[instrument].numbers = {_key(instrument, labels): value}

    def watch(self, instrument: Instrument, read: Callable[[], float | None]) -> None:
        """A gauge without labels that is read when somebody looks; None: it has no value then."""
        assert instrument.kind is Kind.GAUGE and not instrument.labels, instrument.name
        with self._lock:
            self._series[instrument].read = read

    def observe(self, instrument: Instrument, value: float, **labels: str) -> None:
        """One more value of a histogram."""
        assert instrument.kind is Kind.HISTOGRAM, instrument.name
        key = _key(instrument, labels)
        with self._lock:
            tally = self._series[instrument].tallies.setdefault(key, _Tally([0] * (len(instrument.buckets) + 1)))
            tally.add(bisect_left(instrument.buckets, value), value)

    def collect(self) -> tuple[Family, ...]:
        """Everything, as of now."""
        watched = {i: series.read for i, series in self._series.items() if series.read is not None}
        read = {
            instrument: reader() for instrument, reader in watched.items()
        }  # outside of the lock: it may take a while
        with self._lock:
            return tuple(self._family(instrument, read) for instrument in self._series)

    def _family(self, instrument: Instrument, read: dict[Instrument, float | None]) -> Family:
        """Caller holds the lock."""
        if instrument in read:
            value = read[instrument]
            return Family(instrument, () if value is None else (((), value),))
        series = self._series[instrument]
        values: dict[Labels, Value] = dict(series.numbers)
        values |= {key: tally.frozen() for key, tally in series.tallies.items()}
        return Family(instrument, tuple(sorted(values.items(), key=lambda item: item[0])))

    def _begin(self, instrument: Instrument, labels: Labels) -> None:
        """Shown from the start, so that the first event is a rise from zero. A gauge begins where it is set."""
        if instrument.kind is Kind.COUNTER:
            self._series[instrument].numbers[labels] = 0.0
        elif instrument.kind is Kind.HISTOGRAM:
            self._series[instrument].tallies[labels] = _Tally([0] * (len(instrument.buckets) + 1))


def _key(instrument: Instrument, labels: dict[str, str]) -> Labels:
    assert labels.keys() == instrument.labels.keys(), (instrument.name, labels)
    return tuple(labels[name] for name in instrument.labels)
