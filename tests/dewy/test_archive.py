"""What dewy unpacks, it unpacks as it was packed: every format, names, modes, links, times, and plain programs."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewy.archive import Extracted, extract, is_archive
from dewy.errors import BadArchive
from tests.dewy.archives import COMPRESS, FORMATS, directory, hardlink, look, member, pack, symlink, tar_of, zip_of


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "share" / "größe 文").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o700)
    (root / "bin" / "app").write_bytes(os.urandom(150_000) + bytes(2_350_000))
    (root / "bin" / "app").chmod(0o755)
    (root / "share" / "größe 文" / "naïve\n.txt").write_text("text")
    (root / "secret").write_text("s")
    (root / "secret").chmod(0o600)
    (root / "nothing").touch(0o644)
    (root / "run").symlink_to("bin/app")
    (root / "share" / "up").symlink_to("../bin")
    for path in root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.mark.parametrize("suffix", FORMATS)
def test_unpacks_what_was_packed(suffix: str, tree: Path, tmp_path: Path) -> None:
    archive = pack(tree, tmp_path / f"app{suffix}")
    out = tmp_path / "out"
    extracted = extract(archive, out)
    assert look(out) == look(tree)
    assert (out / "bin" / "app").stat().st_mtime == 1_700_000_000
    assert extracted.path == out
    assert extracted.size == 2_500_005
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([archive.name, "out", "tree"])


@pytest.mark.parametrize("suffix", [".TAR.GZ", ".Tgz", ".ZIP", ".7Z", ".tar.ZST"])
def test_suffix_in_any_case_and_apart_from_the_file(suffix: str, tree: Path, tmp_path: Path) -> None:
    archive = pack(tree, tmp_path / f"app{suffix}").rename(tmp_path / "v1--blob")
    extract(archive, tmp_path / "out", name=f"app{suffix}")
    assert look(tmp_path / "out") == look(tree)


names = st.text(st.characters(exclude_characters="/\\\0@", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and name[1:2] != ":"
)
LINK = object()
trees = st.dictionaries(
    names,
    st.recursive(
        st.binary(max_size=2000) | st.just(LINK), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8
    ),
    min_size=1,
    max_size=5,
)


def fill(root: Path, content: dict[str, object], mode: int) -> None:
    """Makes a directory of files, directories, and links to the file "@" that stands in each of them."""
    root.mkdir()
    (root / "@").touch()
    for name, what in content.items():
        path = root / name
        if isinstance(what, dict):
            fill(path, what, mode)
        elif isinstance(what, bytes):
            path.write_bytes(what)
            path.chmod(mode)
        else:
            path.symlink_to("./@")
    root.chmod(mode | stat.S_IRWXU)


@settings(max_examples=60, deadline=None)
@given(content=trees, mode=st.integers(0, 0o777), suffix=st.sampled_from(FORMATS))
def test_any_tree_survives_any_format(content: dict[str, object], mode: int, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        fill(place / "tree", content, mode)
        archive = pack(place / "tree", place / f"a{suffix}")
        extract(archive, place / "out", durable=False)
        assert look(place / "out") == look(place / "tree")


def unpack(data: bytes, tmp_path: Path, name: str) -> Path:
    (tmp_path / name).write_bytes(data)
    return extract(tmp_path / name, tmp_path / "out").path


def test_a_link_to_what_is_yet_to_come(tmp_path: Path) -> None:
    out = unpack(tar_of(symlink("run/app.pid", "../tmp/app.pid")), tmp_path, "a.tar")
    assert look(out)["run/app.pid"] == ("link", "../tmp/app.pid")


def test_hard_links_stay_one_file(tmp_path: Path) -> None:
    """R9."""
    out = unpack(tar_of(member("d/a", b"same"), hardlink("b", "d/a"), hardlink("c", "b")), tmp_path, "a.tar")
    assert (out / "c").read_bytes() == b"same"
    assert (out / "c").samefile(out / "d" / "a")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_dialect(format: int, tmp_path: Path) -> None:
    long = "/".join(["d" * 70, "d" * 70, "n" * 60])
    out = unpack(tar_of(member(long, b"x"), symlink("l", "t" * 90), format=format), tmp_path, "a.tar")
    assert (out / long).read_bytes() == b"x"
    assert (out / "l").readlink() == Path("t" * 90)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_longer_names_than_a_header_holds(format: int, tmp_path: Path) -> None:
    long = "/".join(["d" * 200] * 3)
    out = unpack(tar_of(member(long, b"x"), symlink("l", long), format=format), tmp_path, "a.tar")
    assert (out / "l").read_bytes() == b"x"


def test_a_comment_for_all_entries_is_fine(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", pax_headers={"comment": "0123abcd"}) as out:  # as git archive does
        info, content = member("a", b"x")
        out.addfile(info, io.BytesIO(content))
    assert look(unpack(data.getvalue(), tmp_path, "a.tar")) == {"a": ("file", 0o644, b"x")}


def test_modes_that_would_lock_the_owner_out(tmp_path: Path) -> None:
    out = unpack(tar_of(directory("d", 0), member("d/f", b"x", mode=0o007)), tmp_path, "a.tar")
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "d" / "f").stat().st_mode) == 0o607


def test_a_directory_told_after_its_content(tmp_path: Path) -> None:
    out = unpack(tar_of(member("d/f", b"x"), directory("d", 0o711), directory("d/", 0o701)), tmp_path, "a.tar")
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o701


def test_names_that_differ_in_case_where_the_file_system_tells_them_apart(tmp_path: Path) -> None:
    out = unpack(tar_of(member("README", b"1"), member("readme", b"2")), tmp_path, "a.tar")
    assert sorted(path.name for path in out.iterdir()) == ["README", "readme"]


def test_zip_from_windows(tmp_path: Path) -> None:
    out = unpack(zip_of(("d/", b"", 0), ("d/app.exe", b"x", 0o777), system=0), tmp_path, "a.zip")
    assert look(out) == {"d": ("directory", 0o755), "d/app.exe": ("file", 0o644, b"x")}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip_methods(method: int, tmp_path: Path) -> None:
    content = os.urandom(300_000) + bytes(300_000)
    out = unpack(zip_of(("f", content, 0o755), ("e", b"", 0o644), method=method), tmp_path, "a.zip")
    assert (out / "f").read_bytes() == content
    assert (out / "e").read_bytes() == b""


def test_zip_of_the_usual_tool_in_a_bare_locale(tmp_path: Path) -> None:
    """Info-ZIP leaves UTF-8 names unmarked unless the locale says UTF-8."""
    (tmp_path / "größe").write_text("x")
    subprocess.run(["zip", "-q", "a.zip", "größe"], cwd=tmp_path, env={**os.environ, "LC_ALL": "C"}, check=True)
    extract(tmp_path / "a.zip", tmp_path / "out")
    assert list(look(tmp_path / "out")) == ["größe"]


def test_zip_written_to_a_pipe(tmp_path: Path) -> None:
    """Sizes then stand behind the data."""
    (tmp_path / "f").write_bytes(b"x" * 5000)
    data = subprocess.run(["zip", "-q", "-", "f"], cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout
    assert (unpack(data, tmp_path, "a.zip") / "f").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_joined_and_padded_streams(suffix: str, tmp_path: Path) -> None:
    plain = tar_of(member("a", b"x" * 100_000))
    data = COMPRESS[suffix](plain[:70_001]) + bytes(64) + COMPRESS[suffix](plain[70_001:]) + bytes(1024)
    assert (unpack(data, tmp_path, f"a{suffix}") / "a").read_bytes() == b"x" * 100_000


@pytest.mark.parametrize("name", ["app", "app_linux_amd64", "app.bin", "app-1.2.3"])
def test_a_program_is_deployed_as_itself(name: str, tmp_path: Path) -> None:
    blob = tmp_path / "v1--blob"
    blob.write_bytes(b"#!/bin/sh\necho hello\n")
    extracted = extract(blob, tmp_path / "out", name=name)
    assert extracted == Extracted(tmp_path / "out", 1, 21)
    assert subprocess.run([tmp_path / "out" / name], capture_output=True, check=True).stdout == b"hello\n"
    assert not is_archive(name)


@pytest.mark.parametrize("name", ["app.gz", "app.tar.lz4", "app.RAR"])
def test_a_format_that_is_not_read_is_no_program(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="unsupported archive format"):
        unpack(b"x", tmp_path, name)


def test_the_destination_may_be_empty_but_not_full(tmp_path: Path) -> None:
    data = tar_of(member("a", b"x"))
    (tmp_path / "out").mkdir()
    unpack(data, tmp_path, "a.tar")
    with pytest.raises(OSError, match="not empty"):
        unpack(data, tmp_path, "a.tar")
    assert list(look(tmp_path)) == ["a.tar", "out", "out/a"]


def test_py7zr_is_imported_only_for_a_7z() -> None:
    code = "import sys, dewy.archive, dewy.release; sys.exit('py7zr' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
