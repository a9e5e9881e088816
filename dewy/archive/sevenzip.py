"""Reads a 7z through py7zr: its directory is admitted first, then members stream to the disk through a writer factory.

py7zr unpacks up to 128 MB at a time, and some of its decompressors know no bound at all. It is kept flat from outside:
directory and dictionaries are bounded before they are read, and decompressors are asked for little at a time, and fed
so little that even the densest input to one that knows no bound becomes no more than some megabytes.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import py7zr
from py7zr.archiveinfo import HeaderStreamsInfo
from py7zr.exceptions import ArchiveError, PasswordRequired
from py7zr.io import Py7zIO, WriterFactory

from dewy.archive.limits import KIB
from dewy.archive.policy import Entry, Kind, split
from dewy.archive.streams import CHUNK, FAILURES, MEMORY
from dewy.archive.writer import OpenFile, Writer
from dewy.errors import BadArchive, UnsafeArchive, printable

_FEED: Final = 512
"""Bytes that a decompressor gets at a time, and, of a solid archive, once more for each member: it keeps what it does
not need yet, so that much more would put an archive of many small members into memory whole."""
_FEED_ZSTD: Final = 128
"""The same for Zstandard, which py7zr gives no bound, and which may hold 128 KiB in four bytes."""

_LINK_TARGET = 4 * KIB
_DIRECTORY_BYTES = 256  # bytes of the directory for one entry; a name of 60 characters and all else are 150
_START = struct.Struct("<6s2sLQQL")  # signature, version, CRC, offset, size and CRC of the directory
_SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_ENCODED = b"\x17"
_LZMA, _LZMA2, _ZSTD, _AES = b"\x03\x01\x01", b"\x21", b"\x04\xf7\x11\x01", b"\x06\xf1\x07\x01"
_CODERS = {
    *(_LZMA, _LZMA2, _ZSTD, b"\x00", b"\x04\x01\x08", b"\x04\x02\x02"),  # the last three: stored, deflate, bzip2
    *(b"\x03", b"\x04", b"\x03\x03\x01\x03", b"\x07", b"\x03\x03\x05\x01"),  # filters: delta, and BCJ for x86 and ARM
}
"""The coders that are trusted with hostile bytes: those of the standard library, and filters that 7-Zip sets by itself.
The others are refused: pyppmd corrupts the heap, and py7zr can only unpack Brotli that is not dense."""
_EPOCH = 11_644_473_600  # seconds from 1601, where a FILETIME starts, to 1970

_FAILURES = (
    *(ArchiveError, PasswordRequired, lzma.LZMAError, zlib.error, struct.error, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError),
)
"""What py7zr raises for bad data: it follows hostile bytes with few checks of its own, so nearly anything."""


def unpack(file: BinaryIO, root: Path, writer: Writer) -> None:
    """Places every entry of the 7z in `file`, which can seek, in `root`, the writer's. BadArchive, UnsafeArchive."""
    try:
        feed = _Feed(file)
        _check_directory(feed, writer.meter.limits.entries)
        with py7zr.SevenZipFile(cast(BinaryIO, feed), "r") as archive:
            for folder in _folders(archive):
                _check_coders(folder)
                if folder.files:
                    # py7zr makes a folder's decompressor at its first file, unless there is one.
                    folder.decompressor = _Bounded(folder.get_decompressor(folder.files[0].compressed), feed, folder)
            if len(archive.files) > writer.meter.limits.entries:
                raise UnsafeArchive(f"more than {writer.meter.limits.entries} entries")
            factory = _Factory(root, writer)
            for member in archive.files:
                factory.admit(_entry(member))
            archive.extractall(path=root, factory=factory)
            factory.finish()
    except _FAILURES as error:
        raise BadArchive(f"the archive is corrupt, or no 7z that can be read ({_reason(error)})") from error


