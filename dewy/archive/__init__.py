"""Unpacks a release artifact safely: whole or not at all, inside of its directory, at a bounded cost.

    limits.py     what an archive may cost, and the meter that stops it
    policy.py     what an archive may hold: pure decisions on names, kinds and links
    streams.py    decompression as a bounded, verified stream
    tar.py zip.py sevenzip.py    archives as a sequence of entries and their bytes
    writer.py     admitted entries onto the disk

Why it is as strict as it is: spec/decisions/0003-archives.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dewy.archive import tar, zip
from dewy.archive.limits import Limits, Meter
from dewy.archive.policy import Entry, Kind
from dewy.archive.streams import Inflow, Maker, bzip2, decompressed, gzip, pieces, xz, zstandard
from dewy.archive.writer import Writer, sync_directory
from dewy.errors import BadArchive

__all__ = ["Extracted", "Limits", "extract", "is_archive"]

_TARS: dict[str, Maker | None] = {
    ".tar": None,
    ".tar.gz": gzip,
    ".tgz": gzip,
    ".tar.bz2": bzip2,
    ".tbz2": bzip2,
    ".tar.xz": xz,
    ".txz": xz,
    ".tar.zst": zstandard,
    ".tzst": zstandard,
}
_ZIP, _SEVENZIP = ".zip", ".7z"
_UNREADABLE = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".lz", ".br", ".z", ".rar", ".cab", ".7z.001")
"""Packed, but not in a way that is read here: to deploy such a file as if it were a program helps nobody."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was unpacked: the directory, how many entries it came from, and the bytes of content in its files."""

    path: Path
    entries: int
    size: int


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked rather than deployed as itself. Looks at the suffix, in any case."""
    return name.lower().endswith((*_TARS, _ZIP, _SEVENZIP))


def extract(
    archive: Path, destination: Path, *, name: str | None = None, limits: Limits | None = None, durable: bool = True
) -> Extracted:
    """Unpacks an archive as the directory `destination`, which must not exist yet, or be empty.

    `name`: the artifact's name where the file goes by another; its suffix tells the format (see `is_archive`). A file
    with any other suffix is a program: it is copied into the directory under its name, executable.

    The directory appears whole or not at all: entries are placed in a hidden directory beside it, which is renamed at
    the end and removed on any failure (a killed process leaves it behind; its name starts with "." and that of the
    destination). With `durable` all of it survives a power cut from then on.

    Raises UnsafeArchive, BadArchive, and OSError where the disk is at fault (ENOSPC, EACCES, ...).
    """
    name = archive.name if name is None else name
    read = _reader(name)
    limits = limits or Limits()
    with archive.open("rb") as file:
        meter = Meter(limits, os.fstat(file.fileno()).st_size)
        hidden = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        try:
            with Writer(hidden, meter, limits) as writer:
                read(file, hidden, writer)
                if not meter.entries:
                    raise BadArchive("the archive holds nothing")
                writer.finish(durable=durable)
            hidden.rename(destination)
        except BaseException:  # KeyboardInterrupt as well: nothing of a half-made directory stays
            shutil.rmtree(hidden, ignore_errors=True)
            raise
    if durable:
        sync_directory(destination.parent)
    return Extracted(destination, meter.entries, writer.content)


Reader = Callable[[BinaryIO, Path, Writer], None]


def _reader(name: str) -> Reader:
    """What reads an artifact of this name."""
    lower = name.lower()
    if lower.endswith(_ZIP):
        return lambda file, _, writer: zip.unpack(file, writer)
    if lower.endswith(_SEVENZIP):
        from dewy.archive import sevenzip  # py7zr brings a dozen packages along; most never see a 7z

        return sevenzip.unpack
    for suffix, make in _TARS.items():
        if lower.endswith(suffix):
            return _tar_reader(make)
    if lower.endswith(_UNREADABLE):
        raise BadArchive("unsupported archive format", entry=name)
    return _program_reader(name)


def _tar_reader(make: Maker | None) -> Reader:
    def read(file: BinaryIO, _: Path, writer: Writer) -> None:
        source = pieces(file)
        tar.unpack(Inflow(decompressed(source, make) if make else source, writer.meter), writer)

    return read


def _program_reader(name: str) -> Reader:
    def read(file: BinaryIO, _: Path, writer: Writer) -> None:
        status = os.fstat(file.fileno())
        if not status.st_size:
            raise BadArchive("an empty file", entry=name)
        with writer.file(Entry(name, Kind.FILE, 0o755, status.st_size, status.st_mtime)) as out:
            for piece in pieces(file, status.st_size):
                out.write(piece)

    return read
