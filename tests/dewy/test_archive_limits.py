"""Bombs: stopped while they unpack, in bounded memory, whatever the format."""

from __future__ import annotations

import lzma
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import py7zr
import pytest
import zstandard

from dewy.archive import Limits, extract
from dewy.archive.limits import KIB, MIB, Meter
from dewy.errors import ArchiveError, UnsafeArchive
from tests.crash.full_disk import small_disk
from tests.dewy.archives import COMPRESS, look, member, sevenzip_of, tar_of, zip_of

SIZE = 32 * MIB


def bomb(kind: str, place: Path, size: int = SIZE) -> Path:
    """An archive of `size` zeros in one file, "zeros"."""
    zeros = bytes(size)
    if kind == ".zip":
        data = zip_of(("zeros", zeros, 0))
    elif kind == "bzip2.zip":
        data = zip_of(("zeros", zeros, 0), method=zipfile.ZIP_BZIP2)
    elif kind in SEVENZIP:
        return sevenzip_of(place / f"bomb-{kind}", [("zeros", zeros, 0)], filters=SEVENZIP[kind])
    else:
        data = tar_of(member("zeros", zeros), suffix=kind, format=tarfile.USTAR_FORMAT)
    archive = place / f"bomb-{kind}"
    archive.write_bytes(data)
    return archive


SEVENZIP = {
    "lzma2.7z": [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "zstd.7z": [{"id": py7zr.FILTER_ZSTD, "level": 1}],
    "deflate.7z": [{"id": py7zr.FILTER_DEFLATE}],
    "bzip2.7z": [{"id": py7zr.FILTER_BZIP2}],
}
KINDS = [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", "bzip2.zip", *SEVENZIP]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_stopped_while_it_unpacks(kind: str, tmp_path: Path) -> None:
    """R9. The disk is smaller than the bomb: were it stopped only afterwards, the error would be the disk's."""
    archive = bomb(kind, tmp_path)
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(UnsafeArchive, match="only a decompression bomb does: zeros"):
            extract(archive, disk.root / "out", limits=Limits(ratio=10, ratio_free=MIB))
        assert look(disk.root) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_does_not_fill_the_memory(kind: str, tmp_path: Path) -> None:
    """In a process of its own, with so much of address space that a bomb held whole would not fit."""
    archive = bomb(kind, tmp_path, 48 * MIB)
    code = f"""
import resource
from pathlib import Path
from dewy.archive import Limits, extract, sevenzip
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {40 * MIB}, now + {40 * MIB}))
extract(Path({str(archive)!r}), Path({str(tmp_path / "out")!r}), limits=Limits(ratio=1e9), durable=False)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "out" / "zeros").stat().st_size == 48 * MIB


@pytest.mark.parametrize("suffix", [*COMPRESS, ".zip", ".7z"])
def test_too_many_entries(suffix: str, tmp_path: Path) -> None:
    entries = [(f"f{number}", b"", 0) for number in range(11)]
    archive = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        archive.write_bytes(zip_of(*entries))
    elif suffix == ".7z":
        sevenzip_of(archive, entries)
    else:
        archive.write_bytes(tar_of(*(member(name, b"") for name, _, _ in entries), suffix=suffix))
    with pytest.raises(UnsafeArchive, match="more than 10 entries"):
        extract(archive, tmp_path / "out", limits=Limits(entries=10))
    extract(archive, tmp_path / "out", limits=Limits(entries=11))


def test_a_claim_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info, _ = member("huge")
    info.size = 10**15
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UnsafeArchive, match=r"claims 1000000000000000 bytes, more than 4294967296: huge"):
        extract(tmp_path / "a.tar", tmp_path / "out")


def test_total_size(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(*(member(f"f{number}", b"x" * 900) for number in range(9))))
    with pytest.raises(UnsafeArchive, match="more than 4096 bytes unpacked"):
        extract(tmp_path / "a.tar", tmp_path / "out", limits=Limits(size=4 * KIB))


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.zst", "lzma2.7z"])
def test_a_dictionary_beyond_the_limit(suffix: str, tmp_path: Path) -> None:
    """How much memory an archive wants it says itself, and the decompressors believe it."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * MIB}]
    plain = tar_of(member("a", b"x" * 1000))
    archive = tmp_path / f"a{suffix}"
    if suffix == ".tar.xz":
        archive.write_bytes(lzma.compress(plain, filters=filters))
    elif suffix == ".tar.zst":
        parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        archive.write_bytes(stream.compress(plain) + stream.flush())
    else:
        sevenzip_of(archive, [("a", b"x", 0)], filters=filters)
    with pytest.raises(
        ArchiveError, match=r"Memory usage limit|Frame requires too much memory|needs \d+ bytes of memory"
    ):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_meter_allows_what_the_limits_say() -> None:
    meter = Meter(Limits(size=100, ratio=10, ratio_free=50), packed=8)
    meter.add(80)
    with pytest.raises(UnsafeArchive, match="more than 80 bytes unpacked from 8"):
        meter.add(1)
    meter = Meter(Limits(size=100, ratio=10, ratio_free=50), packed=2)
    meter.add(50)
    with pytest.raises(UnsafeArchive, match="more than 50 bytes unpacked from 2"):
        meter.add(1)
    meter = Meter(Limits(size=100, ratio=10, ratio_free=50), packed=80)
    meter.add(100)
    with pytest.raises(UnsafeArchive, match=r"more than 100 bytes unpacked$"):
        meter.add(1)
