"""A store over a `Shelf`: small values whole, large ones in parts, whatever the store underneath. See `parts.py`."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import io
import itertools
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NoReturn

from kvcache.backends.local import Rising, chunks, opened, remaining
from kvcache.backends.parted_async import PartedAccess
from kvcache.backends.parts import (
    ORPHAN_AGE,
    RESERVED,
    UPLOAD_TIME,
    Entry,
    Manifest,
    Shelf,
    Upload,
    begins_a_key,
    check,
    is_listed,
    is_orphan,
    joined,
    part_name,
    part_of,
    split,
    started,
    upload_name,
)
from kvcache.clock import SYSTEM, Clock
from kvcache.errors import (
    AmbiguousWrite,
    Conflict,
    CorruptRecord,
    KVCacheError,
    NotFound,
    StoreUnavailable,
    TooLarge,
)
from kvcache.kvs import (
    ABSENT,
    ANYWAY,
    AsyncAccess,
    Capabilities,
    Condition,
    Progress,
    Source,
    Stat,
    Store,
    Stored,
    Version,
)
from kvcache.newfile import replacing

log = logging.getLogger(__name__)

READ_ATTEMPTS: Final = 30
"""How often a value may be replaced while it is being read, before the reader gives up."""
SWEEP_EVERY: Final = 3600.0
"""Seconds between two sweeps by one store object; each follows the upload of a large value."""


class _Found(enum.Enum):
    """What there is of the parts that a manifest names."""

    WHOLE = "all of them"
    GONE = "not all of them: the value was replaced, or has lost parts"
    DAMAGED = "all of them, but they are not what was written"


class PartedStore(Store):
    """Any `Shelf` as a store. `capabilities.max_value_bytes` bounds a value, not a part.

    `asynchronous`: makes the store's way for asyncio, where the shelf has a better one than `PartedAccess`.
    """

    def __init__(
        self,
        shelf: Shelf,
        capabilities: Capabilities,
        clock: Clock = SYSTEM,
        asynchronous: Callable[[Store], AsyncAccess] | None = None,
    ) -> None:
        self._shelf = shelf
        self._clock = clock
        self._capabilities = capabilities
        self._asynchronous = asynchronous
        self.url = shelf.url
        self._sweeping = threading.Lock()  # protects _swept, so that one thread finds a sweep due
        self._swept: float | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_versioned(self, key: str) -> Stored:
        entry = self._shelf.fetch(check(key))
        if not entry.is_manifest:
            return Stored(entry.data, Version(entry.version), entry.store_time)
        out = io.BytesIO()
        entry, manifest = self._fetch(key, out, Rising(None))
        data = out.getvalue() if manifest else entry.data
        return Stored(data, joined(entry.version, manifest), entry.store_time)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        report = Rising(progress)
        with replacing(path) as out:
            entry, manifest = self._fetch(key, out, report)
            if manifest is None:
                out.write(entry.data)
                report(entry.size)
        return _stat(entry, manifest)

    def stat(self, key: str) -> Stat:
        entry = self._shelf.head(check(key))
        return _stat(entry, Manifest.decode(entry.data) if entry.is_manifest else None)

    def list(self, prefix: str = "") -> Iterator[str]:
        return filter(is_listed, self._shelf.names(prefix)) if begins_a_key(prefix) else iter(())

    def _fetch(self, key: str, out: BinaryIO, report: Progress) -> tuple[Entry, Manifest | None]:
        """The entry of `key`. If it is in parts, they are written to `out`, whole and checked. NotFound."""
        check(key)
        gone = damaged = ""  # the version of which a part was not there, or not what it should be
        for _ in range(READ_ATTEMPTS):
            out.seek(0)
            out.truncate()
            entry = self._shelf.fetch(key)
            if not entry.is_manifest:
                return entry, None
            if entry.version == gone:
                # It was the key's version before and after the part was missing, so nobody is replacing it.
                self._lost(key, entry)
            manifest = Manifest.decode(entry.data)
            found = self._assemble(key, manifest, out, report) if manifest else _Found.DAMAGED
            if found is _Found.WHOLE:
                return entry, manifest
            if found is _Found.GONE:
                gone = entry.version
            elif entry.version != damaged:
                damaged = entry.version  # it may have been damaged on its way here
            else:
                raise CorruptRecord(f"{self.url}: {key}: the value's parts do not add up to it; write or delete it")
        raise StoreUnavailable(f"{self.url}: {key}: replaced {READ_ATTEMPTS} times while it was being read")

    def _assemble(self, key: str, manifest: Manifest, out: BinaryIO, report: Progress) -> _Found:
        """Writes the parts to `out`, as far as they are there."""
        digest, size = hashlib.sha256(), 0
        for number in range(manifest.count):
            part = self._shelf.get_part(part_name(key, manifest.upload, number))
            if part is None:
                return _Found.GONE
            out.write(part)
            digest.update(part)
            size += len(part)
            report(size)
        sound = size == manifest.size and digest.hexdigest() == manifest.sha256
        return _Found.WHOLE if sound else _Found.DAMAGED

    def _lost(self, key: str, entry: Entry) -> NoReturn:
        """A value whose parts are gone (evicted, or lost in a failover) is a value that is gone. NotFound.

        The manifest goes too, so that a create by somebody who was told "not found" is not refused because of it.
        """
        log.warning("%s: %s: the value has lost parts; it counts as absent", self.url, key)
        with contextlib.suppress(KVCacheError):  # we may not be allowed to write; the answer is the same
            self._shelf.remove(key, entry.version)
        raise NotFound(key, store_time=entry.store_time)

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        check(key)
        self._bound(key, len(data))
        if len(data) > self._shelf.inline_bytes:
            return self._put_parts(key, chunks(io.BytesIO(data), self._shelf.part_bytes), condition, Rising(None))
        return self._put_whole(key, data, condition)

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        """As in `Store`. TooLarge before anything is written; from a source that can't tell its length, hidden parts
        may have been written by then, and are removed."""
        check(key)
        report = Rising(progress)
        with opened(source) as stream:
            self._bound(key, remaining(stream))
            pieces = chunks(stream, self._shelf.part_bytes)
            first = next(pieces, b"")
            if len(first) > self._shelf.inline_bytes:
                return self._put_parts(key, itertools.chain([first], pieces), ANYWAY, report)
            # A chunk is only ever shorter than `part_bytes` at the end, so this was all.
            version = self._put_whole(key, first, ANYWAY)
            report(len(first))
            return version

    def delete(self, key: str) -> None:
        replaced = self._upload_under(check(key))
        self._shelf.remove(key)
        self._drop(key, replaced)

    def _put_whole(self, key: str, data: bytes, condition: Condition) -> Version:
        own, replaced = self._understood(key, condition)
        placed = self._shelf.place(key, data, own, manifest=False)
        self._drop(key, replaced)
        return Version(placed.version)

    def _put_parts(self, key: str, pieces: Iterator[bytes], condition: Condition, report: Progress) -> Version:
        own, replaced = self._understood(key, condition)
        upload = upload_name(self._admitted(key, own), self._clock.nonce())
        deadline = self._clock.monotonic() + UPLOAD_TIME
        written, size, digest = 0, 0, hashlib.sha256()
        try:
            for piece in pieces:
                size += len(piece)
                self._bound(key, size)
                written += 1  # before it is: a part whose write failed may have landed
                self._shelf.put_part(part_name(key, upload, written - 1), piece)
                digest.update(piece)
                report(size)
                if self._clock.monotonic() > deadline:
                    raise StoreUnavailable(f"{self.url}: {key}: the upload took longer than {UPLOAD_TIME:.0f} s")
            manifest = Manifest(upload, written, size, digest.hexdigest())
            placed = self._shelf.place(key, manifest.encode(), own, manifest=True)
        except AmbiguousWrite:
            raise  # the manifest may have landed: its parts stay, and are orphans for the sweep if it has not
        except BaseException:
            self._drop(key, Upload(upload, written))
            raise
        if placed.store_time - started(upload) >= ORPHAN_AGE:
            # We were stopped for hours between the last part and the manifest; a sweep may have taken the parts.
            self._shelf.remove(key, placed.version)
            self._drop(key, Upload(upload, written))
            raise StoreUnavailable(f"{self.url}: {key}: the upload was interrupted for too long")
        self._drop(key, replaced)
        self._sweep_now_and_then()
        return joined(placed.version, manifest)

    def _understood(self, key: str, condition: Condition) -> tuple[Condition, Upload | None]:
        """The condition as the shelf knows it, and the parts that the write will leave behind."""
        if condition is ANYWAY:
            return condition, self._upload_under(key)
        if condition is ABSENT:
            return condition, None
        assert isinstance(condition, Version)
        own, replaced = split(condition)
        return Version(own), replaced

    def _admitted(self, key: str, condition: Condition) -> float:
        """Store time. Conflict, before any part is sent, if the condition does not hold even now."""
        try:
            entry = self._shelf.head(key)
        except NotFound as absent:
            if isinstance(condition, Version):
                raise Conflict(key) from None
            assert absent.store_time is not None
            return absent.store_time
        if condition is ABSENT or (isinstance(condition, Version) and condition.token != entry.version):
            raise Conflict(key)
        return entry.store_time

    def _bound(self, key: str, size: int | None) -> None:
        limit = self._capabilities.max_value_bytes
        if limit is not None and size is not None and size > limit:
            raise TooLarge(f"{self.url}: {key}: a value may have {limit} bytes (max-value), not {size}")

    # -- parts that nobody needs any more -----------------------------------------------------------------------------

    def _upload_under(self, key: str) -> Upload | None:
        try:
            entry = self._shelf.head(key)
        except NotFound:
            return None
        manifest = Manifest.decode(entry.data) if entry.is_manifest else None
        return Upload(manifest.upload, manifest.count) if manifest else None

    def _drop(self, key: str, upload: Upload | None) -> None:
        """Removes an upload's parts as far as the store lets us; the sweep does the rest."""
        if upload is None:
            return
        with contextlib.suppress(KVCacheError):
            for number in range(upload.count):
                self._shelf.drop_part(part_name(key, upload.name, number))

    def sweep(self) -> int:
        """Removes parts that no value names and no upload can still claim; returns how many.

        Never a live one: an upload that began ORPHAN_AGE ago is over, and what it published is read here, after its
        parts were seen. Any number of nodes may sweep at the same time.
        """
        found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for name in self._shelf.names(f"{RESERVED}/"):
            if group := part_of(name):
                found[group].append(name)
        removed = 0
        for (key, upload), names in found.items():
            live, now = self._live_upload(key)
            if is_orphan(upload, live, now):
                for name in names:
                    self._shelf.drop_part(name)
                removed += len(names)
        return removed

    def _live_upload(self, key: str) -> tuple[str | None, float]:
        """What the key's manifest names, and the store time at which it did."""
        try:
            entry = self._shelf.head(key)
        except NotFound as absent:
            assert absent.store_time is not None
            return None, absent.store_time
        manifest = Manifest.decode(entry.data) if entry.is_manifest else None
        return manifest.upload if manifest else None, entry.store_time

    def _sweep_now_and_then(self) -> None:
        now = self._clock.monotonic()
        with self._sweeping:
            if self._swept is not None and now - self._swept < SWEEP_EVERY:
                return
            self._swept = now
        with contextlib.suppress(KVCacheError):  # the upload itself is done, and the next sweep does the work of this
            self.sweep()

    # -- change and life ----------------------------------------------------------------------------------------------

    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        return self._shelf.wait(check(key), split(version)[0] if version else None, timeout)

    def native_async(self) -> AsyncAccess:
        return self._asynchronous(self) if self._asynchronous else PartedAccess(self, self._shelf)

    def close(self) -> None:
        self._shelf.close()


def _stat(entry: Entry, manifest: Manifest | None) -> Stat:
    return Stat(manifest.size if manifest else entry.size, joined(entry.version, manifest), entry.modified)