class _Feed(io.RawIOBase):
    """The archive as py7zr sees it: whole while the directory is read, then `most` bytes at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.most: int | None = None

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size if self.most is None else min(size, self.most))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self._file.tell(), self._size)[whence]
        if not 0 <= position <= self._size:
            raise BadArchive("the archive is truncated")
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Bounded:
    """The decompressor of a folder, asked for no more than CHUNK at a time, and fed no more than is good for it."""

    def __init__(self, inner: Any, feed: _Feed, folder: Any) -> None:
        self._inner = inner
        self._feed = feed
        self._most = _FEED_ZSTD if any(coder["method"] == _ZSTD for coder in folder.coders) else _FEED

    def decompress(self, fp: Any, max_length: int) -> Any:
        self._feed.most = self._most
        try:
            return self._inner.decompress(fp, min(max_length, CHUNK))
        except FAILURES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # not bz2's, but the disk's, from reading the archive
            raise BadArchive(f"the archive is corrupt ({error})") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Factory(WriterFactory):
    """Hands py7zr a place to write each member to. Members come one after another, each whole before the next."""

    def __init__(self, root: Path, writer: Writer) -> None:
        self._root = root.as_posix() + "/"
        self._writer = writer
        self._waiting: dict[str, Entry] = {}
        self._sink: _Sink | None = None

    def admit(self, entry: Entry) -> None:
        """Checks a name before any content is unpacked, and places a directory at once."""
        path = "/".join(split(entry.name, self._writer.meter.limits))
        if entry.kind is Kind.DIRECTORY:
            self._writer.place(entry)
        elif path in self._waiting:
            raise UnsafeArchive("duplicate name", entry=entry.name)
        else:
            self._waiting[path] = entry

    def create(self, filename: str) -> Py7zIO:
        """Called by py7zr with the path it would write to: the root and the name as `split` cleans it."""
        self._complete()
        self._sink = _Sink(self._writer, self._waiting.pop(filename.removeprefix(self._root)))
        return self._sink

    def finish(self) -> None:
        """Completes the last member; every one must have come."""
        self._complete()
        for entry in self._waiting.values():
            raise BadArchive("the archive is corrupt (no content)", entry=entry.name)

    def _complete(self) -> None:
        if self._sink is not None:
            self._sink.complete()


class _Sink(Py7zIO):
    """Where one member goes: a file on the disk, or, if it is a link, its target in memory."""

    def __init__(self, writer: Writer, entry: Entry) -> None:
        self._writer = writer
        self._entry = entry
        self._written = 0
        self._target = bytearray()
        self._file: OpenFile | None = writer.file(entry) if entry.kind is Kind.FILE else None

    def write(self, data: bytes | bytearray) -> int:
        self._writer.meter.add(len(data))
        self._written += len(data)
        if self._file is not None:
            return self._file.write(data)
        self._target += data
        return len(data)

    def complete(self) -> None:
        if self._file is not None:
            with self._file:
                pass
        else:
            target = self._target.decode("utf-8", "surrogateescape")
            self._writer.place(Entry(self._entry.name, Kind.SYMLINK, target=target))

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset  # py7zr rewinds what it has written, for callers who want to read it

    def flush(self) -> None: ...

    def size(self) -> int:
        return self._written


def _entry(member: Any) -> Entry:
    """What the directory says of a member."""
    name: str = member.filename
    form, mode = member.st_fmt or 0, member.posix_mode
    if member.is_directory:
        if not member.emptystream or form not in (0, stat.S_IFDIR):
            raise UnsafeArchive("a directory with content", entry=name)
        return Entry(name, Kind.DIRECTORY, 0o755 if mode is None else mode, mtime=_mtime(member))
    if member.is_symlink or member.is_junction:
        if form != stat.S_IFLNK:
            raise UnsafeArchive("a Windows reparse point", entry=name)
        if member.uncompressed > _LINK_TARGET:
            raise UnsafeArchive(f"symbolic link with a target of {member.uncompressed} bytes", entry=name)
        return Entry(name, Kind.SYMLINK, size=member.uncompressed)
    if form not in (0, stat.S_IFREG):
        raise UnsafeArchive("a device, FIFO or other special file", entry=name)
    return Entry(name, Kind.FILE, 0o644 if mode is None else mode, member.uncompressed, _mtime(member))


def _mtime(member: Any) -> float | None:
    return None if member.lastwritetime is None else int(member.lastwritetime) / 10_000_000 - _EPOCH


def _check_directory(feed: _Feed, entries: int) -> None:
    """Refuses a directory that is larger, packed or unpacked, than that of as many entries as are accepted."""
    most = entries * _DIRECTORY_BYTES + 64 * KIB
    start = feed.read(_START.size)
    if not start.startswith(_SIGNATURE) or len(start) < _START.size:
        raise BadArchive("the archive is corrupt, or no 7z")
    _, _, _, offset, size, _ = _START.unpack(start)
    if size > most:
        raise UnsafeArchive(f"a directory of {size} bytes")
    feed.seek(_START.size + offset)
    directory = io.BytesIO(feed.read(size))
    if directory.read(1) == _ENCODED:
        folders = HeaderStreamsInfo.retrieve(directory).unpackinfo.folders
        unpacked = sum(sum(folder.unpacksizes) for folder in folders)
        if unpacked > most:
            raise UnsafeArchive(f"a directory of {unpacked} bytes")
        for folder in folders:
            _check_coders(folder)
    feed.seek(0)


def _folders(archive: Any) -> list[Any]:
    """The packed streams: each holds the content of one or many members, one behind another."""
    streams = archive.header.main_streams
    return [] if streams is None else list(streams.unpackinfo.folders)


def _check_coders(folder: Any) -> None:
    """Refuses coders that are not trusted, and dictionaries that are too large: raw decompressors take what they are
    told to."""
    for coder in folder.coders:
        method = coder["method"]
        if method == _AES:
            raise BadArchive("encrypted")
        if method not in _CODERS:
            raise BadArchive(f"an unsupported compression method ({method.hex()})")
        needed = _dictionary(method, coder.get("properties") or b"")
        if needed > MEMORY:
            raise UnsafeArchive(f"needs {needed} bytes of memory to unpack")


def _dictionary(method: bytes, properties: bytes) -> int:
    """Bytes of memory that a coder asks for in its properties."""
    if method == _LZMA and len(properties) >= 5:
        return int.from_bytes(properties[1:5], "little")
    if method == _LZMA2 and properties:
        return (2 | (properties[0] & 1)) << (properties[0] // 2 + 11)
    return 0


def _reason(error: BaseException) -> str:
    text = error.args[0] if error.args and isinstance(error.args[0], str) else ""
    return printable(text.splitlines()[0]) if text else type(error).__name__
