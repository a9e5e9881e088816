"""Archives that mean harm: each is refused with the entry's name, and nothing of it stays on disk."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import py7zr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewy.archive import Limits, extract
from dewy.errors import ArchiveError, BadArchive, UnsafeArchive
from tests.dewy.archives import (
    directory,
    hardlink,
    look,
    member,
    refused,
    sevenzip_of,
    symlink,
    tar_of,
    with_directory,
    zip_of,
)

GOOD = member("good", b"x")


TARS = {
    "traversal": ([member("../x", b"")], "path traversal: ../x"),
    "traversal in the middle": ([member("a/../../x", b"")], "path traversal: a/../../x"),
    "traversal that comes back": ([member("a/../x", b"")], "path traversal: a/../x"),
    "absolute": ([member("/etc/x", b"")], "absolute path: /etc/x"),
    "backslash": ([member("..\\x", b"")], "backslash in a name: ..\\x"),
    "drive letter": ([member("C:x", b"")], "drive letter in a name: C:x"),
    "NUL": ([member("a", b"", pax_headers={"path": "a\0b"})], "NUL in a name: 'a\\x00b'"),
    "long component": ([member("n" * 256, b"")], "a name longer than 255 bytes: nnn"),
    "long path": ([member("/".join(["n" * 250] * 5), b"")], "a path longer than 1024 bytes: nnn"),
    "deep": ([member("d/" * 64 + "f", b"")], "deeper than 64 directories: d/d"),
    "root as a file": ([member(".", b"x")], "a file in place of the archive's root: ."),
    "file named as a directory": (
        [member("a/", b"x", type=tarfile.REGTYPE)],
        "a file with the name of a directory: a/",
    ),
    "setuid": ([member("su", b"", mode=0o4755)], "setuid, setgid or sticky bit: su"),
    "setgid": ([member("sg", b"", mode=0o2755)], "setuid, setgid or sticky bit: sg"),
    "sticky directory": ([directory("tmp", 0o1777)], "setuid, setgid or sticky bit: tmp"),
    "setuid hard link": ([GOOD, member("h", type=tarfile.LNKTYPE, linkname="good", mode=0o4755)], "setuid"),
    "character device": ([member("null", type=tarfile.CHRTYPE)], "a character device: null"),
    "block device": ([member("sda", type=tarfile.BLKTYPE)], "a block device: sda"),
    "FIFO": ([member("pipe", type=tarfile.FIFOTYPE)], "a FIFO: pipe"),
    "unknown type": ([member("odd", type=b"Z")], "an entry of unknown type b'Z': odd"),
    "GNU sparse": ([member("s", type=tarfile.GNUTYPE_SPARSE)], "a sparse file: s"),
    "pax sparse": ([member("s", b"", pax_headers={"GNU.sparse.major": "1"})], "a sparse file: s"),
    "duplicate": ([member("a", b"1"), member("./a", b"2")], "duplicate name (of a file): ./a"),
    "directory over file": ([member("a", b"1"), directory("a")], "duplicate name (of a file): a"),
    "file over directory": ([directory("a"), member("a", b"")], "duplicate name (of a directory): a"),
    "file over implied directory": ([member("a/b", b""), member("a", b"")], "duplicate name (of a directory): a"),
    "link over file": ([member("a", b""), symlink("a", "b")], "duplicate name (of a file): a"),
    "file over link": ([symlink("a", "b"), member("a", b"")], "duplicate name (of a symbolic link): a"),
    "file as a directory": ([member("a", b""), member("a/b", b"")], "a file where a directory is needed: a/b"),
    "absolute link": ([symlink("l", "/etc")], "symbolic link that leaves the directory: l"),
    "link up": ([symlink("l", "..")], "symbolic link that leaves the directory: l"),
    "link up and down": ([symlink("d/l", "../../out/x")], "symbolic link that leaves the directory: d/l"),
    "empty link": ([symlink("l", "")], "symbolic link with a malformed target: l"),
    "link with a backslash": ([symlink("l", "..\\x")], "symbolic link with a malformed target: l"),
    "through a link": ([symlink("l", "d"), member("l/x", b"")], "would be written through a symbolic link: l/x"),
    "directory through a link": (
        [symlink("l", "d"), directory("l/x/y")],
        "would be written through a symbolic link: l/x/y",
    ),
    "up through a link": (
        [directory("b"), symlink("b/a", ".."), symlink("b/l", "a/../x")],
        "symbolic link that leaves the directory: b/l",
    ),
    "up through a later link": (
        [symlink("l", "a/b/../x"), directory("a"), symlink("a/b", "..")],
        "symbolic link that leaves the directory: l",
    ),
    "up through what is missing": ([symlink("l", "a/b/../../..")], "symbolic link that leaves the directory: l"),
    "link to itself": ([symlink("l", "l")], "symbolic link that leads through too many others: l"),
    "links in a ring": ([symlink("a", "b"), symlink("b", "a")], "symbolic link that leads through too many others: a"),
    "links that multiply": (
        [symlink("0", "."), *(symlink(str(n), f"{n - 1}/{n - 1}") for n in range(1, 60))],
        "symbolic link that leads through too many others",
    ),
    "hard link up": ([hardlink("h", "../x")], "hard link that leaves the directory (path traversal: ../x): h"),
    "absolute hard link": ([hardlink("h", "/etc/passwd")], "hard link that leaves the directory (absolute path"),
    "hard link to nothing": ([hardlink("h", "x")], "hard link to what is no file of this archive before it: h"),
    "hard link to a directory": ([directory("d"), hardlink("h", "d")], "hard link to what is no file"),
    "hard link to a link": ([symlink("l", "x"), hardlink("h", "l")], "hard link to what is no file"),
    "hard link through a link": (
        [symlink("l", "d"), member("d/f", b""), hardlink("h", "l/f")],
        "hard link to what is no file of this archive before it: h",
    ),
    "link with content": (
        [member("l", b"x" * 600, type=tarfile.SYMTYPE, linkname="x")],
        "claims 600 bytes of content: l",
    ),
    "directory with content": (
        [member("d", b"x", type=tarfile.DIRTYPE)],
        "a directory that claims 1 bytes of content: d",
    ),
    "two pax headers": (
        [member("x", b"9 path=b\n", type=tarfile.XHDTYPE), member("x", b"9 path=c\n", type=tarfile.XHDTYPE), GOOD],
        "two extended headers for one entry: x",
    ),
    "global path": ([member("g", b"9 path=b\n", type=tarfile.XGLTYPE), GOOD], "a global header that sets path: g"),
    "huge header": (
        [member("x", bytes(70_000), type=tarfile.GNUTYPE_LONGNAME), GOOD],
        "an extended header of 70000 bytes",
    ),
    "NUL in a long name": (
        [member("x", b"a\0b\0", type=tarfile.GNUTYPE_LONGNAME), GOOD],
        "NUL in a name: 'a\\x00b'",
    ),
    "negative size": ([member("x", b"11 size=-1\n", type=tarfile.XHDTYPE), GOOD], "negative size: good"),
    "size that is no number": (
        [member("x", b"12 size=1_0\n", type=tarfile.XHDTYPE), GOOD],
        "a malformed extended header",
    ),
    "malformed pax header": ([member("x", b"99 path=b\n", type=tarfile.XHDTYPE), GOOD], "a malformed pax header"),
    "header without its entry": ([member("x", b"9 path=b\n", type=tarfile.XHDTYPE)], "a header without its entry"),
    "control characters": ([member("../a\nb", b"")], "path traversal: '../a\\nb'"),
}


@pytest.mark.parametrize("case", TARS)
def test_hostile_tar(case: str, tmp_path: Path) -> None:
    members, message = TARS[case]
    error = refused(tar_of(GOOD, *members) if members[0] is not GOOD else tar_of(*members), "a.tar", tmp_path)
    assert message in str(error)


def test_negative_size_in_the_header_block(tmp_path: Path) -> None:
    block = bytearray(tar_of(member("a", b"x"), format=tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 12  # base 256, two's complement
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block[:512]):06o}\0 ".encode()
    assert "negative size: a" in str(refused(bytes(block), "a.tar", tmp_path))


ZIPS = {
    "traversal": ([("../x", b"", 0)], "path traversal: ../x"),
    "absolute": ([("/x", b"", 0)], "absolute path: /x"),
    "backslash": ([("..\\x", b"", 0)], "backslash in a name: ..\\x"),
    "drive letter": ([("c:/x", b"", 0)], "drive letter in a name: c:/x"),
    "NUL": ([("a\0b", b"", 0)], "NUL in a name"),
    "duplicate": ([("a", b"1", 0), ("a", b"2", 0)], "duplicate name (of a file): a"),
    "setuid": ([("su", b"", stat.S_IFREG | 0o4755)], "setuid, setgid or sticky bit: su"),
    "FIFO": ([("pipe", b"", stat.S_IFIFO | 0o644)], "a device, FIFO or other special file: pipe"),
    "device": ([("dev", b"", stat.S_IFBLK | 0o644)], "a device, FIFO or other special file: dev"),
    "link up": ([("l", b"../..", stat.S_IFLNK | 0o777)], "symbolic link that leaves the directory: l"),
    "link with a huge target": (
        [("l", b"x" * 5000, stat.S_IFLNK | 0o777)],
        "symbolic link with a target of 5000 bytes",
    ),
    "link named as a directory": ([("l/", b"", stat.S_IFLNK | 0o777)], "a device, FIFO or other special file: l/"),
    "through a link": (
        [("l", b"d", stat.S_IFLNK | 0o777), ("l/x", b"", 0)],
        "would be written through a symbolic link: l/x",
    ),
    "directory with content": ([("d/", b"x", 0)], "a directory with content: d/"),
    "directory not named as one": ([("d", b"", stat.S_IFDIR | 0o755)], "a directory without the name of one: d"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_hostile_zip(case: str, tmp_path: Path) -> None:
    members, message = ZIPS[case]
    assert message in str(refused(zip_of(("good", b"x", 0), *members), "a.zip", tmp_path))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (30, b"bbbb"),
        (8, struct.pack("<H", 8)),
        (14, b"\1\2\3\4"),
        (18, struct.pack("<L", 9)),
        (22, struct.pack("<L", 9)),
    ],
    ids=["name", "method", "CRC", "packed size", "size"],
)
def test_zip_whose_headers_disagree(offset: int, value: bytes, tmp_path: Path) -> None:
    data = zip_of(("aaaa", b"x" * 100, 0), method=zipfile.ZIP_STORED)
    broken = data[:offset] + value + data[offset + len(value) :]
    assert "contradicts the directory: aaaa" in str(refused(broken, "a.zip", tmp_path))


def test_zip_whose_entries_share_their_data(tmp_path: Path) -> None:
    """How a small zip claims petabytes: many entries of the directory point to one member."""
    data = bytearray(zip_of(("a", b"x" * 100, 0), ("a", b"y" * 100, 0), method=zipfile.ZIP_STORED))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    assert "overlaps another entry: a" in str(refused(bytes(data), "a.zip", tmp_path))


def test_zip_whose_entry_quotes_the_next(tmp_path: Path) -> None:
    """The finer way: the data of one member hold the header of the next, so that every name is a different one."""
    data = bytearray(zip_of(("a", b"x" * 100, 0), ("b", b"y" * 100, 0), method=zipfile.ZIP_STORED))
    first, size = data.index(b"PK\1\2"), struct.pack("<L", 131)
    crc = struct.pack("<L", zlib.crc32(data[31 : 31 + 131]))
    data[14:26] = data[first + 16 : first + 28] = crc + size + size
    assert "overlaps another entry: b" in str(refused(bytes(data), "a.zip", tmp_path))


def test_zip_that_holds_more_than_it_claims(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"x" * 1000, 0)))
    central = data.index(b"PK\1\2")
    data[central + 24 : central + 28] = data[22:26] = struct.pack("<L", 10)
    assert "holds more than the 10 bytes it claims: a" in str(refused(bytes(data), "a.zip", tmp_path))


def test_zip_with_a_wrong_crc(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"x" * 1000, 0), method=zipfile.ZIP_STORED))
    data[31 + 500] ^= 1
    assert "wrong length or CRC): a" in str(refused(bytes(data), "a.zip", tmp_path))


def test_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"x" * 1000, 0)))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    error = refused(bytes(data), "a.zip", tmp_path)
    assert isinstance(error, BadArchive)
    assert str(error) == "encrypted: a"


SEVENZIPS = {
    "traversal": ([("../x", b"y", 0)], "path traversal: ../x"),
    "absolute": ([("/x", b"y", 0)], "absolute path: /x"),
    "backslash, which py7zr takes for a slash": ([("..\\x", b"y", 0)], "path traversal: ../x"),
    "drive letter": ([("c:/x", b"y", 0)], "drive letter in a name: c:/x"),
    "duplicate": ([("a", b"1", 0), ("./a", b"2", 0)], "duplicate name: ./a"),
    "file over directory": ([("a/b", b"1", 0), ("a", b"2", 0)], "duplicate name (of a directory): a"),
    "file as a directory": ([("a", b"1", 0), ("a/b", b"2", 0)], "a file where a directory is needed: a/b"),
    "setuid": ([("su", b"y", stat.S_IFREG | 0o4755)], "setuid, setgid or sticky bit: su"),
    "FIFO": ([("pipe", b"y", stat.S_IFIFO | 0o644)], "a device, FIFO or other special file: pipe"),
    "socket": ([("sock", b"y", stat.S_IFSOCK | 0o644)], "a device, FIFO or other special file: sock"),
    "link up": ([("l", b"../..", stat.S_IFLNK | 0o777)], "symbolic link that leaves the directory: l"),
    "link with a huge target": (
        [("l", b"x" * 5000, stat.S_IFLNK | 0o777)],
        "symbolic link with a target of 5000 bytes: l",
    ),
    "through a link": (
        [("l", b"d", stat.S_IFLNK | 0o777), ("l/x", b"y", 0)],
        "would be written through a symbolic link: l/x",
    ),
    "directory with content": ([("d", b"y", stat.S_IFDIR | 0o755)], "a directory with content: d"),
}


@pytest.mark.parametrize("case", SEVENZIPS)
def test_hostile_7z(case: str, tmp_path: Path) -> None:
    members, message = SEVENZIPS[case]
    data = sevenzip_of(tmp_path / "made.7z", [("good", b"x", 0), *members]).read_bytes()
    (tmp_path / "made.7z").unlink()
    assert message in str(refused(data, "a.7z", tmp_path))


@pytest.mark.parametrize("header", [False, True])
def test_encrypted_7z(header: bool, tmp_path: Path) -> None:
    made = sevenzip_of(tmp_path / "a.7z", [("a", b"x", 0)], password="secret", header_encryption=header)
    data = made.read_bytes()
    made.unlink()
    error = refused(data, "a.7z", tmp_path)
    assert isinstance(error, BadArchive)
    assert str(error) == "encrypted"


@pytest.mark.parametrize(
    "coder", [b"\x03\x04\x01", b"\x04\xf7\x11\x02", b"\x04\x01\x09"], ids=["PPMd", "Brotli", "Deflate64"]
)
def test_7z_of_a_coder_that_is_not_trusted(coder: bytes, tmp_path: Path) -> None:
    """The first corrupts the heap of the process if the archive is malformed, and the process may be root's."""
    bzip2 = [{"id": py7zr.FILTER_BZIP2}] if len(coder) == 3 else [{"id": py7zr.FILTER_ZSTD, "level": 1}]
    data = sevenzip_of(tmp_path / "a", [("a", b"x", 0)], filters=bzip2, plain=True).read_bytes()
    (tmp_path / "a").unlink()
    standing = b"\x04\x02\x02" if len(coder) == 3 else b"\x04\xf7\x11\x01"
    assert data.count(standing) == 1
    lie = with_directory(data, data.replace(standing, coder))
    assert f"an unsupported compression method ({coder.hex()})" in str(refused(lie, "a.7z", tmp_path))


