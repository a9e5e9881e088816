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
from kvcache.backends.landing import RANGE, Damaged, Landing
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

STREAMS: Final = 4
"""Ranges that are fetched at once."""


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
            landing = Landing(descriptor, head, reporter)
            await _fill(landing, head.size, ranges)
            await in_thread(landing.settle, partial, path)
        finally:
            os.close(descriptor)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


async def _fill(landing: Landing, size: int, ranges: Ranges) -> None:
    todo = iter(range(0, size, RANGE))

    async def work() -> None:
        for start in todo:
            await _receive_range(landing, start, min(start + RANGE, size), ranges)

    tasks = {asyncio.create_task(work()) for _ in range(min(STREAMS, -(-size // RANGE)))}
    tasks |= {asyncio.create_task(landing.check()), asyncio.create_task(landing.flush())}
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        await cancel(tasks)


async def _receive_range(landing: Landing, start: int, stop: int, ranges: Ranges) -> None:
    """Fetches one range, going on from where the connection broke."""
    attempt = 0
    while start < stop:
        try:
            async with asyncio.timeout(PART_SECONDS):
                async with contextlib.aclosing(_gathered(ranges(start, stop), start)) as gathered:
                    async for position, blocks in gathered:
                        await landing.write(blocks, start)
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
