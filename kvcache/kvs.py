"""The port: what a key-value store is to kvcache, and what it promises.

A store maps keys to bytes. Every value has an opaque *version*; a conditional write lands only if the key is absent
(`ABSENT`) or still has the version named. The condition is one value, so that there is one write to get right:

    ANYWAY            whatever is there is replaced
    ABSENT            nothing may be there
    Version("...")    exactly this version must be there

The modules in `kvcache.backends` implement `Store`; `kvcache.open_store` picks one by URL.
"""

from __future__ import annotations

import enum
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Final, Literal, Protocol, Self, TypeAlias

from kvcache.errors import InvalidKey, Unsupported


@dataclass(frozen=True, slots=True)
class Version:
    """An opaque token of one state of one key: kept, compared and handed back verbatim, never interpreted."""

    token: str


class Unversioned(enum.Enum):
    """The two conditions that name no version."""

    ANYWAY = "anyway"
    ABSENT = "absent"


ANYWAY: Final = Unversioned.ANYWAY
ABSENT: Final = Unversioned.ABSENT
Match: TypeAlias = Version | Literal[Unversioned.ABSENT]
Condition: TypeAlias = Version | Unversioned
Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes transferred so far, from the thread that transfers, never after the call returned."""
Source: TypeAlias = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class Stored:
    """A value with its version and the store's own clock, from ONE answer of the store.

    `store_time`: seconds since the Unix epoch, or None where the store does not tell the time.
    """

    data: bytes
    version: Version
    store_time: float | None = None


@dataclass(frozen=True, slots=True)
class Stat:
    """`size` in bytes, `version`, `modified` in seconds since the Unix epoch (None where unknown)."""

    size: int
    version: Version
    modified: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store promises. What it does not promise is refused with `Unsupported`, never approximated."""

    conditional_write: bool = False
    """`write_if` exists and is atomic for everybody whom `scope` names."""
    scope: Literal["process", "host", "fleet"] = "fleet"
    """Who shares this store."""
    store_time: bool = False
    """`read_versioned` (and NotFound) carries the store's clock."""
    time_resolution: float = 0.0
    """Granularity of that clock in seconds: 1.0 for HTTP Date headers, 0.0 for exact clocks."""
    watch: bool = False
    """`wait_for_change` is told by the store, rather than by sleeping."""
    atomic_replace: bool = True
    """A reader sees the old value or the new one, never a part."""
    max_value_bytes: int | None = None
    """`write` and `write_if` beyond it raise TooLarge; None: no limit of its own."""
    unique_versions: bool = True
    """A version never comes back. False where it derives from content, as ETags do: equal bytes, equal versions."""
    min_write_interval: float = 0.0
    """Seconds below which repeated writes to one key are refused (GCS: 1.0)."""
    expires_after: float | None = None
    """Seconds after its last write when the store removes a value by itself; None: never."""


class AsyncAccess(Protocol):
    """What `AsyncSharedCache` needs of a store; errors and guarantees are those of `Store`.

    A coroutine that is cancelled leaves a write of unknown outcome, as a lost connection does.
    """

    async def read_versioned(self, key: str) -> Stored: ...

    async def write_if(self, key: str, data: bytes, match: Match) -> Version: ...

    async def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool: ...


class Store(ABC):
    """One key-value store. Safe to use from any number of threads.

    Errors of every method: `InvalidKey`; `StoreUnavailable` where the store does not answer. Values are replaced
    whole: after a failed write the key holds the old value or, for `AmbiguousWrite`, the old or the new one.
    """

    url: str = ""
    """Where this store is, without secrets, for logs and errors."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this store promises; fixed for the life of the object."""

    # -- values ---------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        """The bytes under `key`. NotFound."""
        return self.read_versioned(key).data

    @abstractmethod
    def read_versioned(self, key: str) -> Stored:
        """Bytes, version and store time from one request; never from a cache. NotFound (with the store time)."""

    @abstractmethod
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        """The one write under `write` and `write_if`, which are what callers use."""

    def write(self, key: str, data: bytes) -> Version:
        """Replaces whatever is there. TooLarge."""
        return self.put(key, data, ANYWAY)

    def write_if(self, key: str, data: bytes, match: Match) -> Version:
        """Writes only if the key is absent (`ABSENT`) or still has version `match`. Atomic.

        Conflict: the condition did not hold, nothing changed. AmbiguousWrite: the outcome is unknown. Throttled:
        certainly not written. Unsupported: this store has no conditional writes. TooLarge.
        """
        if not self.capabilities.conditional_write:
            raise Unsupported(f"{self.url}: this store has no conditional writes")
        return self.put(key, data, match)

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes the key. Deleting what is not there is not an error."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with `prefix`, sorted, without the store's own prefix; pages are fetched as they are used."""

    @abstractmethod
    def stat(self, key: str) -> Stat:
        """Size, version and time of the last change. NotFound."""

    # -- streams --------------------------------------------------------------------------------------------------

    @abstractmethod
    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        """Streams a file (a path, or a binary file read from where it stands) to `key`; memory stays flat.

        The value appears whole or not at all.
        """

    @abstractmethod
    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        """Streams the value to a file; `path` appears whole or not at all. NotFound."""

    # -- change ---------------------------------------------------------------------------------------------------

    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        """Returns as soon as `key` no longer has `version` (None: absent), at the latest after `timeout` seconds.

        True says that it may have changed, False that the time is over; always read again after it. Only where
        `capabilities.watch` is True; else Unsupported.
        """
        raise Unsupported(f"{self.url}: this store cannot say that a key changed")

    def native_async(self) -> AsyncAccess | None:
        """The same store for asyncio without a thread per call, or None where there is no such way."""
        return None

    # -- life -----------------------------------------------------------------------------------------------------

    def close(self) -> None:  # noqa: B027 - most stores hold nothing that needs closing
        """Gives back connections. Closing twice is not an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


MAX_KEY_BYTES: Final = 900
"""Longest key in UTF-8 bytes that every store takes (S3 allows 1,024, of which a prefix may take a part)."""


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def check_key(key: str) -> str:
    """`key` itself if it can name a value in any store; else InvalidKey.

    Refused: empty, absolute, a NUL or other control character, a backslash, empty or `.` or `..` segments, a trailing
    slash, and more than MAX_KEY_BYTES bytes in UTF-8. One rule for all stores, so that data can move between them.
    """
    if not key:
        raise InvalidKey("key is empty")
    if "\x00" in key:
        raise InvalidKey(f"key holds NUL: {key!r}")
    if _CONTROL.search(key):
        raise InvalidKey(f"key holds a control character: {key!r}")
    if "\\" in key:
        raise InvalidKey(f"key holds a backslash, which some stores take for a slash: {key!r}")
    if key.startswith("/"):
        raise InvalidKey(f"key is absolute: {key!r}")
    for part in key.split("/"):
        if part in (".", ".."):
            raise InvalidKey(f"illegal key (path traversal detected): {key!r}")
        if not part:
            raise InvalidKey(f"key has an empty segment: {key!r}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"key is not valid unicode: {key!r}") from None
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"key is longer than {MAX_KEY_BYTES} bytes: {key[:40]!r}...")
    return key