def test_7z_whose_directory_is_packed_by_a_coder_that_is_not_trusted(tmp_path: Path) -> None:
    data = sevenzip_of(tmp_path / "a", [("a", b"x", 0)], filters=[{"id": py7zr.FILTER_BZIP2}]).read_bytes()
    (tmp_path / "a").unlink()
    start = 32 + struct.unpack_from("<Q", data, 12)[0]
    assert data[start:].count(b"\x21\x21\x01") == 1  # one coder, its name of one byte, with one property
    lie = with_directory(data, data[:start] + data[start:].replace(b"\x21\x21\x01", b"\x21\x22\x01"))
    assert "an unsupported compression method (22)" in str(refused(lie, "a.7z", tmp_path))


# ------------------------------------------------------------- anything at all: refused, or inside of the directory

parts = st.sampled_from(["..", ".", "", "a", "b", "c", "A", "..\\", "C:", "...", "outside"])
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
entries = st.lists(st.tuples(paths, kinds, paths), min_size=1, max_size=8)
tame = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
links = st.lists(st.sampled_from(["..", "a", "b", "c"]), min_size=1, max_size=4).map("/".join)
tame_entries = st.lists(st.tuples(tame, kinds, links), min_size=1, max_size=8, unique_by=lambda entry: entry[0])


