"""The file that a download fills: hashed, and sent to the disk, while the rest of it is still on its way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kvcache.backends.bucket import Head
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.streams import BLOCK, Reporter, in_thread

RANGE: Final = 8 << 20
"""Bytes that are asked for at once. Each range is written from its begin to its end; ranges come in any order."""
CHECK: Final = 4 << 20
"""Bytes that are worth a thread's while to hash."""
FLUSH: Final = 32 << 20
"""Bytes that are worth waiting for the disk."""


class Damaged(Failure):
    """All ranges came, but they are not what was uploaded."""

    def __init__(self, detail: str) -> None:
        super().__init__(Kind.UNKNOWN, detail)


def frontier(position: int, reached: Mapping[int, int]) -> int:
    """Up to where there is no gap, given that there is none before `position`. `reached`: for each range that has
    begun, by where it begins, up to where it is written."""
    while (further := reached.get(position - position % RANGE, 0)) > position:
        position = further
    return position


class Landing:
    """An open file, and what is known of the bytes in it. One event loop's.

    `check` and `flush` run beside whoever writes, and end once everything is written.
    """

    def __init__(self, descriptor: int, head: Head, reporter: Reporter) -> None:
        self._descriptor = descriptor
        self._head = head
        self._reporter = reporter
        self._digest = head.digest.new() if head.digest is not None else None
        self._reached: dict[int, int] = {}
        self._written = 0
        self._checked = 0
        self._grown = asyncio.Condition()  # notified when there is more

    async def write(self, blocks: list[bytes], start: int) -> None:
        """Writes `blocks` at `start`: where the same range has got to, or where a range begins."""
        length = sum(map(len, blocks))
        await in_thread(_write, self._descriptor, blocks, length, start)
        async with self._grown:
            self._reached[start - start % RANGE] = start + length
            self._written += length
            self._grown.notify_all()
        await self._reporter.report(self._written)

    async def check(self) -> None:
        """Hashes what is written, in order. OSError."""
        size = self._head.size
        while self._digest is not None and self._checked < size:
            async with self._grown:
                while (stop := frontier(self._checked, self._reached)) < size and stop - self._checked < CHECK:
                    await self._grown.wait()
            await in_thread(self._hash, min(stop, size))

    async def flush(self) -> None:
        """Makes what is written durable. OSError: the disk tells of a failure once, so nobody else may ask it."""
        flushed = 0
        while True:
            async with self._grown:
                while self._written < self._head.size and self._written - flushed < FLUSH:
                    await self._grown.wait()
            flushed = self._written
            await in_thread(os.fsync, self._descriptor)
            if flushed >= self._head.size:
                return

    def settle(self, partial: Path, path: Path) -> None:
        """Gives the file its name, if it is what was uploaded. Damaged; OSError. Only after `check` and `flush`."""
        head = self._head
        size = os.fstat(self._descriptor).st_size
        if size != head.size:
            raise Damaged(f"received {size} bytes, not {head.size}")
        if head.digest is not None and self._digest is not None:
            found = self._digest.digest().hex()
            if found != head.digest.value:
                raise Damaged(f"the content's {head.digest.algorithm} is {found}, and should be {head.digest.value}")
        partial.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _hash(self, stop: int) -> None:
        """From the file rather than from memory: what counts is what the disk was given."""
        assert self._digest is not None
        while self._checked < stop:
            block = os.pread(self._descriptor, min(BLOCK, stop - self._checked), self._checked)
            if not block:
                raise Damaged(f"the file ends at {self._checked}")  # somebody else has cut it
            self._digest.update(block)
            self._checked += len(block)


def _write(descriptor: int, blocks: list[bytes], length: int, position: int) -> None:
    data = blocks if len(blocks) <= 512 else [b"".join(blocks)]  # IOV_MAX is 1024
    written = os.pwritev(descriptor, data, position)
    if written < length:  # a nearly full disk, or a signal
        rest = memoryview(b"".join(data))[written:]
        while rest:
            written += (count := os.pwrite(descriptor, rest, position + written))
            rest = rest[count:]
