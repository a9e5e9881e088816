"""Values that are larger than a store takes under one name: parts behind one manifest. Pure, and the port below it.

    <key>                          the value itself; or a manifest, marked as such by the store, never by its bytes
    .parts/<key>/<upload>/<n>      the n-th part of one upload: written once, never changed

An upload writes its parts under a name of its own and then swaps the manifest by ONE conditional write, so a reader
sees the old value or the new one. Nobody needs a lock: the manifest names the upload, and a part that no manifest
names is an orphan. Orphans are removed by age, on the store's own clock, which the upload's name begins with:

    an upload gives up       UPLOAD_TIME after it began, before it swaps the manifest
    an orphan is removed     ORPHAN_AGE after its upload began, at the earliest
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, Self

from kvcache.errors import InvalidKey, NotFound
from kvcache.kvs import Condition, Version, check_key

RESERVED: Final = ".parts"
"""A segment that no user's key may have, in the stores that use this."""
UPLOAD_TIME: Final = 3600.0
"""Seconds within which an upload has to be over."""
ORPHAN_AGE: Final = 2 * UPLOAD_TIME
"""Seconds after which the parts of an upload that no manifest names may be removed."""


# -- the port: what a store has to do under one name -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands under one name, from one answer of the store."""

    data: bytes
    """The value or the manifest. `head` leaves a value out."""
    size: int
    """Bytes of the value or the manifest."""
    is_manifest: bool
    version: str
    store_time: float
    modified: float | None = None


class Placed(NamedTuple):
    """A write that landed: its version, and the store's clock when it answered."""

    version: str
    store_time: float


class Shelf(ABC):
    """A store as it is, with a limit on what one name holds. Safe to use from any number of threads.

    Raises the errors of `Store`; NotFound always carries the store time. A condition's version is the shelf's own.
    """

    url: str
    """Without secrets, for logs and errors."""
    inline_bytes: int
    """The largest value or manifest under one name."""
    part_bytes: int
    """The size of a part; more than `inline_bytes`."""

    @abstractmethod
    def fetch(self, name: str) -> Entry:
        """What stands there; never from a cache. NotFound."""

    @abstractmethod
    def head(self, name: str) -> Entry:
        """As `fetch`, but without a value's bytes, where the store can leave them out. NotFound."""

    def version_of(self, name: str) -> str | None:
        """The version of what stands there; None where nothing does."""
        try:
            return self.head(name).version
        except NotFound:
            return None

    @abstractmethod
    def place(self, name: str, data: bytes, condition: Condition, *, manifest: bool) -> Placed:
        """Replaces what stands there, atomically. Conflict, AmbiguousWrite."""

    @abstractmethod
    def remove(self, name: str, version: str | None = None) -> None:
        """Removes what stands there, if it has `version` (None: whatever it has). Absent or another: no error."""

    @abstractmethod
    def put_part(self, name: str, data: bytes) -> None:
        """Writes a part that nobody knows of yet, so that sending it twice is harmless."""

    @abstractmethod
    def get_part(self, name: str) -> bytes | None:
        """A part, or None where it is not there."""

    @abstractmethod
    def drop_part(self, name: str) -> None:
        """Removes a part. Absent: no error."""

    @abstractmethod
    def names(self, prefix: str) -> Iterator[str]:
        """All names that start with `prefix`, sorted."""

    @abstractmethod
    def wait(self, name: str, version: str | None, timeout: float) -> bool:
        """As `Store.wait_for_change`."""

    @abstractmethod
    def close(self) -> None:
        """Gives back connections. Closing twice is not an error."""


# -- manifests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Manifest:
    """Names the parts of one value, and says what they must add up to."""

    upload: str
    count: int
    size: int
    sha256: str

    def encode(self) -> bytes:
        """One line of JSON, for the operator who looks at the store with its own tools."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """The manifest, or None where the bytes are not one."""
        try:
            manifest = cls(**json.loads(data))
        except (TypeError, ValueError):
            return None
        texts = isinstance(manifest.upload, str) and isinstance(manifest.sha256, str)
        numbers = isinstance(manifest.count, int) and isinstance(manifest.size, int)
        return manifest if texts and numbers and manifest.count > 0 and _is_upload(manifest.upload) else None


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts of one upload, whether or not a manifest names them."""

    name: str
    count: int


def joined(version: str, manifest: Manifest | None) -> Version:
    """The token that callers get: it names the parts too, so that whoever replaces this version can remove them."""
    return Version(f"{version}@{manifest.upload}*{manifest.count}" if manifest else version)


def split(version: Version) -> tuple[str, Upload | None]:
    """The shelf's own version, and the upload that `joined` put beside it."""
    own, _, parts = version.token.partition("@")
    name, _, count = parts.partition("*")
    return own, Upload(name, int(count)) if count.isdigit() else None


# -- names -------------------------------------------------------------------------------------------------------------


def check(key: str) -> str:
    """`key` if it can name a user's value. InvalidKey."""
    if RESERVED in check_key(key) and RESERVED in key.split("/"):
        raise InvalidKey(f"key has the reserved segment {RESERVED!r}: {key!r}")
    return key


def is_listed(name: str) -> bool:
    """Whether a name in the store is one that a user's value can have: no part, nothing that others left there."""
    try:
        check(name)
    except InvalidKey:
        return False
    return True


def begins_a_key(prefix: str) -> bool:
    """Whether any key begins with `prefix`; some stores would take what does not for directions, or refuse it."""
    *folders, last = prefix.split("/")
    return is_listed("/".join([*folders, last + "x"]))


def upload_name(store_time: float, nonce: str) -> str:
    """A new upload's name: when it began, in whole seconds, and a nonce."""
    return f"{int(store_time)}-{nonce}"


def started(upload: str) -> float:
    """Store time at which an upload began. ValueError."""
    return float(int(upload.partition("-")[0]))


def _is_upload(name: str) -> bool:
    try:
        started(name)
    except ValueError:
        return False
    return True


def part_name(key: str, upload: str, number: int) -> str:
    return f"{RESERVED}/{key}/{upload}/{number}"


def part_of(name: str) -> tuple[str, str] | None:
    """The key and the upload that a part belongs to; None where the name is not a part's."""
    first, *key, upload, number = name.split("/") if name.count("/") >= 3 else ("", "", "")
    return ("/".join(key), upload) if first == RESERVED and number.isdigit() and _is_upload(upload) else None


def is_orphan(upload: str, live: str | None, now: float) -> bool:
    """Whether the parts of `upload` may be removed, when the key's manifest names `live` at store time `now`."""
    return upload != live and now - started(upload) >= ORPHAN_AGE
