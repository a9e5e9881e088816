"""Releases on disk: made whole, switched atomically, kept in bounds, told from their own markers."""

from __future__ import annotations

import json
import multiprocessing
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.errors import BadArchive, DeployError, UnsafeArchive
from dewy.release import Info, Release, Releases, kept, next_id
from tests.dewy.archives import look, member, symlink, tar_of

INFO = Info("v1--app.tar", "v1", "sha256:00")
CONTENT = {"app": ("file", 0o755, b"v1"), "run": ("link", "app")}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 22, 53, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_bytes(tar_of(member("app", b"v1", mode=0o755), symlink("run", "app")))
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def releases(tmp_path: Path, clock: Clock) -> Releases:
    return Releases(tmp_path / "root", keep=20, now=clock, patience=0.2)


Deploy = Callable[[str], Release]


@pytest.fixture
def deploy(releases: Releases, artifact: Path) -> Deploy:
    def deploy(tag: str) -> Release:
        release = releases.prepare(artifact, "app.tar", Info(f"{tag}--app.tar", tag))
        releases.switch(release)
        return release

    return deploy


def names(releases: Releases) -> list[str]:
    return sorted(path.name for path in releases.directory.iterdir())


def top(releases: Releases) -> list[str]:
    return sorted(path.name for path in releases.root.iterdir())


def test_a_release_from_artifact_to_current(releases: Releases, artifact: Path) -> None:
    release = releases.prepare(artifact, "app.tar", INFO)
    assert release.id == "20261124T225300Z"
    assert release.path == releases.root / "releases" / "20261124T225300Z"
    assert look(release.path) == CONTENT
    assert stat.S_IMODE(release.path.stat().st_mode) == 0o755
    assert releases.deployed() is None
    assert not releases.current.exists()

    assert releases.switch(release) is None
    assert releases.deployed() == release
    assert release.info == INFO
    assert releases.current.readlink() == release.path
    assert names(releases) == [".20261124T225300Z.json", ".lock", "20261124T225300Z"]
    assert top(releases) == ["current", "releases"]


def test_switch_returns_what_was_current(releases: Releases, deploy: Deploy, artifact: Path) -> None:
    first = deploy("v1")
    second = releases.prepare(artifact, "app.tar", Info("v2", "v2"))
    assert releases.switch(second) == first
    assert releases.deployed() == second
    assert releases.all() == [first, second]


def test_releases_within_one_second(releases: Releases, deploy: Deploy) -> None:
    ids = [deploy(f"v{number}").id for number in range(12)]
    assert ids[:3] == ["20261124T225300Z", "20261124T225300Z-002", "20261124T225300Z-003"]
    assert ids == sorted(ids) == [release.id for release in releases.all()]


def test_a_clock_that_steps_back_does_not_disturb_the_order(releases: Releases, deploy: Deploy, clock: Clock) -> None:
    first = deploy("v1")
    clock.now -= timedelta(hours=1)
    second = deploy("v2")
    assert second.id == "20261124T225300Z-002" > first.id
    assert second.made == clock.now


instants = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(st.lists(instants, max_size=30))
def test_ids_rise_whatever_the_clock_does(times: list[datetime]) -> None:
    taken: list[str] = []
    for time in times:
        id = next_id(time, taken)
        assert re.fullmatch(r"\d{8}T\d{6}Z(-\d{3})?", id)
        assert all(id > other for other in taken)
        taken.insert(0, id)


