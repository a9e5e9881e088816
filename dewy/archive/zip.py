"""Reads a zip: the standard library reads its directory, members are read and checked here.

A zip says everything twice, in the directory at its end and before each member, and readers differ in whom they
believe. Here the two must agree, and members must lie one behind another: overlapping ones are how a few kilobytes
claim petabytes. `ZipFile.open` is not used, for it unpacks bzip2 and lzma members without a bound on memory.
"""

from __future__ import annotations

import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from dewy.archive.limits import KIB, Limits
from dewy.archive.policy import Entry, Kind
from dewy.archive.streams import Inflow, Maker, bzip2, decompressed, deflate, pieces, xz, zstandard
from dewy.archive.writer import Writer
from dewy.errors import BadArchive, UnsafeArchive

_STORED = 0
_METHODS: dict[int, Maker] = {8: deflate, 12: bzip2, 93: zstandard, 95: xz}

_LOCAL = struct.Struct("<4s5H3L2H")  # signature, version, flags, method, time, date, crc, packed, size, name, extra
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW = 1 << 3
_PATCH = 1 << 5
_UTF8 = 1 << 11
_ZIP64 = 0xFFFFFFFF
_UNIX_SYSTEMS = (3, 19)  # Unix, macOS: the upper half of the external attributes is st_mode
_EXTENDED_TIME = 0x5455
_LINK_TARGET = 4 * KIB


def unpack(file: BinaryIO, writer: Writer) -> None:
    """Places every entry of the zip in `file`, which can seek. BadArchive, UnsafeArchive."""
    directory = _Bounded(file, writer.meter.limits)
    try:
        archive = zipfile.ZipFile(directory)
    # What a malformed directory makes of it: short fields, bad UTF-8, negative offsets, versions from the future.
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        raise BadArchive(f"the archive is corrupt, or no zip ({error})") from error
    with archive:
        end = 0
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise UnsafeArchive("overlaps another entry", entry=_name(info))
            end = _unpack_member(info, file, archive.start_dir, writer)


class _Bounded:
    """A file whose reads are refused where they hold the directory of more entries than are accepted.

    `ZipFile` makes an object of every entry before it returns, so that a check afterwards would come too late.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._entries = limits.entries
        self._bytes = limits.entries * (46 + 256) + 64 * KIB  # a fixed part each, and a longer name than most
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self.close = lambda: None  # the caller's to close

    def read(self, count: int = -1) -> bytes:
        if count > self._bytes:
            raise UnsafeArchive(f"a directory of {count} bytes")
        data = self._file.read(count)
        if data.count(b"PK\1\2") > self._entries:
            raise UnsafeArchive(f"more than {self._entries} entries")
        return data


def _unpack_member(info: zipfile.ZipInfo, file: BinaryIO, end: int, writer: Writer) -> int:
    """Places one entry. Returns the offset behind its data."""
    name = _name(info)
    if info.header_offset < 0:
        raise BadArchive("the archive is corrupt (an entry before its start)", entry=name)
    start = _check_local_header(info, file)
    if start + info.compress_size > end:
        raise BadArchive("the archive is truncated", entry=name)
    entry = _entry(info)
    file.seek(start)
    content = _content(info, file, writer)
    match entry.kind:
        case Kind.FILE:
            with writer.file(entry) as out:
                for piece in content:
                    out.write(piece)
        case Kind.SYMLINK:
            target = b"".join(content).decode("utf-8", "surrogateescape")
            writer.place(Entry(name, Kind.SYMLINK, target=target))
        case _:
            writer.place(entry)
    return start + info.compress_size


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """The name as it stands in the directory; `orig_filename`, unlike `filename`, is not cut at a NUL."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def _name(info: zipfile.ZipInfo) -> str:
    """The name as it is meant. Without the flag it is cp437 by the book, but UTF-8 from every tool on Unix."""
    try:
        return _raw_name(info).decode("utf-8")
    except UnicodeDecodeError:
        return info.orig_filename


