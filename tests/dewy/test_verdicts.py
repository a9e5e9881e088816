"""What is held against a release, and for how long."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dewy.deployed import artifact_of
from dewy.errors import BadArchive, DeployError, StartFailed
from dewy.log import Log
from dewy.memory import Memory
from dewy.plan import Artifact
from dewy.release import Info, Release, Releases
from dewy.state import State, StateFile
from dewy.verdicts import PROBATION, Verdicts
from tests.dewy.node import archive

NEW = Artifact("v9--app.tar.gz", "v9", digest="sha256:99", size=9)


class Node:
    """A node's disk, and the verdicts of a dewy on it."""

    def __init__(self, root: Path, *, rollback: bool = True) -> None:
        self.root = root
        self.releases = Releases(root / "node")
        self.file = StateFile(root / "node")
        self.memory = Memory(self.file, Log())
        self.stop = threading.Event()
        self.now = 1000.0
        self.verdicts = Verdicts(self.memory, self.releases, Log(), self.stop, rollback=rollback, now=lambda: self.now)

    def deploy(self, tag: str, *, good: bool = True) -> Release:
        path = self.root / f"{tag}.tar.gz"
        path.write_bytes(archive({"VERSION": tag}))
        release = self.releases.prepare(path, path.name, Info(f"{tag}--app.tar.gz", tag, f"sha256:{tag}", 5))
        self.releases.switch(release)
        if good:
            self.verdicts.started(release)
        return release

    def rejected(self) -> list[tuple[str, str]]:
        return [(one.artifact.tag, one.why) for one in self.file.read().rejected]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("error", [BadArchive("torn"), StartFailed("ended at once")])
def test_what_fails_by_its_own_fault_is_rejected(node: Node, error: Exception) -> None:
    node.deploy("v1")
    node.verdicts.deploy_failed_by(NEW, error)
    assert node.rejected() == [("v9", str(error))] and not node.verdicts.clean
    assert node.verdicts.in_force(node.releases.deployed(), must_run=True)


@pytest.mark.parametrize("error", [DeployError("disk full"), StartFailed("no process left", host=True), OSError("?")])
def test_what_fails_by_the_hosts_fault_is_backed_off_from(node: Node, error: Exception) -> None:
    node.deploy("v1")
    node.verdicts.deploy_failed_by(NEW, error)
    node.verdicts.deploy_failed_by(NEW, error)
    assert node.rejected() == []
    assert node.verdicts.deploy_failed is not None and node.verdicts.deploy_failed.count == 2


def test_what_the_end_of_dewy_cut_short_has_not_failed(node: Node) -> None:
    node.deploy("v1")
    node.stop.set()
    node.verdicts.deploy_failed_by(NEW, StartFailed("dewy is stopping"))
    assert node.rejected() == []


def test_a_rejection_holds_only_beside_something_that_has_come_up(node: Node) -> None:
    node.deploy("v1", good=False)
    node.verdicts.deploy_failed_by(NEW, BadArchive("torn"))
    deployed = node.releases.deployed()
    assert node.verdicts.in_force(deployed, must_run=True) == ()
    assert node.verdicts.deploy_failed is not None, "then the back-off alone holds it up"
    assert node.verdicts.in_force(deployed, must_run=False), "files need not come up"
    node.verdicts.started(deployed)
    assert node.verdicts.in_force(deployed, must_run=True)


def test_a_release_that_never_came_up_is_left_for_one_that_did(node: Node) -> None:
    """Killed between the switch and the start: the next dewy finds it deployed."""
    good = node.deploy("v1")
    bad = node.deploy("v2", good=False)
    node.verdicts.start_failed_by(artifact_of(bad), bad, StartFailed("ended at once"))
    assert node.rejected() == [("v2", "ended at once")]
    assert node.verdicts.last_good() == good


def test_a_release_that_came_up_before_is_not_left_because_it_does_not_now(node: Node) -> None:
    """The database is down: every release would fail."""
    node.deploy("v1")
    release = node.deploy("v2")
    node.verdicts.start_failed_by(artifact_of(release), release, StartFailed("ended at once"))
    assert node.rejected() == [] and node.verdicts.start_failed is not None


def test_without_roll_back_there_is_no_way_back(tmp_path: Path) -> None:
    node = Node(tmp_path, rollback=False)
    node.deploy("v1")
    bad = node.deploy("v2", good=False)
    assert node.verdicts.last_good() is None
    node.verdicts.start_failed_by(artifact_of(bad), bad, StartFailed("ended at once"))
    assert node.rejected() == []


def test_probation_ends_when_it_has_run_well_for_a_while(node: Node) -> None:
    assert not node.verdicts.on_probation(0), "what was there before this dewy has proved itself"
    node.verdicts.deployed()
    assert node.verdicts.on_probation(0)
    node.now += PROBATION
    assert node.verdicts.on_probation(1), "it crashed a moment ago"
    assert not node.verdicts.on_probation(0)
    assert not node.verdicts.on_probation(9), "later crashes have other reasons"


def test_what_is_left_is_rejected_with_all_that_is_known_of_it(node: Node) -> None:
    good, bad = node.deploy("v1"), node.deploy("v2")
    node.verdicts.announced = Artifact("v2--app.tar.gz", "v2", size=5, published=7.0)
    node.verdicts.deployed()
    node.verdicts.left(bad, "crashed 3 times in a row")
    assert node.file.read().rejected[0].artifact == node.verdicts.announced
    assert not node.verdicts.on_probation(3)
    node.releases.switch(good)
    assert node.verdicts.last_good() is None, "what was left is nothing to go back to"


def test_an_operators_word_gives_another_chance(node: Node) -> None:
    node.deploy("v1")
    node.verdicts.deploy_failed_by(NEW, BadArchive("torn"))
    node.verdicts.refresh()
    assert not node.verdicts.clean, "nobody has said anything"
    node.file.change(State.unpinned)
    node.verdicts.refresh()
    assert node.verdicts.clean and node.rejected() == []
