"""Records as bytes: the form of Dewy v2, with our own fields beside it under the one name `kvcache`.

    {"response":…,"fetched_at":…,"locked_at":…,"locked_by":…,"kvcache":{"format":1,"nonce":…,…}}

Dewy v2 ignores the field and drops it when it rewrites the record; what is lost then (nonce, lease, validator,
failure) is done without. Times are RFC 3339; on the wire they have up to six fractional digits, in UTC.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from kvcache.errors import CorruptRecord
from kvcache.record import Answer, Failure, Lock, Record

FORMAT: Final = 1
MAX_RECORD_BYTES: Final = 64 * 2**20
"""What is larger than this is no record of ours."""

_ZERO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time: "no time at all"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
# Go's encoder escapes these inside strings; outside of strings JSON has none of them. Lone surrogates, which UTF-8
# cannot carry, stay readable as escapes.
_GO_ESCAPES: Final = re.compile("[&<>\u2028\u2029\ud800-\udfff]")


def encode_json(value: Any) -> str:
    """Compact JSON with the escapes of Go's encoder. TypeError or ValueError where `value` is not JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _GO_ESCAPES.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def encode(record: Record) -> bytes:
    """The bytes of `record`. TypeError or ValueError where its value is not JSON."""
    fields: dict[str, Any] = {}
    answer, lock, failure = record.answer, record.lock, record.failure
    if answer is not None:
        fields["response"] = answer.value
    fields["fetched_at"] = _time_text(answer.fetched_at if answer else None)
    fields["locked_at"] = _time_text(lock.locked_at if lock else None)
    if lock is not None and lock.by:
        fields["locked_by"] = lock.by
    ours: dict[str, Any] = {"format": FORMAT, "nonce": record.nonce}
    if lock is not None and lock.lease is not None:
        ours["lease"] = round(lock.lease, 6)
    if answer is not None:
        ours["took"] = round(answer.took, 6)
        if answer.validator is not None:
            ours["validator"] = answer.validator
        if answer.extra is not None:
            ours["extra"] = answer.extra
    if record.invalidated:
        ours["invalidated"] = True
    if failure is not None:
        ours["failure"] = {
            "count": failure.count,
            "kind": failure.kind,
            "message": failure.message,
            "failed_at": _time_text(failure.failed_at),
            "retry_at": _time_text(failure.retry_at),
            "authoritative": failure.authoritative,
        }
    fields["kvcache"] = ours
    return encode_json(fields).encode()


def decode(data: bytes) -> Record:
    """The record in `data`, whether ours or Dewy v2's. CorruptRecord for anything else, never another error."""
    if len(data) > MAX_RECORD_BYTES:
        raise CorruptRecord(f"{len(data)} bytes are too many for a record")
    try:
        raw = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise CorruptRecord("nested too deeply") from None
    except ValueError as error:  # bad UTF-8, bad JSON, NaN
        raise CorruptRecord(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CorruptRecord("not a JSON object")
    try:
        return _record(raw)
    except CorruptRecord:
        raise
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise CorruptRecord(f"malformed field: {error}") from error


def _record(raw: dict[str, Any]) -> Record:
    fields = {key.lower(): value for key, value in raw.items()}  # Go's reader matches names without regard to case
    if not fields.keys() & {"fetched_at", "locked_at"}:
        raise CorruptRecord("neither fetched_at nor locked_at")
    fetched_at, locked_at = _seconds(fields.get("fetched_at")), _seconds(fields.get("locked_at"))
    by = fields.get("locked_by") or ""
    if not isinstance(by, str):
        raise CorruptRecord("locked_by is not text")
    response, ours = fields.get("response"), fields.get("kvcache")
    if ours is None:
        if response is not None and not isinstance(response, dict):
            raise CorruptRecord("response is not an object")
        answer = Answer(response, fetched_at) if response is not None and fetched_at is not None else None
        return Record("", answer, None if locked_at is None else Lock(locked_at, by))
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        raise CorruptRecord(f"a format that this version does not know: {str(ours)[:40]}")
    answer = None
    if fetched_at is not None:
        answer = Answer(response, fetched_at, ours.get("validator"), ours.get("extra"), _number(ours.get("took", 0.0)))
    lock = None
    if locked_at is not None:
        lease = ours.get("lease")
        lock = Lock(locked_at, by, None if lease is None else _number(lease))
    nonce = ours.get("nonce")
    if not isinstance(nonce, str) or not nonce:
        raise CorruptRecord("no nonce")
    return Record(nonce, answer, lock, _failure(ours.get("failure")), ours.get("invalidated") is True)


def _failure(raw: Any) -> Failure | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise CorruptRecord("failure is not an object")
    failed_at, retry_at, count = _seconds(raw["failed_at"]), _seconds(raw["retry_at"]), raw["count"]
    if failed_at is None or retry_at is None or type(count) is not int or count < 1:
        raise CorruptRecord("failure lacks a time or a count")
    return Failure(count, str(raw["kind"]), str(raw["message"]), failed_at, retry_at, raw["authoritative"] is True)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise CorruptRecord(f"not a length of time: {str(value)[:40]}")
    return float(value)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _time_text(at: float | None) -> str:
    if at is None:
        return _ZERO_TIME
    moment = _EPOCH + timedelta(microseconds=round(at * 1e6))
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def _seconds(text: Any) -> float | None:
    """Seconds since the Unix epoch; None for Go's zero time (in any zone) and for a missing field."""
    if text is None:
        return None
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise CorruptRecord(f"not an RFC 3339 time: {str(text)[:40]}")
    year, month, day, hour, minute, second, fraction, zulu, sign, off_hours, off_minutes = match.groups()
    offset = timedelta(0)
    if not zulu:
        offset = timedelta(hours=int(off_hours), minutes=int(off_minutes)) * (-1 if sign == "-" else 1)
    zone = timezone(offset) if abs(offset) < timedelta(days=1) else None
    if zone is None:
        raise CorruptRecord(f"not an RFC 3339 time: {text[:40]}")
    # Subtracting the epoch from the local reading, and the offset apart, keeps year 1 with any offset in range.
    local = datetime(int(year), int(month), int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC)
    whole = (local - _EPOCH) // timedelta(seconds=1) - int(offset.total_seconds())
    nanoseconds = int((fraction or "0").ljust(9, "0"))
    if whole == _ZERO_SECONDS and nanoseconds == 0:
        return None
    return (whole * 1_000_000 + nanoseconds // 1000) / 1e6


_ZERO_SECONDS: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
