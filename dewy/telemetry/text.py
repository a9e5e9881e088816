"""Prometheus's text format, version 0.0.4, which is frozen and which everything reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from dewy.telemetry.instruments import Instrument
from dewy.telemetry.metrics import Distribution, Family, Labels

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(families: Iterable[Family]) -> str:
    """All series of all families that have any."""
    return "".join(f"{line}\n" for family in families if family.series for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    instrument = family.instrument
    name = instrument.exposed
    yield f"# HELP {name} {_escaped(instrument.about)}"
    yield f"# TYPE {name} {instrument.kind.value}"
    for labels, value in family.series:
        if isinstance(value, Distribution):
            bounds = (*map(_number, instrument.buckets), "+Inf")
            for bound, count in zip(bounds, accumulate(value.counts), strict=True):
                yield f"{name}_bucket{_labels(instrument, labels, le=bound)} {count}"
            yield f"{name}_sum{_labels(instrument, labels)} {_number(value.sum)}"
            yield f"{name}_count{_labels(instrument, labels)} {value.count}"
        else:
            yield f"{name}{_labels(instrument, labels)} {_number(value)}"


def _labels(instrument: Instrument, values: Labels, **more: str) -> str:
    pairs = {**dict(zip(instrument.labels, values, strict=True)), **more}
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
