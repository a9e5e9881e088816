"""Compressed bytes -> bytes, as a stream: bounded memory, every check sum verified, a cut or a bomb noticed at once.

The decompressor objects are used directly rather than through their file objects: with an output bound per call a bomb
cannot fill the memory, and `eof` tells a complete stream from a cut one, which `zstandard.stream_reader` does not.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from dewy.archive.limits import MIB, Meter
from dewy.errors import BadArchive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ = 256 * 1024
"""Compressed bytes read at a time."""
CHUNK = MIB
"""Most bytes that come out of a decompressor at a time."""
MEMORY = 256 * MIB
"""Most memory that an archive may demand for its dictionary; `xz -9` needs 65 MiB."""
WINDOW_LOG = 27
"""The same for Zstandard: 128 MiB, the bound of its own command line and what its highest level needs."""


class Decompressor(Protocol):
    """What bz2, lzma and zstd have in common; zlib is brought to it below."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the interface of the others."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        # A call that filled its output may hold more back although it has swallowed all input.
        return not (self._full or self._inner.unconsumed_tail)

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        tail = self._inner.unconsumed_tail
        out = self._inner.decompress(tail + data if tail else data, max_length)
        self._full = len(out) == max_length
        return out


Maker = Callable[[], Decompressor]


def gzip() -> Decompressor:
    """One gzip member; its CRC-32 and length are verified at its end."""
    return _Zlib(16 + zlib.MAX_WBITS)


def deflate() -> Decompressor:
    """Bare deflate, as inside of a zip."""
    return _Zlib(-zlib.MAX_WBITS)


def bzip2() -> Decompressor:
    """One bzip2 stream, with its CRCs."""
    return bz2.BZ2Decompressor()


def xz() -> Decompressor:
    """One xz stream, with its integrity check."""
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY)


def zstandard() -> Decompressor:
    """One Zstandard frame; its check sum is verified where it carries one."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


FAILURES = (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError, ValueError, OSError)
"""What decompressors raise for bad data; bz2 says it with OSError, so they are caught around the call alone."""


def pieces(file: BinaryIO, length: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from where it stands, to its end or exactly `length` of them."""
    left = length
    while left is None or left > 0:
        piece = file.read(READ if left is None else min(READ, left))
        if not piece:
            if left:
                raise BadArchive("the archive is truncated")
            return
        if left is not None:
            left -= len(piece)
        yield piece


def decompressed(source: Iterator[bytes], make: Maker, *, joined: bool = True) -> Iterator[bytes]:
    """The decompressed bytes of a source, at most CHUNK at a time.

    `joined`: streams may stand one behind another, padded with zeros, as pigz, pbzip2, xz, pzstd and tapes leave them.
    Anything else behind a stream is refused: a file that means two things to two readers is no release.
    """
    data = next(source, b"")
    if not data:
        raise BadArchive("the archive is empty")
    while data:
        decompressor = make()
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = next(source, b"")
                if not data:
                    raise BadArchive("the archive is truncated")
            try:
                out = decompressor.decompress(data, CHUNK)
            except FAILURES as error:
                raise BadArchive(f"the archive is corrupt ({error})") from error
            data = b""
            if out:
                yield out
        data = decompressor.unused_data
        if not joined:
            if data or next(source, b""):
                raise BadArchive("the archive is corrupt (data behind the end of a stream)")
            return
        data = data.lstrip(b"\0")
        while not data and (piece := next(source, b"")):
            data = piece.lstrip(b"\0")


class Inflow:
    """A source of chunks, to be read in pieces of any size, each byte reported to the meter, which may refuse it."""

    def __init__(self, chunks: Iterator[bytes], meter: Meter) -> None:
        self._chunks = chunks
        self._meter = meter
        self._chunk = memoryview(b"")

    def take(self, limit: int) -> memoryview:
        """The next bytes, at least one and at most `limit`; nothing only at the end. Valid until released; no copy."""
        if not self._chunk:
            chunk = next(self._chunks, b"")
            self._meter.add(len(chunk))
            self._chunk = memoryview(chunk)
        piece, self._chunk = self._chunk[:limit], self._chunk[limit:]
        return piece

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, fewer only at the end. For headers: `count` is small."""
        piece = self.take(count)
        if len(piece) == count or not piece:
            return bytes(piece)
        gathered = bytearray(piece)
        while len(gathered) < count and (piece := self.take(count - len(gathered))):
            gathered += piece
        return bytes(gathered)
