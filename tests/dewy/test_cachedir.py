"""`dewy.cachedir`: which directory, and what is whose in it."""

import multiprocessing
import os
import stat
import tempfile
from pathlib import Path

import pytest

from dewy.cachedir import OWNER, choose, make_usable, place_of

FORK = multiprocessing.get_context("fork")


def test_the_variable_then_the_working_directory(tmp_path: Path) -> None:
    wanted = tmp_path / "var" / "cache"
    assert choose({"DEWY_CACHEDIR": str(wanted)}, tmp_path).path == wanted
    assert choose({"DEWY_CACHEDIR": ""}, tmp_path).path == tmp_path / ".dewy" / "cache"
    assert choose({"DEWY_CACHEDIR": "relative"}, tmp_path).path == tmp_path / "relative"
    assert wanted.is_dir() and stat.S_IMODE(wanted.stat().st_mode) & 0o700 == 0o700


def test_a_temporary_directory_and_the_reason_where_it_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    chosen = choose({"DEWY_CACHEDIR": str(tmp_path / "file")}, tmp_path)
    assert chosen.path.is_dir() and chosen.path.name.startswith("dewy-")
    assert chosen.problem is not None and str(tmp_path / "file") in chosen.problem and "ls -ld" in chosen.problem
    chosen.path.rmdir()


def problem_of_somebody_else(directory: Path, answers) -> None:
    if os.geteuid() == 0:  # who may write anywhere
        os.setgid(65534)
        os.setuid(65534)
    answers.put(make_usable(directory))


def test_missing_permission_names_the_command_that_mends_it() -> None:
    with tempfile.TemporaryDirectory() as parent:  # not tmp_path, which others cannot even see
        Path(parent).chmod(0o555)
        wanted = Path(parent) / "a b"
        answers = FORK.SimpleQueue()
        child = FORK.Process(target=problem_of_somebody_else, args=(wanted, answers))
        child.start()
        child.join(20)
        problem = answers.get()
        Path(parent).chmod(0o755)
    assert "permission denied" in problem and "\n" not in problem
    assert f"sudo mkdir -p '{wanted}' && sudo chown -R " in problem


def test_current_is_written_whole_and_without_a_newline(tmp_path: Path) -> None:
    place = place_of(tmp_path, "ghr://o/r", Path("/srv/app"))
    place.write_current("v1--app.tar.gz")
    place.write_current("v2--app.tar.gz")
    assert (tmp_path / "current").read_bytes() == b"v2--app.tar.gz"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".dewy", "current"]


def test_two_applications_do_not_touch_each_other(tmp_path: Path) -> None:
    """C12."""
    first = place_of(tmp_path, "ghr://o/one", Path("/srv/one"))
    second = place_of(tmp_path, "ghr://o/two", Path("/srv/two"))
    first.write_current("v1--app.tar.gz")
    second.write_current("v9--app.tar.gz")
    assert (tmp_path / "current").read_text() == "v1--app.tar.gz"
    assert second.current.read_text() == "v9--app.tar.gz"
    assert first.artifact_prefix == "" and second.artifact_prefix.startswith("apps/")
    # For good: the order of later starts does not matter.
    assert place_of(tmp_path, "ghr://o/two", Path("/srv/two")) == second
    assert place_of(tmp_path, "ghr://o/one", Path("/srv/one")) == first


def test_one_registry_under_two_roots_shares_artifacts_only(tmp_path: Path) -> None:
    blue = place_of(tmp_path, "ghr://o/r", Path("/srv/blue"))
    green = place_of(tmp_path, "ghr://o/r", Path("/srv/green"))
    assert blue.artifact_prefix == green.artifact_prefix == ""
    assert blue.current != green.current


def claim(directory: Path, number: int, answers) -> None:
    answers.put((number, place_of(directory, f"file:///r{number}", Path("/srv"))))


def test_of_many_that_come_first_together_one_owns_the_top(tmp_path: Path) -> None:
    answers = FORK.SimpleQueue()
    children = [FORK.Process(target=claim, args=(tmp_path, number, answers)) for number in range(8)]
    for child in children:
        child.start()
    places = dict(answers.get() for _ in children)
    for child in children:
        child.join(20)
    assert len({place.current for place in places.values()}) == 8
    assert sum(place.current == tmp_path / "current" for place in places.values()) == 1
    assert sum(place.artifact_prefix == "" for place in places.values()) == 1
    assert [path.name for path in (tmp_path / OWNER).parent.iterdir()] == ["owner"]


@pytest.mark.parametrize("content", ["", "torn", "\udcff"])
def test_an_owner_that_cannot_be_read_leaves_the_top_to_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / OWNER
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert place_of(tmp_path, "ghr://o/r", Path("/srv")).current != tmp_path / "current"
