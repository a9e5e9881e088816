"""A file on its way to or from an object store: read in parts, reported on, and never touched on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from kvcache.backends.failures import TRANSIENT, Failure
from kvcache.errors import StoreUnavailable
from kvcache.kvs import Progress, Source

T = TypeVar("T")

PART: Final = 5 << 20
"""Bytes of a part of an upload, unless the store's limit on their number asks for larger ones. S3 takes no smaller."""
BLOCK: Final = 1 << 20
"""Bytes that are read from or written to a file at once."""
PART_ATTEMPTS: Final = 5
"""How often a part is tried without getting any further."""
PART_SECONDS: Final = 120.0
"""A part that takes longer is tried again: 70 KB/s is the slowest line on which this works."""
RESTARTS: Final = 3
"""How often a whole transfer is begun: an object was replaced under a download, or an upload's parts were lost."""


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Runs blocking work in a thread; where it is cancelled it still waits for the thread.

    Else the thread would go on with a file that its owner has closed, or call a progress function after the end.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        raise


async def persistently(work: Callable[[], Awaitable[T]], attempts: int) -> T:
    """Tries again what fails in passing."""
    for attempt in range(attempts):
        try:
            async with asyncio.timeout(PART_SECONDS):
                return await work()
        except TimeoutError as error:
            failure = Failure.unanswered(error)
        except Failure as error:
            failure = error
        if failure.kind not in TRANSIENT or attempt == attempts - 1:
            raise failure
        await asyncio.sleep(failure.retry_after or pause_after(attempt))
    raise AssertionError("at least one attempt")


def pause_after(attempt: int) -> float:
    """0.1 s and then twice as long each time, with jitter, so that the parts of one upload do not march in step."""
    return 0.1 * 2.0**attempt * (0.5 + secrets.randbelow(1000) / 1000)


async def cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Reporter:
    """Calls the caller's progress function off the event loop, one call at a time, never with a smaller number."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = asyncio.Lock()
        self._reported = -1

    async def report(self, done: int) -> None:
        if self._progress is None:
            return
        async with self._lock:
            if done > self._reported:
                self._reported = done
                await in_thread(self._progress, done)


class Reading:
    """A source that is read once in order, a part at a time; or more than once, if it can be rewound."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not every "binary file" is a whole io object
            if file.seekable():
                self._start = file.tell()
        self._seen = 0
        self._measured: int | None = None
        self.size: int | None = None
        """Bytes from where the source stood; None where it cannot be rewound to find out."""
        self.sha256: str | None = None
        """Of those bytes, in hex; None likewise."""

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, source: Source) -> AsyncIterator[Reading]:
        """Opens a path; a file is taken as it is and left open."""
        if not isinstance(source, str | os.PathLike):
            yield cls(source)
            return
        file = await in_thread(Path(source).open, "rb")
        try:
            yield cls(cast(BinaryIO, file))
        finally:
            file.close()

    @property
    def rewindable(self) -> bool:
        return self._start is not None

    def measure(self) -> None:
        """Reads it through for `size` and `sha256`, which have to be told before the first byte is sent."""
        if self._start is None:
            return
        size, seen, digest = 0, 0, hashlib.sha256()
        while block := self._file.read(BLOCK):
            size += len(block)
            seen = zlib.crc32(block, seen)
            digest.update(block)
        self.size, self.sha256, self._measured = size, digest.hexdigest(), seen
        self.rewind()

    def rewind(self) -> None:
        """Back to where it stood. Only if `rewindable`."""
        assert self._start is not None
        self._file.seek(self._start)
        self._seen = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        data = self._file.read(size)
        if 0 < len(data) < size:  # pipes and sockets give what they have
            blocks = [data]
            missing = size - len(data)
            while missing and (block := self._file.read(missing)):
                blocks.append(block)
                missing -= len(block)
            data = b"".join(blocks)
        self._seen = zlib.crc32(data, self._seen)
        return data

    def check(self) -> None:
        """StoreUnavailable if what was read to the end is other than what `measure` saw.

        By CRC32, a third of the work of a second SHA-256: it has to notice a file that is being written, and nobody who
        hides. What would slip through fails each download, since the object carries the SHA-256 of the first reading.
        """
        if self._measured is not None and self._seen != self._measured:
            raise StoreUnavailable("the file changed while it was uploaded; nothing was stored")
