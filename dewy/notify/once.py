"""One message for a fleet: who makes the note of an event in the shared store tells of it, the others keep quiet.

    notices/<hash of application, channel and event>    {"at": <store time>, "by": <node>, "sent": <bool>}

Absent, old, or of an earlier occurrence: made, or replaced, by a conditional write; who wins it sends. Not yet sent:
asked for again when the winner's time is over, and then taken over; so a node that dies, or cannot reach the service,
delays a message by LEASE and loses none. Where the store does not answer everybody tells: twice is better than never.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from dewy.log import Log
from dewy.notify.message import Message
from kvcache import ABSENT, Conflict, KVCacheError, NotFound, Store, Version

PREFIX: Final = "notices/"
LEASE: Final = 60.0
"""Seconds in which the node that took an event on has to have told of it."""
WINDOW: Final = 3600.0
"""Seconds after which the same event is news again, whatever the notes say."""
SWEEP_EVERY: Final = 3600.0
SWEEP_MOST: Final = 200
"""Notes looked at in one sweep."""


@dataclass(frozen=True, slots=True)
class Note:
    """What stands in the store. `at` in seconds since the Unix epoch, by the store's clock where it has one."""

    at: float
    by: str
    sent: bool

    def encode(self) -> bytes:
        return json.dumps({"at": self.at, "by": self.by, "sent": self.sent}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None: it is no note."""
        try:
            match json.loads(data):
                case {"at": int() | float() as at, "by": str(by), "sent": bool(sent)}:
                    return cls(float(at), by, sent)
        except ValueError:
            pass
        return None


@dataclass(frozen=True, slots=True)
class Mine:
    """This node tells. `key` "" where there is no note to mark."""

    key: str = ""
    version: Version | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody has told."""


@dataclass(frozen=True, slots=True)
class Later:
    """Somebody is about to tell; ask again in so many seconds."""

    seconds: float


Claim: TypeAlias = Mine | Told | Later


def judge(note: Note | None, age: float, occurrence: float) -> Claim:
    """What a note of this `age` means for a node whose occurrence of the event is at most `occurrence` seconds old.

    A note from the future (a clock was put back) is as good as one of now.
    """
    if note is None or age > min(WINDOW, occurrence):
        return Mine()
    if note.sent:
        return Told()
    left = LEASE - max(age, 0.0)
    return Later(left) if left > 0 else Mine()


class Once:
    """The notes of one application. For several threads.

    `store` gives the shared store, or None while there is none. `scope` tells applications apart.
    """

    def __init__(
        self,
        store: Callable[[], Store | None],
        *,
        scope: str,
        node: str,
        log: Log,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._scope = scope
        self._node = node
        self._log = log
        self._now = now
        self._lock = threading.Lock()  # guards the next two; the channels have a thread each
        self._warned = False
        self._swept_at = now()

    def claim(self, message: Message, channel: str) -> Claim:
        """Whether this node has to tell. Never raises."""
        store = self._shared()
        if store is None:
            return Mine()
        key = self._key(channel, message.event)
        try:
            return self._claim(store, key, message.not_before)
        except KVCacheError as error:
            self._log.warn("cannot ask the fleet whether it was told; telling", error=error)
            return Mine()

    def sent(self, claim: Mine) -> None:
        """It went out: the others need not look again. Never raises."""
        store = self._store()
        if store is None or not claim.key or claim.version is None:
            return
        # Where it does not get through another node tells once more, after the lease.
        with suppress(KVCacheError):
            store.write_if(claim.key, Note(claim.at, self._node, sent=True).encode(), claim.version)
            self._sweep(store)

    def _claim(self, store: Store, key: str, not_before: float) -> Claim:
        local = self._now()
        note, version, now = self._read(store, key, local)
        age = now - note.at if note is not None else 0.0
        verdict = judge(note, age, local - not_before)
        if not isinstance(verdict, Mine):
            return verdict
        mine = Note(now, self._node, sent=False).encode()
        try:
            written = store.write_if(key, mine, version if version is not None else ABSENT)
        except Conflict:
            return Later(LEASE)  # somebody was faster, and has as long as that
        return Mine(key, written, now)

    def _read(self, store: Store, key: str, local: float) -> tuple[Note | None, Version | None, float]:
        """(the note, its version, the time by the store's clock, or ours where it has none)."""
        try:
            stored = store.read_versioned(key)
        except NotFound as error:
            told = error.store_time
            return None, None, local if told is None else told
        time_there = local if stored.store_time is None else stored.store_time
        return Note.decode(stored.data), stored.version, time_there

    def _shared(self) -> Store | None:
        store = self._store()
        if store is None:
            return None
        if store.capabilities.conditional_write and store.capabilities.scope != "process":
            return store
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            self._log.warn("--notify-once needs a cache backend with atomic writes; every node tells", cache=store.url)
        return None

    def _key(self, channel: str, event: str) -> str:
        return PREFIX + hashlib.sha256("\n".join((self._scope, channel, event)).encode()).hexdigest()[:32]

    def _sweep(self, store: Store) -> None:
        """Throws away what is no news any more, of all applications, now and then."""
        now = self._now()
        with self._lock:
            if now - self._swept_at < SWEEP_EVERY:
                return
            self._swept_at = now
        for number, key in enumerate(store.list(PREFIX)):
            if number == SWEEP_MOST:
                return
            note, _, there = self._read(store, key, now)
            if note is not None and there - note.at > 2 * WINDOW:
                store.delete(key)
