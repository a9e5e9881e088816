"""What is to be said of a record: for `kvcache inspect`."""

from __future__ import annotations

import re
import time
from typing import Any

from kvcache.codec import decode
from kvcache.errors import CorruptRecord
from kvcache.kvs import Store
from kvcache.units import format_duration

_RECORD_KEY = re.compile(r"(?:registry-cache|artifact-cache)/[0-9a-f]{16}\.json")


def is_record_key(key: str) -> bool:
    """Whether dewy keeps a record under this key."""
    return _RECORD_KEY.fullmatch(key) is not None


def inspect(store: Store, key: str) -> dict[str, Any]:
    """The facts of one record, ages in seconds on the store's clock. NotFound, StoreUnavailable."""
    stored = store.read_versioned(key)
    now = stored.store_time if stored.store_time is not None else time.time()
    facts: dict[str, Any] = {"key": key, "version": stored.version.token, "size": len(stored.data)}
    try:
        record = decode(stored.data)
    except CorruptRecord as error:
        return {**facts, "unreadable": str(error)}
    if record.answer is not None:
        facts |= {"age": now - record.answer.fetched_at, "took": record.answer.took, "value": record.answer.value}
        facts["invalidated"] = record.invalidated
    if record.lock is not None:
        lock: dict[str, Any] = {"by": record.lock.by, "age": now - record.lock.locked_at, "lease": record.lock.lease}
        if record.lock.lease is not None:
            lock["left"] = max(0.0, record.lock.locked_at + record.lock.lease - now)
        facts["lock"] = lock
    if record.failure is not None:
        failure = record.failure
        facts["failure"] = {
            "count": failure.count,
            "kind": failure.kind,
            "message": failure.message,
            "age": now - failure.failed_at,
            "authoritative": failure.authoritative,
            "next_call_in": max(0.0, failure.retry_at - now),
        }
    return facts


def as_text(facts: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [facts["key"]]
    if "unreadable" in facts:
        return "\n".join([*lines, f"  unreadable: {facts['unreadable']}; the next refresh replaces it"])
    if "age" in facts:
        gone = ", invalidated" if facts["invalidated"] else ""
        lines.append(f"  answer: {_ago(facts['age'])} old{gone}; fetched in {_ago(facts['took'])}")
    else:
        lines.append("  answer: none yet")
    lock, failure = facts.get("lock"), facts.get("failure")
    if lock is None:
        lines.append("  lock: free")
    elif lock["lease"] is None:
        lines.append(f"  lock: held by {lock['by']} for {_ago(lock['age'])}, a Dewy v2, which names no lease")
    elif lock["left"] > 0:
        lines.append(f"  lock: held by {lock['by']} for {_ago(lock['age'])}, {_ago(lock['left'])} left of its lease")
    else:
        lines.append(f"  lock: left behind by {lock['by']}, lease over; whoever comes next takes it")
    if failure is not None:
        due = f"next call in {_ago(failure['next_call_in'])}" if failure["next_call_in"] else "next call due now"
        lines.append(f"  failed {failure['count']} time(s) in a row, last {_ago(failure['age'])} ago; {due}")
        lines.append(f"  why: {failure['kind']}: {failure['message']}")
    return "\n".join(lines)


def _ago(seconds: float) -> str:
    return format_duration(round(max(0.0, seconds), 1))
