"""Reads a tar as a stream: the standard library decodes header blocks, the rest is strict and bounded.

`tarfile.open` is not used, for it ends in silence at a header that it cannot read, loads headers of any declared size
into memory, follows chains of them by recursion and, before 3.12.6, matches them with expressions that backtrack.
"""

from __future__ import annotations

import re
import tarfile

from dewy.archive.limits import KIB
from dewy.archive.policy import Entry, Kind
from dewy.archive.streams import Inflow
from dewy.archive.writer import Writer
from dewy.errors import BadArchive, UnsafeArchive

BLOCK = 512
HEADER = 64 * KIB
"""Most bytes of one extended header: paths are a KiB at most, and nothing else in one is needed."""

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EMPTY = {tarfile.DIRTYPE: Kind.DIRECTORY, tarfile.SYMTYPE: Kind.SYMLINK, tarfile.LNKTYPE: Kind.HARDLINK}
_SPECIAL = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_NUMBER = re.compile("-?[0-9]+")
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


def unpack(inflow: Inflow, writer: Writer) -> None:
    """Places every entry of the tar that flows in. BadArchive, UnsafeArchive."""
    extended: dict[str, str] = {}
    seen: set[bytes] = set()
    while block := inflow.read(BLOCK):
        if block.count(0) == BLOCK:
            if seen:
                raise BadArchive("the archive is truncated (a header without its entry)")
            return _expect_zeros(inflow)
        header = _decode(block)
        if header.type in _PAX or header.type in _LONG or header.type == tarfile.XGLTYPE:
            if header.type in seen:
                raise UnsafeArchive("two extended headers for one entry", entry=header.name)
            data = _read_header(inflow, header)
            if header.type == tarfile.XGLTYPE:
                _check_global(parse_pax(data), header.name)
                continue
            seen.add(header.type)
            extended |= parse_pax(data) if header.type in _PAX else {_LONG[header.type]: _text(data.rstrip(b"\0"))}
            continue
        _place(_entry(header, extended), inflow, writer)
        extended, seen = {}, set()
    raise BadArchive("the archive is truncated (no end mark)")


def _decode(block: bytes) -> tarfile.TarInfo:
    if len(block) < BLOCK:
        raise BadArchive("the archive is truncated (in a header)")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise BadArchive(f"the archive is corrupt, or no tar ({error})") from error


def _entry(header: tarfile.TarInfo, extended: dict[str, str]) -> Entry:
    """What a header block and the extended headers before it say together."""
    name = extended.get("path", header.name)
    if special := _SPECIAL.get(header.type):
        raise UnsafeArchive(special, entry=name)
    if any(key.startswith("GNU.sparse.") for key in extended):
        raise UnsafeArchive("a sparse file", entry=name)
    kind = Kind.FILE if header.type in _FILES else _EMPTY.get(header.type)
    if kind is None:
        raise UnsafeArchive(f"an entry of unknown type {header.type!r}", entry=name)
    size, mtime = header.size, float(header.mtime)
    try:
        if "size" in extended:
            if not _NUMBER.fullmatch(extended["size"]):  # int() alone takes "1_0" and " 1", which others do not
                raise ValueError("size")
            size = int(extended["size"])
        if "mtime" in extended:
            mtime = float(extended["mtime"])
    except ValueError as error:
        raise BadArchive(f"a malformed extended header ({error})", entry=name) from error
    if kind is not Kind.FILE and size:
        # Some readers skip that many bytes and others do not: to them the entries that follow differ.
        raise UnsafeArchive(f"a {kind.value} that claims {size} bytes of content", entry=name)
    target = extended.get("linkpath", header.linkname) if kind in (Kind.SYMLINK, Kind.HARDLINK) else ""
    return Entry(name, kind, header.mode, size, mtime, target)


def _place(entry: Entry, inflow: Inflow, writer: Writer) -> None:
    if entry.kind is not Kind.FILE:
        writer.place(entry)
        return
    with writer.file(entry) as out:
        left = entry.size
        while left:
            piece = inflow.take(left)
            if not piece:
                raise BadArchive("the archive is truncated", entry=entry.name)
            left -= out.write(piece)
    padding = -entry.size % BLOCK
    if len(inflow.read(padding)) < padding:
        raise BadArchive("the archive is truncated", entry=entry.name)


def _read_header(inflow: Inflow, header: tarfile.TarInfo) -> bytes:
    """The content of an extended header."""
    if not 0 < header.size <= HEADER:
        raise UnsafeArchive(f"an extended header of {header.size} bytes", entry=header.name)
    padded = header.size + -header.size % BLOCK
    data = inflow.read(padded)
    if len(data) < padded:
        raise BadArchive("the archive is truncated (in a header)")
    return data[: header.size]


def parse_pax(data: bytes) -> dict[str, str]:
    """The records of a pax header, each "LENGTH KEY=VALUE\\n" with LENGTH counting all of it. BadArchive."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        digits, blank, _ = data[at : at + 20].partition(b" ")
        end = at + int(digits) if digits.isdigit() else 0
        record = data[at + len(digits) + len(blank) : end]
        key, equals, value = record[:-1].partition(b"=")
        if not (blank and record.endswith(b"\n") and equals and key) or end > len(data):
            raise BadArchive("the archive is corrupt (a malformed pax header)")
        records[_text(key)] = _text(value)
        at = end
    return records


def _check_global(records: dict[str, str], name: str) -> None:
    """Global headers carry comments (git archive). One that names or sizes all that follow is a trick."""
    for key in records:
        if key in ("path", "linkpath", "size") or key.startswith("GNU.sparse."):
            raise UnsafeArchive(f"a global header that sets {key}", entry=name)


def _expect_zeros(inflow: Inflow) -> None:
    """Reads on to the end, so that the check sums of the compressed stream are verified too."""
    while piece := inflow.take(1 << 20):
        if bytes(piece).strip(b"\0"):
            raise BadArchive("the archive is corrupt (data behind its end)")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
