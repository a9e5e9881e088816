"""Uploads of any size with flat memory: parts in flight are bounded, and one last request makes the object appear."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from kvcache.backends.bucket import SHA256, WRITE_ID, Bucket, Upload
from kvcache.backends.failures import TRANSIENT, Failure, Kind
from kvcache.backends.streams import (
    PART,
    PART_ATTEMPTS,
    RESTARTS,
    Reading,
    Reporter,
    cancel,
    in_thread,
    persistently,
)
from kvcache.errors import TooLarge
from kvcache.kvs import Progress, Source, Version

IN_FLIGHT: Final = 15 << 20
"""Bytes that are held in memory at once, unless one part alone is larger."""
ABORT_SECONDS: Final = 10.0
"""How long an upload that failed tries to remove its parts."""
LOST_PARTS: Final = TRANSIENT | {Kind.ABSENT}
"""Failures after which an upload is worth beginning again; ABSENT: the service has forgotten it."""


async def upload(
    bucket: Bucket,
    name: str,
    source: Source,
    progress: Progress | None,
    *,
    write_id: str,
    whole: Callable[[bytes, dict[str, str]], Awaitable[Version]],
    landed: Callable[[], Awaitable[Version | None]],
) -> Version:
    """Uploads a source to the object `name`.

    `whole` writes one that fits into a part, `landed` tells whether an upload with this write id is there, if its last
    request was not answered. Failure; TooLarge; what reading the source, `whole`, `landed` and `progress` raise.
    """
    reporter = Reporter(progress)
    async with Reading.of(source) as reading:
        await in_thread(reading.measure)
        size = max(PART, -(-(reading.size or 0) // bucket.most_parts))
        marks = {SHA256: reading.sha256} if reading.sha256 is not None else {}
        for restart in range(RESTARTS):
            first = await in_thread(reading.read, size)
            if len(first) < size:
                reading.check()
                version = await whole(first, marks)
                await reporter.report(len(first))
                return version
            try:
                begun = await persistently(
                    lambda: bucket.begin(name, {**marks, WRITE_ID: write_id}, reading.size), PART_ATTEMPTS
                )
                return await _in_parts(begun, first, reading, size, bucket.most_parts, reporter, landed)
            except Failure as failure:
                if failure.kind not in LOST_PARTS or restart == RESTARTS - 1 or not reading.rewindable:
                    raise
            await in_thread(reading.rewind)
    raise AssertionError("RESTARTS is positive")


async def _in_parts(
    upload: Upload,
    first: bytes,
    reading: Reading,
    size: int,
    most_parts: int,
    reporter: Reporter,
    landed: Callable[[], Awaitable[Version | None]],
) -> Version:
    """Sends all parts and makes the object appear; else leaves nothing behind."""
    try:
        await _send_parts(upload, first, reading, size, most_parts, reporter)
        try:
            return await persistently(upload.commit, PART_ATTEMPTS)
        except Failure:
            if (version := await landed()) is not None:
                return version
            raise
    except BaseException:
        await _abort(upload)
        raise


async def _abort(upload: Upload) -> None:
    """Removes the parts, also when we are being cancelled. A service that is away keeps them until its own clean-up."""
    aborting = asyncio.ensure_future(asyncio.wait_for(upload.abort(), ABORT_SECONDS))
    with contextlib.suppress(Failure, TimeoutError):
        await asyncio.shield(aborting)


async def _send_parts(
    upload: Upload, first: bytes, reading: Reading, size: int, most_parts: int, reporter: Reporter
) -> None:
    """Sends what is left of a source in parts of `size` bytes, of which `first` has already been read."""
    streams = max(1, min(upload.streams, IN_FLIGHT // size))
    done = 0

    async def send(number: int, start: int, data: bytes, last: bool) -> None:
        nonlocal done
        attempts = PART_ATTEMPTS if upload.resends else 1
        await persistently(lambda: upload.send(number, start, data, last), attempts)
        done += len(data)
        await reporter.report(done)

    running: set[asyncio.Task[None]] = set()
    try:
        number, start, data = 0, 0, first
        while True:
            # One part is read ahead: the last one has to know that it is.
            following = await in_thread(reading.read, size) if len(data) == size else b""
            if len(running) >= streams:
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
            if number >= most_parts:
                raise TooLarge(f"a stream of unknown length is limited to {most_parts} parts of {size} bytes")
            if not following:
                reading.check()  # before the last part, which on some services makes the object appear
            running.add(asyncio.create_task(send(number, start, data, not following)))
            if not following:
                break
            number, start, data = number + 1, start + len(data), following
        while running:
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
    finally:
        await cancel(running)