def _check_local_header(info: zipfile.ZipInfo, file: BinaryIO) -> int:
    """Compares what stands before a member with the directory. Returns the offset of its data."""
    name = _name(info)
    file.seek(info.header_offset)
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size:
        raise BadArchive("the archive is truncated", entry=name)
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
    local_name = file.read(name_length)
    if signature != b"PK\3\4":
        raise BadArchive("the archive is corrupt (no header before the entry)", entry=name)
    if (flags | info.flag_bits) & _ENCRYPTED:
        raise BadArchive("encrypted", entry=name)
    if info.flag_bits & _PATCH:
        raise BadArchive("a patch instead of content", entry=name)
    agree = local_name == _raw_name(info) and method == info.compress_type
    if agree and not flags & _SIZES_FOLLOW:
        # A size of a member beyond 4 GiB stands in an extra field; then the data themselves have to fit.
        agree = (
            crc == info.CRC
            and (packed == info.compress_size or packed == _ZIP64)
            and (size == info.file_size or size == _ZIP64)
        )
    if not agree:
        raise UnsafeArchive("the header before the entry contradicts the directory", entry=name)
    return info.header_offset + _LOCAL.size + int(name_length) + int(extra_length)


def _entry(info: zipfile.ZipInfo) -> Entry:
    """What the directory says of an entry."""
    name = _name(info)
    mode = info.external_attr >> 16 if info.create_system in _UNIX_SYSTEMS else 0
    is_directory = name.endswith("/")
    form = stat.S_IFMT(mode)
    if form == stat.S_IFLNK and not is_directory:
        if info.file_size > _LINK_TARGET:
            raise UnsafeArchive(f"symbolic link with a target of {info.file_size} bytes", entry=name)
        return Entry(name, Kind.SYMLINK)
    if form not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeArchive("a device, FIFO or other special file", entry=name)
    if is_directory and info.file_size:
        raise UnsafeArchive("a directory with content", entry=name)
    if form == stat.S_IFDIR and not is_directory:
        raise UnsafeArchive("a directory without the name of one", entry=name)
    kind = Kind.DIRECTORY if is_directory else Kind.FILE
    default = 0o755 if is_directory else 0o644
    return Entry(name, kind, stat.S_IMODE(mode) if mode else default, info.file_size, _mtime(info))


def _content(info: zipfile.ZipInfo, file: BinaryIO, writer: Writer) -> Iterator[memoryview]:
    """The bytes of a member, whose number and CRC-32 are those of the directory. `file` stands at its data."""
    name = _name(info)
    source = pieces(file, info.compress_size)
    if info.compress_type != _STORED:
        make = _METHODS.get(info.compress_type)
        if make is None:
            raise BadArchive(f"an unknown compression method ({info.compress_type})", entry=name)
        source = decompressed(source, make, joined=False)
    inflow = Inflow(source, writer.meter)
    left, crc = info.file_size, 0
    try:
        while piece := inflow.take(1 << 20):
            left -= len(piece)
            if left < 0:
                raise UnsafeArchive(f"holds more than the {info.file_size} bytes it claims", entry=name)
            crc = zlib.crc32(piece, crc)
            yield piece
    except BadArchive as error:
        raise BadArchive(str(error), entry=name) from error
    if left or crc != info.CRC:
        raise BadArchive("the archive is corrupt (wrong length or CRC)", entry=name)


def _mtime(info: zipfile.ZipInfo) -> float | None:
    """The time of last change: UTC seconds where a Unix tool left them, else local time, as a zip defines it."""
    extra = info.extra
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<2H", extra)
        if tag == _EXTENDED_TIME and length >= 5 and len(extra) >= 9 and extra[4] & 1:
            return float(struct.unpack_from("<l", extra, 5)[0])
        extra = extra[4 + length :]
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return None
