"""A deployer that is killed at any step of unpacking, switching or pruning, or whose disk is full: the current release
is the old one or the new one, whole, and the next start tidies up by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dewy.errors import DeployError
from dewy.release import Info, Release, Releases
from tests.crash import dying
from tests.crash.dying import crashes
from tests.crash.full_disk import Disk, small_disk
from tests.dewy.archives import directory, hardlink, look, member, pack, symlink, tar_of

Tree = dict[str, tuple[object, ...]]


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking takes some steps that a store does not."""
    monkeypatch.setattr(dying, "STEPS", (*dying.STEPS, "rename", "symlink", "link", "chmod", "fchmod", "close"))


class Version:
    """An artifact and what it unpacks to."""

    def __init__(self, place: Path, tag: str, suffix: str) -> None:
        self.name = f"app{suffix}"
        self.info = Info(f"{tag}--{self.name}", tag)
        self.path = place / f"{tag}{suffix}"
        self.tree: Tree = {
            "bin": ("directory", 0o755),
            "bin/app": ("file", 0o755, tag.encode() * 5000),
            "run": ("link", "bin/app"),
            "version": ("file", 0o644, tag.encode()),
        }
        tar = tar_of(
            directory("bin"),
            member("bin/app", tag.encode() * 5000, mode=0o755),
            hardlink("again", "bin/app"),
            symlink("run", "bin/app"),
            member("version", tag.encode()),
        )
        if suffix == ".tar":
            self.path.write_bytes(tar)
            self.tree["again"] = self.tree["bin/app"]
        else:
            source = place / f"{tag}-source"
            (source / "bin").mkdir(parents=True)
            (source / "bin" / "app").write_bytes(tag.encode() * 5000)
            (source / "bin" / "app").chmod(0o755)
            (source / "version").write_text(tag)
            (source / "run").symlink_to("bin/app")
            pack(source, self.path)

    def prepare(self, releases: Releases) -> Release:
        return releases.prepare(self.path, self.name, self.info)


def check_whole(releases: Releases, *versions: Version) -> None:
    """Every release there is, and above all the current one, is one of the versions, whole, and says so."""
    trees = {version.info: version.tree for version in versions}
    for release in releases.all():
        assert release.info is not None, f"{release.id} does not say what it is"
        assert look(release.path) == trees[release.info]


def check_tidy(releases: Releases) -> None:
    """Nothing is there but releases, their markers and the lock."""
    ids = [release.id for release in releases.all()]
    found = {path.name for path in releases.directory.iterdir()}
    assert found == {".lock", *ids, *(f".{id}.json" for id in ids)}
    assert {path.name for path in releases.root.iterdir()} <= {"releases", "current"}


@pytest.mark.parametrize("suffix", [".tar", ".zip", pytest.param(".7z", marks=pytest.mark.soak)])
def test_killed_at_any_step_of_a_deploy(suffix: str, tmp_path: Path) -> None:
    old, new = Version(tmp_path, "old", suffix), Version(tmp_path, "new", suffix)
    root = tmp_path / "root"
    Releases(root).switch(old.prepare(Releases(root)))

    def deploy() -> None:
        releases = Releases(root)
        releases.switch(new.prepare(releases))
        releases.prune(2)

    seen: list[Info | None] = []
    for _ in crashes(deploy, at_most=400):
        releases = Releases(root)
        current = releases.deployed()
        assert current is not None
        seen.append(current.info)
        check_whole(releases, old, new)
        releases.sweep()
        check_tidy(releases)
        check_whole(releases, old, new)
        assert releases.deployed() == current
        if current.info == new.info:  # back to how it was
            previous = next((release for release in releases.all() if release.info == old.info), None)
            releases.roll_back(current, previous or old.prepare(releases))
            check_whole(releases, old, new)
        for release in releases.all():
            if release.info == new.info:
                releases.discard(release)
    assert len(seen) > 40
    assert set(seen) == {old.info, new.info}
    assert seen == sorted(seen, key=[old.info, new.info].index)  # old up to the one step that switches, new from there
    check_tidy(Releases(root))
    deployed = Releases(root).deployed()
    assert deployed is not None
    assert deployed.info == new.info


