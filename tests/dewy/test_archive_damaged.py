"""Archives that are broken, by chance or by somebody who knows how: refused, or as they were; never half there."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dewy.archive import extract
from dewy.errors import ArchiveError, BadArchive
from tests.dewy.archives import (
    COMPRESS,
    FORMATS,
    directory,
    hardlink,
    look,
    member,
    pack,
    refused,
    sevenzip_of,
    symlink,
    tar_of,
    with_directory,
    zip_of,
)

GOOD = member("good", b"x")
CONTENT = bytes(range(256)) * 3


def _damaged(suffix: str) -> bytes:
    if suffix == ".zip":
        return zip_of(("a", CONTENT, 0o644), ("b", CONTENT[::-1], 0o644))
    if suffix == ".7z":
        with tempfile.TemporaryDirectory() as place:
            return sevenzip_of(Path(place) / "a.7z", [("a", CONTENT, 0), ("b", CONTENT[::-1], 0)]).read_bytes()
    if suffix == ".tar.zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(
            tar_of(member("a", CONTENT), member("b", CONTENT[::-1]))
        )
    return tar_of(member("a", CONTENT), member("b", CONTENT[::-1]), suffix=suffix)


DAMAGED = {suffix: _damaged(suffix) for suffix in [".tar.gz", ".tar.xz", ".tar.zst", ".zip", ".7z"]}


def _lying(suffix: str) -> bytes:
    entries = [("a", b"x" * 700, stat.S_IFREG | 0o644), ("d/b", b"y", 0), ("l", b"a", stat.S_IFLNK | 0o777)]
    if suffix == ".zip":
        return zip_of(*entries, ("e/", b"", stat.S_IFDIR | 0o755))
    if suffix == ".7z":
        with tempfile.TemporaryDirectory() as place:
            return sevenzip_of(Path(place) / "a.7z", entries, plain=True).read_bytes()
    return tar_of(
        member("a", b"x" * 700), directory("d"), symlink("l", "a"), hardlink("h", "a"), member("n" * 150, b"y")
    )


LYING = {suffix: _lying(suffix) for suffix in [".tar", ".zip", ".7z"]}


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_anywhere(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(4):
        (tmp_path / "tree" / f"f{number}").write_bytes(os.urandom(700) + bytes(700))
    data = pack(tmp_path / "tree", tmp_path / f"a{suffix}").read_bytes()
    for cut in [0, 1, 5, *range(20, len(data) - 1, len(data) // 25), len(data) - 1]:
        if suffix == ".tar" and len(data[:cut].rstrip(b"\0")) + 1024 <= cut:
            break  # with one block of zeros it is a whole tar
        assert isinstance(refused(data[:cut], f"a{suffix}", tmp_path), BadArchive), cut


def test_a_tar_cut_between_two_entries(tmp_path: Path) -> None:
    """The one cut that leaves only whole entries; `tarfile` takes it for the end."""
    data = tar_of(member("a", b"x"), member("b", b"y"), format=tarfile.USTAR_FORMAT)
    assert "no end mark" in str(refused(data[:1024], "a.tar", tmp_path))


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    data = bytearray(tar_of(member("a", b"x"), member("b", b"y"), format=tarfile.USTAR_FORMAT))
    data[1024 + 3] ^= 1
    assert "bad checksum" in str(refused(bytes(data), "a.tar", tmp_path))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_data_behind_the_end(suffix: str, tmp_path: Path) -> None:
    assert isinstance(refused(tar_of(GOOD, suffix=suffix) + b"#!/bin/sh\n", f"a{suffix}", tmp_path), BadArchive)
    twice = COMPRESS[suffix](tar_of(GOOD) + tar_of(member("evil", b"x")))
    assert "data behind its end" in str(refused(twice, f"a{suffix}", tmp_path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_archive_of_another_kind(suffix: str, tmp_path: Path) -> None:
    assert isinstance(refused(b"<html>not found</html>" * 100, f"a{suffix}", tmp_path), BadArchive)
    assert isinstance(refused(b"", f"a{suffix}", tmp_path), BadArchive)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_archive_of_nothing(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    if suffix in COMPRESS:
        data = tar_of(suffix=suffix)
    else:
        data = pack(tmp_path / "tree", tmp_path / f"a{suffix}").read_bytes()
    assert str(refused(data, f"a{suffix}", tmp_path)) == "the archive holds nothing"


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from([".tar.gz", ".tar.xz", ".tar.zst", ".zip", ".7z"]), data=st.data())
def test_a_flipped_byte_is_noticed_or_harmless(suffix: str, data: st.DataObject) -> None:
    """Formats with check sums: content that differs is never deployed, and no other error than ours comes out."""
    original = DAMAGED[suffix]
    at = data.draw(st.integers(0, len(original) - 1), label="at")
    mask = data.draw(st.integers(1, 255), label="mask")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / f"a{suffix}").write_bytes(original[:at] + bytes([original[at] ^ mask]) + original[at + 1 :])
        try:
            extract(place / f"a{suffix}", place / "out", durable=False)
        except ArchiveError:
            assert list(look(place)) == [f"a{suffix}"]
        else:
            contents = [what[2] for what in look(place / "out").values() if what[0] == "file"]
            assert sorted(contents) == sorted([CONTENT, CONTENT[::-1]])


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from([".tar", ".zip", ".7z"]), data=st.data())
def test_lies_with_the_right_check_sums(suffix: str, data: st.DataObject) -> None:
    """What somebody writes who knows the format: fields changed at will, and check sums made to fit."""
    lie = bytearray(LYING[suffix])
    start = {".tar": 0, ".zip": lie.find(b"PK\1\2"), ".7z": 32 + struct.unpack_from("<Q", lie, 12)[0]}[suffix]
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        at = data.draw(st.integers(start, len(lie) - 1), label="at")
        lie[at] = data.draw(st.sampled_from([0, 1, 0x20, 0x2F, 0x37, 0x7F, 0x80, 0xFF]), label="value")
        if suffix == ".tar":
            block = at // 512 * 512
            lie[block + 148 : block + 156] = b" " * 8
            lie[block + 148 : block + 156] = f"{sum(lie[block : block + 512]):06o}\0 ".encode()
    if suffix == ".7z":
        lie = bytearray(with_directory(bytes(lie), bytes(lie)))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / f"a{suffix}").write_bytes(lie)
        try:
            extract(place / f"a{suffix}", place / "out", durable=False)
        except ArchiveError:
            assert list(look(place)) == [f"a{suffix}"]
