"""The policy's decisions, without a disk: names, links, and file systems that take two names for one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewy.archive.limits import Limits, Meter
from dewy.archive.policy import Admitted, Entry, Kind, Tree, exact, folded, split
from dewy.archive.writer import Writer, ignores_case
from dewy.errors import UnsafeArchive

LIMITS = Limits()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ["a"]),
        ("./a//b/", ["a", "b"]),
        (".", []),
        ("...", ["..."]),
        ("..a/b..", ["..a", "b.."]),
        ("ab:c", ["ab:c"]),
    ],
)
def test_split(name: str, parts: list[str]) -> None:
    assert split(name, LIMITS) == parts


def test_names_of_lone_surrogates_are_refused_where_they_cannot_be_written() -> None:
    with pytest.raises(UnsafeArchive, match="cannot write"):
        split("\ud800", LIMITS)
    with pytest.raises(UnsafeArchive, match="cannot write"):
        Tree(LIMITS).admit(Entry("l", Kind.SYMLINK, target="\ud800"))
    assert split("\udcff", LIMITS) == ["\udcff"]  # a byte that is no UTF-8


def test_parents_are_made_once() -> None:
    tree = Tree(LIMITS)
    assert tree.admit(Entry("a/b/c", Kind.FILE)) == Admitted("a/b/c", ("a", "a/b"))
    assert tree.admit(Entry("a/b/d", Kind.FILE)) == Admitted("a/b/d")
    assert tree.admit(Entry("a/e/f", Kind.DIRECTORY)) == Admitted("a/e/f", ("a/e",))
    assert tree.admit(Entry("a", Kind.DIRECTORY)) == Admitted("a")


@pytest.mark.parametrize(
    ("first", "second"),
    [("README", "readme"), ("é", "e\u0301"), ("ẞ", "ss"), ("a/B", "A/b"), ("\u1e9b\u0323", "\u1e9b\u0323")],
)
def test_names_that_some_file_systems_take_for_one(first: str, second: str) -> None:
    for key, same in ((folded, True), (exact, first == second)):
        tree = Tree(LIMITS, key)
        tree.admit(Entry(first, Kind.FILE))
        if same:
            with pytest.raises(UnsafeArchive, match="duplicate name"):
                tree.admit(Entry(second, Kind.FILE))
        else:
            tree.admit(Entry(second, Kind.FILE))


def test_through_a_link_of_another_case() -> None:
    """The trick that once ran code in git: a link `A`, and a file `a/x`."""
    tree = Tree(LIMITS, folded)
    tree.admit(Entry("A", Kind.SYMLINK, target="dir"))
    with pytest.raises(UnsafeArchive, match="through a symbolic link: a/x"):
        tree.admit(Entry("a/x", Kind.FILE))
    tree.admit(Entry("dir/up", Kind.SYMLINK, target=".."))
    tree.admit(Entry("l", Kind.SYMLINK, target="a/UP/.."))
    with pytest.raises(UnsafeArchive, match="leaves the directory: l"):
        tree.symlinks()


def test_the_file_system_is_asked_for_its_idea_of_names(tmp_path: Path) -> None:
    plain = tmp_path / "probe"
    plain.mkdir()
    assert not ignores_case(plain)
    (tmp_path / "PROBE").symlink_to("probe")  # what a file system that ignores case would show
    assert ignores_case(plain)


def test_a_name_the_tree_does_not_know_is_never_replaced(tmp_path: Path) -> None:
    """The last net: whatever a file system takes for equal, what is there is kept."""
    (tmp_path / "a").write_text("first")
    with (
        Writer(tmp_path, Meter(LIMITS, 1), LIMITS) as writer,
        pytest.raises(UnsafeArchive, match="takes for an earlier"),
    ):
        writer.file(Entry("a", Kind.FILE))
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to("../outside")
    with (
        Writer(tmp_path, Meter(LIMITS, 1), LIMITS) as writer,
        pytest.raises(UnsafeArchive, match="takes for an earlier"),
    ):
        writer.file(Entry("a", Kind.FILE))
    assert not (tmp_path.parent / "outside").exists()


def test_forty_hops_are_enough_for_anybody() -> None:
    tree = Tree(LIMITS)
    tree.admit(Entry("0", Kind.FILE))
    for number in range(1, 41):
        tree.admit(Entry(str(number), Kind.SYMLINK, target=str(number - 1)))
    assert len(tree.symlinks()) == 40
    tree.admit(Entry("41", Kind.SYMLINK, target="40"))
    with pytest.raises(UnsafeArchive, match="through too many others: 41"):
        tree.symlinks()


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
targets = st.lists(st.sampled_from(["..", ".", "a", "b", "c"]), min_size=1, max_size=5).map("/".join)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(paths, targets | st.none(), min_size=1, max_size=8))
def test_links_are_judged_as_the_kernel_follows_them(nodes: dict[str, str | None]) -> None:
    """Where the policy says yes, `realpath` stays inside; where it says no, it leaves or leads nowhere."""
    tree = Tree(LIMITS)
    admitted: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve() / "root"
        root.mkdir()
        for path, target in nodes.items():
            try:
                tree.admit(Entry(path, Kind.DIRECTORY if target is None else Kind.SYMLINK, target=target or ""))
            except UnsafeArchive:
                continue
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                (root / path).mkdir(exist_ok=True)
            else:
                (root / path).symlink_to(target)
                admitted.append((path, target))
        try:
            tree.symlinks()
        except UnsafeArchive as error:
            refused = root / str(error.entry)
            assert not Path(os.path.realpath(refused)).is_relative_to(root) or not refused.exists()
        else:
            for path, _ in admitted:
                assert Path(os.path.realpath(root / path)).is_relative_to(root), path