def test_next_id_at_the_edges() -> None:
    now = datetime(2026, 1, 1, 1, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert next_id(now, []) == "20251231T230000Z"
    assert next_id(now, ["20251231T225959Z-999"]) == "20251231T230000Z"
    assert next_id(now, ["20251231T230000Z"]) == "20251231T230000Z-002"
    assert next_id(now, ["20251231T235959Z-999"]) == "20260101T000000Z"


@pytest.mark.parametrize("data", [b"no tar", tar_of(member("a", b"x"), member("../a", b"x"))])
def test_a_bad_artifact_leaves_nothing(data: bytes, releases: Releases, deploy: Deploy, artifact: Path) -> None:
    live = deploy("v1")
    before = names(releases)
    artifact.write_bytes(data)
    for _ in range(20):  # growth is bounded when every deploy fails
        with pytest.raises((BadArchive, UnsafeArchive)):
            releases.prepare(artifact, "app.tar", INFO)
    assert names(releases) == before
    assert releases.deployed() == live


def test_a_missing_artifact(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"cannot unpack app.tar: No such file or directory: .*absent"):
        releases.prepare(tmp_path / "absent", "app.tar", INFO)
    assert names(releases) == [".lock"]


def test_a_directory_in_place_of_current(releases: Releases, artifact: Path) -> None:
    release = releases.prepare(artifact, "app.tar", INFO)
    releases.current.mkdir()
    (releases.current / "precious").write_text("by hand")
    with pytest.raises(DeployError, match=r"current is in the way: it is no link to a release. Move it elsewhere"):
        releases.switch(release)
    assert (releases.current / "precious").read_text() == "by hand"
    assert releases.deployed() is None
    releases.current.rename(releases.root / "elsewhere")
    releases.switch(release)
    assert releases.deployed() == release


@pytest.mark.parametrize("name", ["current", "current.tmp"])
def test_a_file_in_the_way(name: str, releases: Releases, artifact: Path) -> None:
    release = releases.prepare(artifact, "app.tar", INFO)
    (releases.root / name).write_text("by hand")
    with pytest.raises(DeployError, match="in the way"):
        releases.switch(release)
    assert (releases.root / name).read_text() == "by hand"


def test_releases_that_is_no_directory(releases: Releases, artifact: Path) -> None:
    releases.root.mkdir()
    releases.directory.write_text("by hand")
    with pytest.raises(DeployError, match="releases"):
        releases.prepare(artifact, "app.tar", INFO)
    assert releases.directory.read_text() == "by hand"


def test_a_stale_link_of_v2_is_tidied_up(releases: Releases, deploy: Deploy) -> None:
    releases.root.mkdir()
    (releases.root / "current.tmp").symlink_to("/nowhere")
    deploy("v1")
    assert top(releases) == ["current", "releases"]


def test_what_v2_left_runs_and_is_never_pruned_while_live(releases: Releases, deploy: Deploy) -> None:
    old = releases.directory / "20200101T000000Z"
    old.mkdir(parents=True)
    releases.current.symlink_to(old)
    assert releases.deployed() == Release("20200101T000000Z", old)
    for number in range(9):
        deploy(f"v{number}")
    releases.current.unlink()
    releases.current.symlink_to(old)
    releases.prune(7)
    assert releases.deployed() == Release("20200101T000000Z", old)
    assert len(releases.all()) == 7


@pytest.mark.parametrize(
    "marker", ["", "[]", '{"key": 1}', '{"key": "k", "tag": "t", "digest": "", "made": "then"}', "\0"]
)
def test_an_unreadable_marker_is_none(marker: str, releases: Releases, deploy: Deploy) -> None:
    release = deploy("v1")
    (releases.directory / f".{release.id}.json").write_text(marker)
    assert releases.deployed() == Release(release.id, release.path)


def test_the_marker_can_be_read_by_others(releases: Releases, deploy: Deploy) -> None:
    release = deploy("größe")
    marker = json.loads((releases.directory / f".{release.id}.json").read_text(encoding="utf-8"))
    assert marker == {
        "format": 1,
        "key": "größe--app.tar",
        "tag": "größe",
        "digest": "",
        "size": None,
        "made": "2026-11-24T22:53:00+00:00",
    }


@pytest.mark.parametrize(("written", "read"), [(5, 5), (0, 0), (None, None), ("5", None), (True, None), (-1, None)])
def test_a_marker_tells_the_size_or_nothing(
    written: object, read: int | None, releases: Releases, deploy: Deploy
) -> None:
    """C16: the size tells a tag that was published again from the one that is deployed."""
    release = deploy("v1")
    path = releases.directory / f".{release.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "size": written}))
    deployed = releases.deployed()
    assert deployed is not None and deployed.info == Info("v1--app.tar", "v1", "", read)


def test_a_marker_of_a_time_without_sizes_still_reads(releases: Releases, deploy: Deploy) -> None:
    release = deploy("v1")
    path = releases.directory / f".{release.id}.json"
    marker = json.loads(path.read_bytes())
    del marker["size"]
    path.write_text(json.dumps(marker))
    deployed = releases.deployed()
    assert deployed is not None and deployed.info == Info("v1--app.tar", "v1")


def test_size_and_digest_survive(releases: Releases, artifact: Path) -> None:
    info = Info("v1--app.tar", "v1", "sha256:00", 1234)
    releases.switch(releases.prepare(artifact, "app.tar", info))
    deployed = releases.deployed()
    assert deployed is not None and deployed.info == info


@pytest.mark.parametrize("target", ["/nowhere", "..", "releases", "releases/absent"])
def test_current_that_leads_elsewhere_is_nothing_deployed(target: str, releases: Releases, deploy: Deploy) -> None:
    deploy("v1")
    releases.current.unlink()
    releases.current.symlink_to(target)
    assert releases.deployed() is None
    deploy("v2")
    assert releases.deployed() is not None


def test_a_relative_root_survives_a_change_of_directory(
    tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    releases = Releases(".")
    monkeypatch.chdir("/")
    release = releases.prepare(artifact, "app.tar", INFO)
    releases.switch(release)
    assert (tmp_path / "here" / "current").readlink() == tmp_path / "here" / "releases" / release.id


def test_a_root_behind_a_link_and_releases_behind_another(tmp_path: Path, artifact: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "real" / "releases").symlink_to(tmp_path / "volume")
    (tmp_path / "root").symlink_to("real")
    releases = Releases(tmp_path / "root")
    release = releases.prepare(artifact, "app.tar", INFO)
    releases.switch(release)
    (tmp_path / "root").unlink()
    assert look(tmp_path / "real" / "current") == CONTENT
    assert Releases(tmp_path / "real").deployed() is not None
    assert (tmp_path / "volume" / release.id).is_dir()


def test_roll_back(releases: Releases, deploy: Deploy) -> None:
    first, second = deploy("v1"), deploy("v2")
    assert releases.roll_back(second, first)
    assert releases.deployed() == first
    assert releases.all() == [first]
    assert not second.path.exists()
    assert not releases.roll_back(second, first)
    assert releases.all() == [first]


def test_a_roll_back_leaves_what_an_operator_has_switched_to(releases: Releases, deploy: Deploy) -> None:
    first, second, third = deploy("v1"), deploy("v2"), deploy("v3")
    releases.switch(first)
    assert not releases.roll_back(third, second)
    assert releases.deployed() == first
    assert releases.all() == [first, second]


def test_roll_back_of_the_first_ever(releases: Releases, deploy: Deploy) -> None:
    assert releases.roll_back(deploy("v1"), None)
    assert releases.deployed() is None
    assert names(releases) == [".lock"]
    assert not releases.current.is_symlink()


def test_roll_back_to_what_is_gone(releases: Releases, deploy: Deploy) -> None:
    first, second = deploy("v1"), deploy("v2")
    releases.discard(first)
    with pytest.raises(DeployError, match=f"release {first.id} is gone"):
        releases.roll_back(second, first)
    with pytest.raises(DeployError, match=f"release {first.id} is gone"):
        releases.switch(first)
    assert releases.deployed() == second


def test_discard(releases: Releases, deploy: Deploy, artifact: Path) -> None:
    live = deploy("v1")
    failed = releases.prepare(artifact, "app.tar", INFO)
    releases.discard(failed)
    releases.discard(failed)
    with pytest.raises(DeployError, match=f"release {live.id} is live"):
        releases.discard(live)
    assert releases.all() == [live]
    assert len(names(releases)) == 3


def test_prune_keeps_seven(releases: Releases, deploy: Deploy) -> None:
    made = [deploy(f"v{number}") for number in range(10)]
    releases = Releases(releases.root)
    assert releases.prune() == [release.id for release in made[:3]]
    assert releases.all() == made[3:]
    assert len(names(releases)) == 15
    assert releases.prune() == []


def test_deploys_that_never_get_to_prune_do_not_grow(tmp_path: Path, artifact: Path) -> None:
    releases = Releases(tmp_path / "root", keep=3)
    releases.switch(releases.prepare(artifact, "app.tar", INFO))
    for _ in range(9):
        releases.prepare(artifact, "app.tar", INFO)
    assert len(releases.all()) == 4
    assert releases.deployed() == releases.all()[0]


def test_prune_leaves_what_is_not_ours(releases: Releases, deploy: Deploy) -> None:
    deploy("v1")
    (releases.directory / "backup").mkdir()
    (releases.directory / "notes.json").touch()
    (releases.directory / "19990101T000000Z").symlink_to("backup")
    deploy("v2")
    releases.prune(keep=1)
    assert {"backup", "notes.json", "19990101T000000Z"} < set(names(releases))


@given(st.integers(0, 20), st.none() | st.integers(0, 25), st.integers(0, 10))
def test_kept(count: int, live_at: int | None, keep: int) -> None:
    ids = [f"{number:02}" for number in range(count)]
    live = None if live_at is None else f"{live_at:02}"
    result = kept(ids, live, keep)
    must = set() if live not in ids else {live, *ids[max(ids.index(live) - 1, 0) : ids.index(live)]}
    assert must <= result <= set(ids)
    assert len(result) == max(min(keep, count), len(must))
    others = [id for id in ids if id not in must]
    assert set(others[len(others) - len(result - must) :]) == result - must  # the newest of the others


def test_litter_of_the_dead_is_swept_and_work_of_the_living_is_not(releases: Releases, deploy: Deploy) -> None:
    live = deploy("v1")
    dead = releases.directory / ".tmp-dead"
    (dead / "tree" / "d").mkdir(parents=True)
    (dead / "lock").touch()
    unborn = releases.directory / ".tmp-unborn"
    unborn.mkdir()
    (releases.directory / ".20991231T000000Z.json").write_text("{}")
    busy = releases.directory / ".tmp-busy"
    busy.mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, busy / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        releases.sweep()
        releases.prune(keep=1)
        assert names(releases) == [f".{live.id}.json", ".lock", ".tmp-busy", live.id]
        owner.kill()
    releases.sweep()
    assert names(releases) == [f".{live.id}.json", ".lock", live.id]


def test_prepare_sweeps_by_itself(releases: Releases, artifact: Path) -> None:
    (releases.directory / ".tmp-dead").mkdir(parents=True)
    releases.prepare(artifact, "app.tar", INFO)
    assert ".tmp-dead" not in names(releases)


def test_a_process_that_stopped_while_changing_names_is_waited_for_only_so_long(
    releases: Releases, deploy: Deploy
) -> None:
    release = deploy("v1")
    with releases._names(), pytest.raises(DeployError, match=r"another process has been changing .*releases for 0.2s"):
        releases.switch(release)
    releases.switch(release)


def _deploy_often(root: Path, artifact: Path, number: int) -> None:
    releases = Releases(root, keep=100)
    for turn in range(6):
        release = releases.prepare(artifact, "app.tar", Info(f"{number}-{turn}", f"{number}-{turn}"))
        releases.switch(release)
        releases.prune()


def test_processes_that_deploy_at_once(releases: Releases, artifact: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_deploy_often, args=(releases.root, artifact, number)) for number in range(4)]
    for process in processes:
        process.start()
    seen: set[str] = set()
    while any(process.is_alive() for process in processes):
        current = releases.deployed()
        if current is not None:
            seen.add(current.id)
            assert current.info is not None
            assert look(current.path) == CONTENT
        processes[0].join(0.01)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    everything = releases.all()
    assert len(everything) == 24
    assert len({release.info.tag for release in everything if release.info}) == 24
    assert len(names(releases)) == 24 * 2 + 1
    assert seen <= {release.id for release in everything}


def test_readers_always_find_a_release(releases: Releases, deploy: Deploy) -> None:
    """While `current` is switched to and fro, who opens a file through it always finds one."""
    first, second = deploy("v1"), deploy("v2")
    code = """
import sys
from pathlib import Path
app, reads = Path(sys.argv[1]) / "app", 0
print(flush=True)
while not Path(sys.argv[2]).exists():
    assert app.read_bytes() == b"v1"
    reads += 1
print(reads)
"""
    stop = releases.root / "stop"
    with subprocess.Popen(
        [sys.executable, "-c", code, releases.current, stop], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for _ in range(100):
            releases.switch(first)
            releases.switch(second)
        stop.touch()
        assert int(reader.stdout.read()) > 10
    assert reader.returncode == 0


@pytest.fixture(autouse=True)
def no_litter(tmp_path: Path) -> Iterator[None]:
    yield
    left = [path for path in tmp_path.rglob(".tmp-*") if path.is_dir()]
    assert left == []
