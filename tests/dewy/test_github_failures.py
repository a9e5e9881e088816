"""What an unwelcome answer of GitHub means: when to try again, and when an answer is final."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from dewy.registry.github_failures import LONGEST_PAUSE, UNNAMED_PAUSE, api_message, failure

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
OTHER_CLOCK = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


def outcome(status: int, message: str = "", **headers: str) -> tuple[float | None, bool]:
    body = json.dumps({"message": message}).encode()
    error = failure("GET x", status, HTTPHeaderDict({k.replace("_", "-"): v for k, v in headers.items()}), body, NOW)
    assert "\n" not in str(error)
    return error.retry_after, error.authoritative


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_considered_answers_are_final(status: int) -> None:
    assert outcome(status) == (None, True)


@pytest.mark.parametrize("status", [301, 400, 408, 418, 422, 500, 502, 503, 504])
def test_all_others_may_pass(status: int) -> None:
    assert outcome(status) == (None, False)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_retry_after_in_seconds(status: int) -> None:
    assert outcome(status, Retry_After="17") == (17.0, False)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_retry_after_as_a_date_counts_by_the_server_s_clock(status: int) -> None:
    until = http_date(datetime(2026, 5, 1, 10, 0, 42, tzinfo=UTC))
    assert outcome(status, Retry_After=until, Date=http_date(OTHER_CLOCK)) == (42.0, False)
    assert outcome(status, Retry_After=http_date(datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC))) == (7.0, False)
    assert outcome(status, Retry_After=until) == (0.0, False)  # over already


@pytest.mark.parametrize("status", [403, 429])
def test_the_primary_rate_limit_counts_by_the_server_s_clock(status: int) -> None:
    limits = {"x_ratelimit_remaining": "0", "x_ratelimit_reset": str(int(OTHER_CLOCK.timestamp()) + 600)}
    assert outcome(status, Date=http_date(OTHER_CLOCK), **limits) == (601.0, False)
    assert outcome(status, **limits) == (0.0, False)  # without its date our own clock has to do
    assert outcome(status, x_ratelimit_remaining="0") == (UNNAMED_PAUSE, False)
    assert outcome(status, Retry_After="5", Date=http_date(OTHER_CLOCK), **limits) == (5.0, False)


def test_secondary_rate_limits_without_a_time() -> None:
    assert outcome(429) == (UNNAMED_PAUSE, False)
    assert outcome(403, "You have exceeded a secondary rate limit") == (UNNAMED_PAUSE, False)
    assert outcome(403, "You have triggered an abuse detection mechanism") == (UNNAMED_PAUSE, False)
    assert outcome(403, "Resource not accessible by integration", x_ratelimit_remaining="4999") == (None, True)


@pytest.mark.parametrize("text", ["soon", "-5", "1e9", "٣", "9" * 400, "", " ", "Fri, 99 May 2026"])
def test_a_retry_after_that_cannot_be_read_is_none(text: str) -> None:
    assert outcome(503, Retry_After=text) == (None, False)


def test_pauses_are_bounded() -> None:
    assert outcome(429, Retry_After="999999999999") == (LONGEST_PAUSE, False)


def test_the_line_says_what_was_asked_and_what_to_do() -> None:
    error = failure("GitHub: GET repos/o/r/releases", 404, {}, b'{"message":"Not Found"}', NOW)
    assert str(error) == "GitHub: GET repos/o/r/releases: 404: no such repository, or not for this token; Not Found"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "two\\nlines"}', "two lines"),
        (b'{"message": "see https://user:hunter2@host/x"}', "see https://user:***@host/x"),
        (b'{"message": 7}', ""),
        (b'["x"]', ""),
        (b"<html>", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_api_s_message_is_shown_safely(body: bytes, message: str) -> None:
    assert api_message(body) == message


names = st.sampled_from(["retry-after", "date", "x-ratelimit-remaining", "x-ratelimit-reset", "other"])
values = st.text(st.characters(max_codepoint=255), max_size=12) | st.integers(-5, 10**13).map(str) | st.just("0")


@given(st.integers(100, 599), st.dictionaries(names, values), st.binary(max_size=40))
def test_any_answer_makes_an_error_with_a_sane_pause(status: int, headers: dict[str, Any], body: bytes) -> None:
    error = failure("GET x", status, headers, body, NOW)
    assert error.retry_after is None or 0 <= error.retry_after <= LONGEST_PAUSE
    assert not (error.authoritative and error.retry_after is not None)
