"""Durations and sizes: Go's forms, exactly, and nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.units import InvalidQuantity, format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("1h15m30.918s", 4530.918),
        ("1µs", 1e-6),  # U+00B5
        ("1μs", 1e-6),  # U+03BC
        ("1us", 1e-6),
        ("1ns", 1e-9),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("+5s", 5.0),
        ("1s1h1s", 3602.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("0.000000001s", 1e-9),
    ],
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


NO_DURATIONS = [
    "30",
    "1.5",
    "s",
    ".s",
    "-1s",
    "2d",
    "1w",
    "1S",
    "1,5s",
    "1e3s",
    "0x1s",
    "inf",
    "nan",
    "1s-1s",
    "٣s",
    "9999999h",
]


@pytest.mark.parametrize("text", [*NO_DURATIONS, "9999999h", "", " ", "1 s", " 1s", "1s ", "30s\n", "1" * 400 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidQuantity) as caught:
        parse_duration(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected a duration" in message
    assert len(message) < 150


def test_plain_seconds_only_where_allowed() -> None:
    assert parse_duration("10", plain_seconds=True) == 10.0
    assert parse_duration("0.5", plain_seconds=True) == 0.5
    assert parse_duration("1m", plain_seconds=True) == 60.0
    with pytest.raises(InvalidQuantity, match="or plain seconds"):
        parse_duration("ten", plain_seconds=True)
    with pytest.raises(InvalidQuantity, match="such as 30s"):
        parse_duration("-10", plain_seconds=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [  # what Go's Duration.String gives
        (0, "0s"),
        (1e-9, "1ns"),
        (1.5e-6, "1.5µs"),
        (0.00123, "1.23ms"),
        (0.001234567, "1.234567ms"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (2.01, "2.01s"),  # in floating point a nanosecond less
        (30, "30s"),
        (60, "1m0s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (7200.5, "2h0m0.5s"),
        (-1, "-1s"),
        (-0.0005, "-500µs"),
        (360000, "100h0m0s"),
    ],
)
def test_durations_are_printed_as_go_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**15))
def test_a_printed_duration_reads_back(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("64MiB", 64 * 1024 * 1024),
        ("64MB", 64_000_000),
        ("64mb", 64_000_000),
        ("1GiB", 1024**3),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("10 kB", 10_000),
        ("1KiB", 1024),
        ("7B", 7),
        ("2TiB", 2 * 1024**4),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MiB", "-1", "-1MiB", "64M", "64Mi", "1.5", "0.3kB1", "1e6", "64 MiB ", "9999999TiB", "1 0", "0x10", "1PB"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidQuantity) as caught:
        parse_size(text)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            value = parse(text)
        except InvalidQuantity as error:
            assert "\n" not in str(error)
        else:
            assert 0 <= value < math.inf
