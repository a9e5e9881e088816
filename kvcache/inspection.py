"""What is to be said of a record: for `kvcache inspect`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Final

from kvcache.codec import decode
from kvcache.errors import CorruptRecord, NotFound
from kvcache.kvs import Store
from kvcache.record import Record
from kvcache.redaction import scrub
from kvcache.units import format_duration

LARGEST_GUESS: Final = 2**20
"""Bytes up to which a value may turn out to be a record, where its key does not say so."""
SHOWN_OF_ANSWER: Final = 200
"""Characters of an answer that the text shows; JSON has it whole."""
_RECORD_KEY: Final = re.compile(r"(?:registry-cache|artifact-cache)/[0-9a-f]{16}\.json")


def is_record_key(key: str) -> bool:
    """Whether dewy keeps a record under this key."""
    return _RECORD_KEY.fullmatch(key) is not None


def inspect_all(store: Store, *, everywhere: bool) -> Iterator[dict[str, Any]]:
    """The facts of every record under dewy's keys; `everywhere`: of every value of up to 1 MiB that is one.

    The latter costs a request or two for each key. What vanishes meanwhile is left out. StoreUnavailable.
    """
    for key in store.list():
        expected = is_record_key(key)
        if not expected and not everywhere:
            continue
        try:
            if not expected and store.stat(key).size > LARGEST_GUESS:
                continue
            facts = inspect(store, key)
        except NotFound:
            continue
        if expected or "unreadable" not in facts:
            yield facts


def inspect(store: Store, key: str) -> dict[str, Any]:
    """The facts of one record, ages in seconds on the store's clock. NotFound, StoreUnavailable."""
    try:
        stored = store.read_versioned(key)
    except CorruptRecord as error:  # the store itself finds the value damaged
        return {"key": key, "unreadable": str(error)}
    now = time.time() if stored.store_time is None else stored.store_time
    facts: dict[str, Any] = {
        "key": key,
        "version": stored.version.token,
        "size": len(stored.data),
        "clock": "host" if stored.store_time is None else "store",
    }
    try:
        return facts | _facts(decode(stored.data), now)
    except CorruptRecord as error:
        return facts | {"unreadable": str(error)}


def _facts(record: Record, now: float) -> dict[str, Any]:
    facts: dict[str, Any] = {}
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
        return "\n".join([*lines, f"  no record: {facts['unreadable']}; a refresh under this key would replace it"])
    if "age" in facts:
        gone = ", invalidated" if facts["invalidated"] else ""
        lines.append(f"  answer: {_ago(facts['age'])} old{gone}; fetched in {_ago(facts['took'])}")
        lines.append(f"  value: {scrub(json.dumps(facts['value'], ensure_ascii=False), SHOWN_OF_ANSWER)}")
    else:
        lines.append("  answer: none yet")
    lines.append(f"  lock: {_lock(facts.get('lock'))}")
    if (failure := facts.get("failure")) is not None:
        due = f"next call in {_ago(failure['next_call_in'])}" if failure["next_call_in"] else "next call due now"
        lines.append(f"  failed {failure['count']} time(s) in a row, last {_ago(failure['age'])} ago; {due}")
        lines.append(f"  why: {failure['kind']}: {failure['message']}")
        if failure["authoritative"]:
            lines.append("  the upstream means it: an answer beyond its ttl is not served in place of this failure")
    if facts["clock"] == "host":
        lines.append("  ages are by this host's clock: the store does not tell the time")
    return "\n".join(lines)


def _lock(lock: dict[str, Any] | None) -> str:
    if lock is None:
        return "free"
    if lock["lease"] is None:
        return f"held by {lock['by']} for {_ago(lock['age'])}, a Dewy v2, which names no lease"
    if lock["left"] > 0:
        return f"held by {lock['by']} for {_ago(lock['age'])}, {_ago(lock['left'])} left of its lease"
    return f"left behind by {lock['by']}, lease over; whoever comes next takes it"


def _ago(seconds: float) -> str:
    return format_duration(round(max(0.0, seconds), 1))
