"""Archives for tests: a directory packed in every format by the usual libraries, and tars and zips written by hand."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import py7zr
import pytest
import zstandard

from dewy.archive import Limits, extract
from dewy.errors import ArchiveError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": lambda data: data,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
    ".tar.xz": partial(lzma.compress, preset=0),
    ".txz": partial(lzma.compress, preset=0),
    ".tar.zst": zstandard.ZstdCompressor().compress,
    ".tzst": zstandard.ZstdCompressor().compress,
}
FORMATS = [*COMPRESS, ".zip", ".7z"]


def pack(source: Path, archive: Path) -> Path:
    """Packs the content of a directory in the format that the archive's suffix names."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for path in sorted(source.rglob("*")):
                _add_to_zip(out, path, str(path.relative_to(source)))
    elif name.endswith(".7z"):
        with py7zr.SevenZipFile(archive, "w") as out:
            for path in sorted(source.rglob("*")):
                out.write(path, str(path.relative_to(source)))
    else:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as out:
            out.add(source, ".")
        suffix = max((suffix for suffix in COMPRESS if name.endswith(suffix)), key=len)
        archive.write_bytes(COMPRESS[suffix](data.getvalue()))
    return archive


def _add_to_zip(out: zipfile.ZipFile, path: Path, name: str) -> None:
    if path.is_symlink():
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        out.writestr(info, str(path.readlink()))
    else:
        out.write(path, name)


def tar_of(
    *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], suffix: str = ".tar", format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar of just these members, however strange, in this order."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format) as out:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            out.addfile(info, io.BytesIO(content))
    return COMPRESS[suffix](data.getvalue())


def member(name: str, content: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar's member: a file with content, unless a `type` is given."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    if content is not None:
        info.size = len(content)
    return info, content or b""


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def zip_of(*members: tuple[str, bytes, int], system: int = 3, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name, content, st_mode), however strange, in this order."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name, content, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.create_system, info.external_attr, info.compress_type = system, mode << 16, method
            out.writestr(info, content)
    return data.getvalue()


def sevenzip_of(
    archive: Path, members: Iterable[tuple[str, bytes, int]], *, plain: bool = False, **options: object
) -> Path:
    """A 7z of (name, content, st_mode), however strange. py7zr writes no hostile names: they come after.

    `plain`: the directory is left unpacked.
    """
    with py7zr.SevenZipFile(archive, "w", **options) as out:
        out.set_encoded_header_mode(not plain)
        for number, (name, content, mode) in enumerate(members):
            out.writestr(content, f"placeholder-{number}")
            entry = out.header.files_info.files[-1]
            entry["filename"] = name
            if mode:
                directory_bit = stat.FILE_ATTRIBUTE_DIRECTORY if stat.S_ISDIR(mode) else 0
                entry["attributes"] = 0x8000 | directory_bit | mode << 16
    return archive


def look(root: Path) -> dict[str, tuple[object, ...]]:
    """What is in a directory: path -> kind, mode, content or target, whole seconds of the last change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name, mode = str(path.relative_to(root)), stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("directory", mode | stat.S_IRWXU)
        else:
            found[name] = ("file", mode | stat.S_IRUSR | stat.S_IWUSR, path.read_bytes())
    return found


def refused(data: bytes, name: str, place: Path, limits: Limits | None = None) -> ArchiveError:
    """The error that unpacking raises, once it is certain that nothing but the archive is there afterwards."""
    (place / "inner").mkdir(exist_ok=True)
    (place / "inner" / name).write_bytes(data)
    before = look(place)
    with pytest.raises(ArchiveError) as caught:
        extract(place / "inner" / name, place / "inner" / "out", limits=limits)
    assert look(place) == before
    assert "\n" not in str(caught.value)
    return caught.value


def with_directory(original: bytes, changed: bytes) -> bytes:
    """A 7z with a changed directory, its check sums made to fit."""
    lie = bytearray(changed)
    struct.pack_into("<L", lie, 28, zlib.crc32(lie[32 + struct.unpack_from("<Q", original, 12)[0] :]))
    struct.pack_into("<L", lie, 8, zlib.crc32(lie[12:32]))
    return bytes(lie)
