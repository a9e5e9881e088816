"""The local end of a transfer: a source read in pieces of one size, and how far it has got."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kvcache.kvs import Progress, Source


class Rising:
    """Tells the caller how far a transfer is, and nothing while one that began anew catches up."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._told = -1

    def __call__(self, size: int) -> None:
        if self._progress is not None and size > self._told:
            self._told = size
            self._progress(size)


def opened(source: Source) -> contextlib.AbstractContextManager[BinaryIO]:
    if isinstance(source, (str, os.PathLike)):
        return Path(source).open("rb")
    return contextlib.nullcontext(source)


def remaining(stream: BinaryIO) -> int | None:
    """Bytes from where the stream stands to its end; None where it can't tell."""
    try:
        here = stream.tell()
        end = stream.seek(0, os.SEEK_END)
        stream.seek(here)
    except (OSError, AttributeError):  # a pipe, or an object that only has read()
        return None
    return end - here


def chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """The rest of the stream in chunks of exactly `size` bytes, the last one shorter."""
    while chunk := _filled(stream, size):
        yield chunk


def _filled(stream: BinaryIO, size: int) -> bytes:
    pieces: list[bytes] = []
    while size > 0 and (piece := stream.read(size)):  # an unbuffered stream may hand out less than asked for
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
