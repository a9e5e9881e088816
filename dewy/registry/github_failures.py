"""What an unwelcome answer of GitHub's API means: try again when, or never. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from kvcache import UpstreamError, scrub

CONSIDERED: Final = frozenset({401, 403, 404, 410, 451})
"""Statuses that are the registry's considered answer, where no rate limit is behind them."""
UNNAMED_PAUSE: Final = 60.0
"""Seconds to stay away after a rate limit that names no time; what GitHub's documentation asks for."""
LONGEST_PAUSE: Final = 24 * 3600.0
"""Seconds. What asks for more is a broken clock or a broken header."""

_HINTS: Final = {
    401: "the token is not valid",
    403: "the token lacks the right, or the organisation wants it authorised",
    404: "no such repository, or not for this token",
}


def failure(what: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> UpstreamError:
    """The error for an answer that is no success. `what` was asked; `now` stands in where the answer has no date."""
    message = api_message(body)
    pause = rate_limit(status, headers, message, now)
    if pause is not None:
        return UpstreamError(_line(what, status, f"rate limited for {pause:.0f} s", message), retry_after=pause)
    considered = status in CONSIDERED
    asked = None if considered else retry_after(headers, now)
    return UpstreamError(
        _line(what, status, _HINTS.get(status, ""), message), retry_after=asked, authoritative=considered
    )


def rate_limit(status: int, headers: Mapping[str, str], message: str, now: datetime) -> float | None:
    """Seconds to stay away if this is a rate limit, primary or secondary; else None.

    GitHub answers 403 to both, as to what is forbidden; 429 it keeps for rate limits.
    """
    if status not in (403, 429):
        return None
    asked = retry_after(headers, now)
    if asked is not None:
        return asked
    if headers.get("x-ratelimit-remaining") == "0":
        reset = _number(headers.get("x-ratelimit-reset"))
        if reset is None:
            return UNNAMED_PAUSE
        # Both times are the server's own; ours may be wrong. One second more, since both are cut to whole seconds.
        return _pause(reset - _date(headers, now).timestamp() + 1.0)
    words = message.lower()
    limited = status == 429 or "rate limit" in words or "abuse detection" in words
    return UNNAMED_PAUSE if limited else None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The Retry-After of an answer in seconds, whether it is written as seconds or as a date; else None."""
    text = (headers.get("retry-after") or "").strip()
    if not text:
        return None
    seconds = _number(text)
    if seconds is not None:
        return _pause(seconds)
    until = _http_date(text)
    return None if until is None else _pause((until - _date(headers, now)).total_seconds())


def api_message(body: bytes) -> str:
    """The `message` of an error's body, on one line and not endless; "" where there is none."""
    try:
        told: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = told.get("message") if isinstance(told, dict) else None
    return scrub(message, 160) if isinstance(message, str) else ""


def _line(what: str, status: int, *reasons: str) -> str:
    told = "; ".join(filter(None, reasons))
    return f"{what}: {status}{': ' if told else ''}{told}"


def _pause(seconds: float) -> float:
    return min(LONGEST_PAUSE, max(0.0, seconds))


def _date(headers: Mapping[str, str], now: datetime) -> datetime:
    return _http_date(headers.get("date") or "") or now


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) <= 12 else None
