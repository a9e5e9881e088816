"""Durations and sizes as people write them, to seconds and bytes and back.

Durations are Go's, since Dewy v2 reads and logs them so: `30s`, `1m30s`, `250ms`, `1.5h`. Sizes name their unit:
`64MiB` (powers of 1024) or `64MB` (powers of 1000); a bare number is bytes.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, what Go writes
    "μs": 1_000,  # U+03BC, what some keyboards give
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_LONGEST: Final = 2**63 - 1
"""Most nanoseconds that Go, and so a peer of Dewy v2, can hold (292 years)."""

_BYTES: Final = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_MOST_BYTES: Final = 2**63 - 1
"""Largest size of a file."""

_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_TERM: Final = re.compile(rf"({_NUMBER})([a-zµμ]+)")
_DURATION: Final = re.compile(rf"\+?(?:{_NUMBER}(?:{'|'.join(_NANOSECONDS)}))+")
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([a-z]*)", re.IGNORECASE)
_PLAIN: Final = re.compile(_NUMBER)

DURATION_FORM: Final = "a duration such as 30s, 1m30s, 250ms or 2h"
SIZE_FORM: Final = "a size such as 64MiB, 64MB or 65536 (bytes)"


class InvalidQuantity(ValueError):
    """A duration or size that cannot be read. The message names the value and what was expected, on one line."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"{_shown(text)}: expected {expected}")
        self.expected = expected


def parse_duration(text: str, *, plain_seconds: bool = False) -> float:
    """Seconds of a duration such as `1m30s`; with `plain_seconds` also of a number without a unit.

    Units: ns us µs ms s m h, with decimals, in any order, as Go's. `0` needs no unit. Never negative, never infinite.
    InvalidQuantity.
    """
    if text == "0":
        return 0.0
    if plain_seconds and _PLAIN.fullmatch(text):
        nanoseconds = Fraction(_decimal(text)) * _NANOSECONDS["s"]
    elif _DURATION.fullmatch(text):
        nanoseconds = sum(
            (Fraction(_decimal(number)) * _NANOSECONDS[unit] for number, unit in _TERM.findall(text)), Fraction(0)
        )
    elif text.startswith("-") and _DURATION.fullmatch(text[1:]):
        raise InvalidQuantity(text, "a duration that is not negative")
    else:
        raise InvalidQuantity(text, f"{DURATION_FORM}, or plain seconds" if plain_seconds else DURATION_FORM)
    if nanoseconds > _LONGEST:
        raise InvalidQuantity(text, "a duration below 292 years")
    return float(nanoseconds / _NANOSECONDS["s"])


def format_duration(seconds: float) -> str:
    """A duration exactly as Go prints it: `30s`, `1m30s`, `2h0m0s`, `250ms`, `1.5µs`, `0s`; to the nanosecond."""
    nanoseconds = round(Fraction(seconds) * _NANOSECONDS["s"])
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if nanoseconds == 0:
        return "0s"
    for unit, larger in (("ns", "µs"), ("µs", "ms"), ("ms", "s")):
        if nanoseconds < _NANOSECONDS[larger]:
            return f"{sign}{_exactly(nanoseconds, _NANOSECONDS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_exactly(rest, _NANOSECONDS['s'])}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def parse_size(text: str) -> int:
    """Bytes of a size such as `64MiB`, `1.5GB` or `4096`; the case of the unit is free. InvalidQuantity."""
    found = _SIZE.fullmatch(text)
    unit = _BYTES.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise InvalidQuantity(text, SIZE_FORM)
    size = Fraction(_decimal(found[1])) * unit
    if size.denominator != 1:
        raise InvalidQuantity(text, "a whole number of bytes")
    if size > _MOST_BYTES:
        raise InvalidQuantity(text, "a size below 8 EiB")
    return int(size)


def _exactly(amount: int, unit: int) -> str:
    """`amount / unit` in decimals, without trailing zeros and without floating point."""
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")


def _decimal(number: str) -> str:
    """A number as Fraction takes it: Go also allows `1.` and `.5`."""
    return f"0{number}0" if "." in number else number


def _shown(text: str) -> str:
    """The value for an error message: on one line and not endless."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
