"""The port under the object stores: what S3, Google Cloud Storage and Azure Blob each do in ONE request.

A `Bucket` never retries, never waits and never decides. Its coroutines run on fsspec's loop and raise `Failure`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from kvcache.kvs import Condition, Stored, Version

WRITE_ID: Final = "kvcache-write"
"""Name in an object's metadata of the random id of the write that made it."""
SHA256: Final = "kvcache-sha256"
"""Name in an object's metadata of the SHA-256 of its content, in hex; uploads set it."""
MAX_NAME_BYTES: Final = 1024
"""Longest name of an object, prefix included, in UTF-8; the same in all three services."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest of some content."""

    algorithm: Literal["sha256", "md5", "crc32c"]
    value: str
    """In hex."""

    def new(self) -> Any:
        """A new hash object of this algorithm."""
        if self.algorithm == "crc32c":
            import google_crc32c  # comes with gcsfs; only Google Cloud Storage has this digest

            make: Callable[[], Any] = google_crc32c.Checksum
            return make()
        return hashlib.new(self.algorithm, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class Head:
    """What a bucket says about an object without its content."""

    size: int
    version: Version
    modified: float | None = None
    """Seconds since the epoch."""
    write_id: str | None = None
    """Of the write that made this version; None where it was made by others (Dewy v2, an operator)."""
    digest: Digest | None = None
    """Of the content, where an upload left one, or the service keeps one."""


def digest_of(metadata: Mapping[str, str]) -> Digest | None:
    """The digest that an upload left in the object's metadata."""
    value = metadata.get(SHA256, "").lower()
    return Digest("sha256", value) if len(value) == 64 else None


class Page(NamedTuple):
    """A part of a listing."""

    names: list[str]
    """Full names of objects."""
    following: str | None
    """The token of the next part; None: this is the last."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the service calls the permissions, for messages."""

    read: str
    write: str
    delete: str
    list: str


class Upload(Protocol):
    """One upload in parts, of which nothing is visible before `commit`."""

    streams: int
    """How many parts may be on their way at once; 1: in order."""
    resends: bool
    """Whether a part can be sent again; else a failed part ends this upload."""

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        """Sends part `number` (from 0), which begins at byte `start`."""

    async def commit(self) -> Version:
        """Makes the object appear."""

    async def abort(self) -> None:
        """Removes what was sent."""


class Bucket(ABC):
    """One bucket (container) of one service, opened with some credentials. Safe to use from any thread's loop work."""

    label: str
    """The bucket's name, for messages."""
    rights: Rights
    most_parts: int
    """How many parts an upload may have."""
    never: Version
    """A version that no object ever has."""
    sorted_pages: bool
    """Whether listings come in order. Services that only resemble S3 list directory by directory."""

    @abstractmethod
    async def connect(self) -> None:
        """Makes this process's client, if there is none: it may ask the machine for credentials, and take seconds."""

    @abstractmethod
    async def get(self, name: str) -> Stored:
        """Content, version and date from one answer."""

    @abstractmethod
    async def head(self, name: str) -> Head:
        """What is known of the object without its content."""

    @abstractmethod
    async def put(self, name: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        """Writes the object with `marks` as its metadata. REFUSED where the condition does not hold."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Deletes the object. ABSENT where the service says that there is none."""

    @abstractmethod
    async def page(self, prefix: str, token: str | None = None) -> Page:
        """One part of the listing of the names that start with `prefix`."""

    @abstractmethod
    async def begin(self, name: str, marks: dict[str, str], size: int | None) -> Upload:
        """Begins an upload in parts of `size` bytes in all (None: unknown)."""

    @abstractmethod
    def ranges(self, name: str, head: Head, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Bytes [start, stop) of exactly the version that `head` describes. ABSENT, REFUSED: it was replaced."""

    async def refuse_old_client(self) -> None:  # noqa: B027 - most client libraries always knew the conditions
        """InvalidURL if the client library is too old to know the conditions of writes."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connections of this process. Closing twice is not an error."""
