"""What kvcache says to Consul's KV store, and what its answers mean. Pure: no socket.

A value is one KV pair. Its flags, a number that Consul keeps beside the value for its users, say what it is:

    0x6B76 (`kv`) and 48 random bits     a value
    0x6B6D (`km`) and 48 random bits     the manifest of a value in parts (see `parts.py`)
    anything else                        a value that others have put there

The random bits are new with every write. They tell a writer whose answer was lost whether it is its own write that
stands there, and they make every write a change: Consul keeps the old index if value and flags are what they were.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64decode, b64encode
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

from kvcache.backends.parts import Entry
from kvcache.backends.resend import Trouble, Verdict
from kvcache.kvs import ANYWAY, Condition, Version

INLINE_BYTES: Final = 368 * 1024
"""A write is a transaction, whose whole body may have 512 KiB by default (txn_max_req_len), the value in Base64."""
PART_BYTES: Final = 448 * 1024
"""A part is a plain PUT, whose body may have 512 KiB by default (kv_max_value_size)."""

_NONCE_BITS: Final = 48
_VALUE: Final = 0x6B76
_MANIFEST: Final = 0x6B6D


class Refused(Exception):
    """An answer other than the one hoped for. `reason` is its body's first line."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Garbled(Exception):
    """An answer that is not one of Consul's, or only a part of one."""


# -- values ------------------------------------------------------------------------------------------------------------


def flags(nonce: str, *, manifest: bool) -> int:
    """The flags of a write whose nonce is this hexadecimal number."""
    return (_MANIFEST if manifest else _VALUE) << _NONCE_BITS | int(nonce, 16) & (1 << _NONCE_BITS) - 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A KV pair as Consul returns it."""

    value: bytes
    flags: int
    index: int

    def entry(self, store_time: float) -> Entry:
        is_manifest = self.flags >> _NONCE_BITS == _MANIFEST
        return Entry(self.value, len(self.value), is_manifest, str(self.index), store_time)


def parse_pair(body: bytes) -> Pair:
    """The one pair in the answer to a read. Garbled."""
    try:
        (found,) = json.loads(body)
        # An empty value is null.
        return Pair(b64decode(found["Value"] or b""), int(found["Flags"]), int(found["ModifyIndex"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Garbled(f"not a KV pair: {error!r}") from error


def parse_names(body: bytes) -> list[str]:
    """The answer to a listing. Garbled."""
    try:
        return [str(name) for name in json.loads(body)]
    except (ValueError, TypeError) as error:
        raise Garbled(f"not a list of keys: {error!r}") from error


# -- writes ------------------------------------------------------------------------------------------------------------


def write_body(name: str, data: bytes, mark: int, condition: Condition) -> bytes:
    """A transaction of one write: unlike a plain PUT, it answers with the new index."""
    operation: dict[str, Any] = {"Key": name, "Value": b64encode(data).decode(), "Flags": mark}
    if condition is ANYWAY:
        operation |= {"Verb": "set"}
    else:
        operation |= {"Verb": "cas", "Index": int(condition.token) if isinstance(condition, Version) else 0}
    return json.dumps([{"KV": operation}], ensure_ascii=False).encode()


def parse_written(body: bytes) -> int:
    """The new ModifyIndex, from the answer to a transaction that went through. Garbled."""
    try:
        return int(json.loads(body)["Results"][0]["KV"]["ModifyIndex"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise Garbled(f"not the result of a transaction: {error!r}") from error


def parse_rollback(body: bytes) -> str:
    """Why a transaction did not go through, from its 409."""
    try:
        return str(json.loads(body)["Errors"][0]["What"])
    except (ValueError, TypeError, KeyError, IndexError):
        return body[:200].decode(errors="replace")


def is_stale(reason: str) -> bool:
    """Whether a rollback says that the condition did not hold."""
    return "index is stale" in reason


def is_denied(reason: str) -> bool:
    """Whether a rollback says that the token lacks a right: that, too, is a 409."""
    return "ermission denied" in reason or "ACL not found" in reason


# -- answers -----------------------------------------------------------------------------------------------------------


def date(header: str | None) -> float:
    """Seconds since the Unix epoch of a Date header. Garbled."""
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except (ValueError, TypeError) as error:
        raise Garbled(f"no usable Date header: {header!r}") from error


def judge(error: Exception) -> Trouble:
    """What became of the request that ended in `error`."""
    if isinstance(error, Refused):
        return _judge_status(error)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return Trouble(Verdict.NOT_NOW, reason)
    if isinstance(error, SSLError) and any(isinstance(part, ssl.SSLCertVerificationError) for part in error.args):
        return Trouble(Verdict.NO, f"the server's certificate is not trusted: ca=<PEM file> ({reason})")
    return Trouble(Verdict.UNKNOWN, reason)


def _judge_status(error: Refused) -> Trouble:
    if error.status == 429:
        return Trouble(Verdict.THROTTLED, str(error), error.retry_after)
    if error.status in (401, 403):
        return Trouble(Verdict.NO, f"the token in CONSUL_HTTP_TOKEN lacks a right ({error})")
    if error.status < 500:
        return Trouble(Verdict.NO, str(error))
    return Trouble(Verdict.UNKNOWN, str(error))