@settings(max_examples=200, deadline=None)
@given(entries | tame_entries, st.sampled_from([".tar", ".zip"]))
def test_whatever_it_holds_it_stays_inside(members: list[tuple[str, bytes, str]], suffix: str) -> None:
    """The judge is the kernel: what was placed, and where every link leads, as `realpath` sees it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve() / "place"
        (place / "inner").mkdir(parents=True)
        (place / "outside").write_text("untouched")
        archive, out = place / "inner" / f"a{suffix}", place / "inner" / "out"
        archive.write_bytes(_strange(members, suffix))
        outside = look(place)
        accepted = True
        try:
            extract(archive, out, durable=False)
        except ArchiveError:
            accepted = False
        assert {name: what for name, what in look(place).items() if not name.startswith("inner/out")} == outside
        assert out.exists() == accepted
        for path in out.rglob("*"):
            assert Path(os.path.realpath(path)).is_relative_to(out), path
            assert not path.is_symlink() or not path.readlink().is_absolute()


def _strange(members: list[tuple[str, bytes, str]], suffix: str) -> bytes:
    if suffix == ".tar":
        content = b"content"
        return tar_of(
            *(member(n, content if t == tarfile.REGTYPE else None, type=t, linkname=to) for n, t, to in members)
        )
    links = {tarfile.SYMTYPE: stat.S_IFLNK | 0o777}
    return zip_of(*((n, to.encode() if t in links else b"", links.get(t, 0)) for n, t, to in members))


def test_7z_whose_directory_is_a_bomb(tmp_path: Path) -> None:
    """It is refused for what it claims, before it is unpacked."""
    packed = io.BytesIO()
    with py7zr.SevenZipFile(packed, "w") as out:
        out.writestr(b"x", "name")
        out.header.files_info.files[-1]["filename"] = "n" * 400_000
    assert len(packed.getvalue()) < 2000
    error = refused(packed.getvalue(), "a.7z", tmp_path, Limits(entries=1000))
    assert isinstance(error, UnsafeArchive)
    assert "a directory of 800" in str(error)
