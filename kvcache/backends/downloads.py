"""Downloads of any size with flat memory: a few ranges of one version at a time, into a hidden file that is checked and
renamed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from kvcache.backends.bucket import Bucket, Head
from kvcache.backends.failures import TRANSIENT, Failure, Kind
from kvcache.backends.streams import (
    BLOCK,
    PART_ATTEMPTS,
    PART_SECONDS,
    RESTARTS,
    Reporter,
    cancel,
    in_thread,
    pause_after,
)
from kvcache.kvs import Progress

RANGE: Final = 8 << 20
"""Bytes that are asked for at once."""
STREAMS: Final = 4
"""Ranges that are fetched at once."""


class Damaged(Failure):
    """All ranges came, but they are not what was uploaded."""

    def __init__(self, detail: str) -> None:
        super().__init__(Kind.UNKNOWN, detail)


class Changed(Exception):
    """The object was replaced while it was being downloaded."""


Ranges: TypeAlias = Callable[[int, int], AsyncGenerator[bytes, None]]
"""Opens bytes [start, stop) of one version of one object. Raises Failure; ABSENT or REFUSED: it was replaced."""


async def download(
    bucket: Bucket,
    name: str,
    look: Callable[[], Awaitable[Head]],
    path: str | os.PathLike[str],
    progress: Progress | None,
) -> Head:
    """Downloads the object to `path`; `look` says what is there now. Begins again if it is replaced meanwhile.

    Failure; OSError from the local file system; what `look` and `progress` raise.
    """
    reporter = Reporter(progress)
    for restart in range(RESTARTS):
        head = await look()
        try:
            await receive(head, functools.partial(bucket.ranges, name, head), Path(path), reporter)
        except Changed as changed:
            failure = Failure(Kind.UNKNOWN, f"the object was replaced {RESTARTS} times while it was read")
            failure.__cause__ = changed
        except Damaged as damaged:
            failure = damaged
        else:
            return head
        if restart == RESTARTS - 1:
            raise failure
    raise AssertionError("RESTARTS is positive")


async def receive(head: Head, ranges: Ranges, path: Path, reporter: Reporter) -> None:
    """Downloads the object that `head` describes to `path`, which appears whole or not at all.

    Changed; Failure; OSError from the local file system. What arrives is checked against `head.digest` if there is one.
    """
    partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")
    descriptor = await in_thread(os.open, partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            await _fill(descriptor, head, ranges, reporter)
            await in_thread(_finish, descriptor, head, partial, path)
        finally:
            os.close(descriptor)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


async def _fill(descriptor: int, head: Head, ranges: Ranges, reporter: Reporter) -> None:
    todo = iter(range(0, head.size, RANGE))
    done = 0

    async def work() -> None:
        for start in todo:
            await _receive_range(descriptor, start, min(start + RANGE, head.size), ranges, written)

    async def written(count: int) -> None:
        nonlocal done
        done += count
        await reporter.report(done)

    workers = {asyncio.create_task(work()) for _ in range(min(STREAMS, -(-head.size // RANGE)))}
    try:
        for task in asyncio.as_completed(workers):
            await task
    finally:
        await cancel(workers)


async def _receive_range(
    descriptor: int, start: int, stop: int, ranges: Ranges, written: Callable[[int], Awaitable[None]]
) -> None:
    """Fetches one range, going on from where the connection broke."""
    attempt = 0
    while start < stop:
        try:
            async with asyncio.timeout(PART_SECONDS):
                async with contextlib.aclosing(_gathered(ranges(start, stop), start)) as gathered:
                    async for position, blocks in gathered:
                        await in_thread(_write, descriptor, blocks, start)
                        await written(position - start)
                        start, attempt = position, 0
            if start == stop:
                return
            failure = Failure(Kind.UNKNOWN, f"the body ended {stop - start} bytes early")
        except TimeoutError as error:
            failure = Failure.unanswered(error)
        except Failure as error:
            if error.kind in (Kind.ABSENT, Kind.REFUSED):
                raise Changed from error
            failure = error
        attempt += 1
        if failure.kind not in TRANSIENT or attempt == PART_ATTEMPTS:
            raise failure
        await asyncio.sleep(failure.retry_after or pause_after(attempt))


async def _gathered(chunks: AsyncGenerator[bytes, None], start: int) -> AsyncGenerator[tuple[int, list[bytes]], None]:
    """(position after them, chunks of about BLOCK bytes). What came before a failure too, so that it is not asked for
    again."""
    blocks: list[bytes] = []
    position, size = start, 0
    try:
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                blocks.append(chunk)
                position += len(chunk)
                size += len(chunk)
                if size >= BLOCK:
                    yield position, blocks
                    blocks, size = [], 0
    except Failure:
        if blocks:
            yield position, blocks
        raise
    if blocks:
        yield position, blocks


def _write(descriptor: int, blocks: list[bytes], position: int) -> None:
    """Writes all of `blocks` at `position`."""
    data = blocks if len(blocks) <= 512 else [b"".join(blocks)]  # IOV_MAX is 1024
    length = sum(map(len, data))
    written = os.pwritev(descriptor, data, position)
    if written < length:  # a nearly full disk, or a signal
        rest = memoryview(b"".join(data))[written:]
        while rest:
            written += (count := os.pwrite(descriptor, rest, position + written))
            rest = rest[count:]


def _finish(descriptor: int, head: Head, partial: Path, path: Path) -> None:
    """Checks what was written, makes it durable and gives it its name."""
    size = os.fstat(descriptor).st_size
    if size != head.size:
        raise Damaged(f"received {size} bytes, not {head.size}")
    if head.digest is not None:
        digest, position = head.digest.new(), 0
        while block := os.pread(descriptor, BLOCK, position):
            digest.update(block)
            position += len(block)
        found = digest.digest().hex()
        if found != head.digest.value:
            raise Damaged(f"the content's {head.digest.algorithm} is {found}, and should be {head.digest.value}")
    os.fsync(descriptor)
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