def test_killed_again_and_again_it_does_not_grow(tmp_path: Path) -> None:
    """Without a sweep in between: the next attempt sweeps by itself."""
    old, new = Version(tmp_path, "old", ".tar"), Version(tmp_path, "new", ".tar")
    releases = Releases(tmp_path / "root")
    releases.switch(old.prepare(releases))

    for _ in crashes(lambda: new.prepare(Releases(tmp_path / "root", keep=3)), at_most=400):
        names = [path.name for path in releases.directory.iterdir()]
        assert len([name for name in names if name.startswith(".tmp-")]) <= 2
        assert len(releases.all()) <= 4
    check_whole(releases, old, new)


def roll_back(root: Path, to: Release) -> None:
    releases = Releases(root)
    failed = releases.deployed()
    assert failed is not None
    releases.roll_back(failed, to)


def test_killed_at_any_step_of_a_roll_back(tmp_path: Path) -> None:
    old, new = Version(tmp_path, "old", ".tar"), Version(tmp_path, "new", ".tar")
    releases = Releases(tmp_path / "root")
    first = old.prepare(releases)
    releases.switch(first)
    releases.switch(new.prepare(releases))

    for _ in crashes(lambda: roll_back(tmp_path / "root", first)):
        current = releases.deployed()
        assert current is not None
        check_whole(releases, old, new)
        releases.sweep()
        check_tidy(releases)
        left = [release for release in releases.all() if release.info == new.info]
        releases.switch(left[0] if left else new.prepare(releases))
    assert releases.all() == [first]
    check_tidy(releases)


def test_killed_at_any_step_of_pruning(tmp_path: Path) -> None:
    version = Version(tmp_path, "old", ".tar")
    releases = Releases(tmp_path / "root")
    made = [version.prepare(releases) for _ in range(5)]
    releases.switch(made[1])
    for _ in crashes(lambda: Releases(tmp_path / "root").prune(3)):
        assert releases.deployed() == made[1]
        check_whole(releases, version)
        releases.sweep()
        check_tidy(releases)
        assert {made[0].id, made[1].id} <= {release.id for release in releases.all()}
        while len(releases.all()) < 5:
            version.prepare(releases)
    assert len(releases.all()) == 3
    assert releases.deployed() == made[1]
    check_tidy(releases)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def test_an_artifact_larger_than_the_disk(disk: Disk, tmp_path: Path) -> None:
    old, new = Version(tmp_path, "old", ".tar"), Version(tmp_path, "new", ".tar")
    releases = Releases(disk.root / "root")
    releases.switch(old.prepare(releases))
    huge = tmp_path / "huge.tar"
    huge.write_bytes(tar_of(member("a", b"x"), member("huge", bytes(3 << 20)), member("z", b"x")))
    with pytest.raises(DeployError, match=r"cannot unpack app.tar: No space left on device"):
        releases.prepare(huge, "app.tar", new.info)
    check_tidy(releases)
    check_whole(releases, old)
    releases.switch(new.prepare(releases))
    check_whole(releases, old, new)


def test_a_disk_that_fills_up_at_any_point(disk: Disk, tmp_path: Path) -> None:
    """With no page free, one, two, ...: it fails at another point each time, until it gets through."""
    old, new = Version(tmp_path, "old", ".tar"), Version(tmp_path, "new", ".tar")
    releases = Releases(disk.root / "root")
    releases.switch(old.prepare(releases))
    spare = disk.root / "spare"
    failures: set[str] = set()
    for pages in range(60):
        spare.write_bytes(bytes(4096 * pages))
        with disk.full():
            spare.unlink()
            try:
                release = new.prepare(releases)
                releases.switch(release)
            except DeployError as error:
                failures.add(re.sub(r".*releases", "", str(error)))
                current = releases.deployed()
                assert current is not None
                assert current.info == old.info
                check_tidy(releases)
                check_whole(releases, old)
            else:
                break
    else:
        raise AssertionError("sixty pages are not enough")
    assert pages > 4
    assert failures
    check_whole(releases, old, new)
    deployed = releases.deployed()
    assert deployed is not None
    assert deployed.info == new.info
