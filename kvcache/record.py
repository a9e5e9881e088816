"""What lives under a key: the last answer, its freshness, the refresh lock and the failure state.

Every time in a record is store time, in seconds since the Unix epoch. Records are values: the functions at the end
of this file make the next record from the last one; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

MAX_LEASE = 3600.0
"""Longest lease believed, in seconds: a record that claims more cannot keep a fleet waiting for ever."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The upstream's last answer. `took`: how long its load took, in seconds; the first wait of followers."""

    value: Any
    fetched_at: float
    validator: Any = None
    extra: Any = None
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Lock:
    """A claim. `lease` in seconds; None for one of Dewy v2, whose records name none."""

    locked_at: float
    by: str
    lease: float | None = None

    def ends_at(self, foreign_lease: float) -> float:
        return self.locked_at + self.length(foreign_lease)

    def length(self, foreign_lease: float) -> float:
        return min(MAX_LEASE, foreign_lease if self.lease is None else self.lease)


@dataclass(frozen=True, slots=True)
class Failure:
    """How the upstream failed: `count` times in a row, last at `failed_at`; nobody calls it before `retry_at`."""

    count: int
    kind: str
    message: str
    failed_at: float
    retry_at: float
    authoritative: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One state of one key. `nonce` is unique to the write that made it ("" where Dewy v2 wrote it)."""

    nonce: str
    answer: Answer | None = None
    lock: Lock | None = None
    failure: Failure | None = None
    invalidated: bool = False


EMPTY = Record(nonce="")


def claimed(last: Record, *, at: float, by: str, lease: float, nonce: str) -> Record:
    """`last` with the lock taken; answer, freshness and failure state are carried along unchanged."""
    return replace(last, nonce=nonce, lock=Lock(at, by, lease))


def renewed(claim: Record, *, at: float, nonce: str) -> Record:
    """A claim whose lease starts again at `at`."""
    if claim.lock is None:
        raise ValueError("only a claim can be renewed")
    return replace(claim, nonce=nonce, lock=replace(claim.lock, locked_at=at))


def answered(answer: Answer, *, nonce: str) -> Record:
    """A published answer: lock free, failure state cleared."""
    return Record(nonce=nonce, answer=answer)


def failed(claim: Record, failure: Failure, *, nonce: str) -> Record:
    """A published failure: lock free; the answer and its age stay."""
    return replace(claim, nonce=nonce, lock=None, failure=failure)


def invalidated(last: Record, *, nonce: str) -> Record:
    """`last` with an answer that is no longer fresh, whatever its age, but stays as fallback.

    The lock is taken off: its leader loads what may be older than the invalidation, and can no longer publish it.
    """
    return replace(last, nonce=nonce, lock=None, invalidated=last.answer is not None)
