"""`dewy.artifact`: one download for the fleet, and never a wrong byte. A counted GitHub, stores in directories."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dewy.artifact import NOT_STORED, RECORD_TTL, Artifacts
from dewy.cachedir import short_hash
from dewy.log import Log
from dewy.registry import Announced, open_registry
from kvcache import KVCacheError, LoadContext, SharedCache, Store, open_store
from kvcache.staging import Staging
from tests.dewy.supervised import wait_for
from tests.fakes.github import FakeGitHub

NAME = "app_linux_amd64.tar.gz"
DATA = os.urandom(300_000)
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github


class World:
    """One repository of the GitHub, and nodes that share a store in a directory."""

    def __init__(self, github: FakeGitHub, directory: Path, repo: str) -> None:
        self.github = github
        self.directory = directory
        self.repo = repo
        self.env = {**github.env, "GH_TOKEN": "of-the-tests"}  # without one GitHub allows 60 calls an hour
        self.registry = open_registry(f"ghr://{repo}", env=self.env)
        self.seen = len(github.calls())

    def publish(self, tag: str = "v1.0.0", data: bytes = DATA, **about: object) -> Announced:
        self.github.publish(tag, repo=self.repo)
        self.github.add_asset(tag, NAME, data, repo=self.repo, **about)
        return self.announced()

    def announced(self) -> Announced:
        loaded = self.registry.current(LoadContext(None, None, None, time.monotonic() + 20))
        return Announced.from_value(loaded.value, loaded.extra)

    def downloads(self) -> int:
        return len(self.github.downloads(self.seen))

    def store(self, url: str | None = None) -> Store:
        return open_store(url or f"file://{self.directory}/store?locking=flock")

    def node(
        self, name: str, store: Store | None = None, *, lease: float = 30.0, conditional: bool = True
    ) -> Artifacts:
        """A node with a local copy of its own."""
        store = store or self.store()
        return Artifacts(
            self.registry,
            Staging(self.directory / name),
            objects=store,
            records=SharedCache(store, ttl=RECORD_TTL, lease=lease) if conditional else None,
            prefix="",
            log=Log(),
        )

    def object(self, key: str = f"v1.0.0--{NAME}") -> Path:
        return self.directory / "store" / key

    def records(self) -> list[str]:
        return [key for key in self.store().list() if key.startswith("artifact-cache/")]


@pytest.fixture
def world(server: FakeGitHub, tmp_path: Path, request) -> Iterator[World]:
    server.mode("healthy", "assets")
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    made = World(server, tmp_path, f"acme/{name}")
    yield made
    server.mode("healthy", "assets")
    made.registry.close()


# -- one download ------------------------------------------------------------------------------------------------------


def test_of_many_nodes_one_downloads(world: World) -> None:
    announced = world.publish()
    staged = []
    nodes = [world.node(f"node-{number}") for number in range(8)]
    threads = [threading.Thread(target=lambda node=node: staged.append(node.obtain(announced))) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert world.downloads() == 1
    assert sorted(s.source for s in staged).count("store") == 7
    assert all(s.path.read_bytes() == DATA and s.sha256 == hashlib.sha256(DATA).hexdigest() for s in staged)
    assert world.object().read_bytes() == DATA  # where Dewy v2 looks for it
    assert len(world.records()) == 1


@pytest.mark.parametrize("digest", ["given", "unknown"])
def test_a_node_that_has_it_asks_nobody(world: World, digest: str) -> None:
    announced = world.publish(**({} if digest == "given" else {"digest": None}))
    assert (announced.digest is None) == (digest == "unknown")
    world.node("one").obtain(announced)
    again = world.node("one").obtain(announced)
    assert (again.source, world.downloads()) == ("local copy", 1)
    assert world.node("two").obtain(announced).source == "store"


def fetch_and_hang(world: World, announced: Announced) -> None:
    world.registry = open_registry(f"ghr://{world.repo}", env=world.env)
    world.node("dead", lease=2.0).obtain(announced)


def test_a_leader_that_dies_in_mid_download_is_replaced(world: World) -> None:
    announced = world.publish()
    world.github.mode("drip", "assets", delay=1.0, times=1)
    leader = FORK.Process(target=fetch_and_hang, args=(world, announced))
    leader.start()
    wait_for(lambda: world.downloads() == 1, "the leader's download")
    os.kill(leader.pid, signal.SIGKILL)
    leader.join()
    assert world.node("heir", lease=2.0).obtain(announced).path.read_bytes() == DATA
    assert world.downloads() == 2
    assert world.node("third").obtain(announced).source == "store"


def test_a_failed_download_is_the_fleet_s_failure(world: World) -> None:
    announced = world.publish()
    world.github.mode("status", "assets", status=404)
    with pytest.raises(KVCacheError):
        world.node("one").obtain(announced)
    calls = len(world.github.calls())
    with pytest.raises(KVCacheError):
        world.node("two").obtain(announced)
    assert len(world.github.calls()) == calls  # it backs off


# -- never a wrong byte ------------------------------------------------------------------------------------------------

DAMAGE = {
    "short": lambda path: path.write_bytes(DATA[:1000]),
    "changed": lambda path: path.write_bytes(b"x" + DATA[1:]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("digest", ["given", "unknown"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_object_is_fetched_again_once(world: World, damage: str, digest: str) -> None:
    """C10."""
    announced = world.publish(**({} if digest == "given" else {"digest": None}))
    world.node("one").obtain(announced)
    DAMAGE[damage](world.object())
    healed = world.node("two").obtain(announced)
    assert healed.path.read_bytes() == DATA and world.downloads() == 2
    assert world.node("three").obtain(announced).source == "store"
    assert world.downloads() == 2


@pytest.mark.parametrize("conditional", [True, False])
def test_wrong_bytes_are_fetched_once_more(world: World, conditional: bool) -> None:
    announced = world.publish()
    world.github.mode("corrupt", "assets", times=1)
    staged = world.node("one", conditional=conditional).obtain(announced)
    assert (staged.path.read_bytes(), world.downloads()) == (DATA, 2)
    assert world.node("two", conditional=conditional).obtain(announced).source == "store"


def test_bytes_that_stay_wrong_are_nobody_s(world: World) -> None:
    announced = world.publish()
    world.github.mode("corrupt", "assets")
    with pytest.raises(
        KVCacheError, match=f"{NAME}: its digest is sha256:.*, announced was {announced.digest}"
    ) as caught:
        world.node("one").obtain(announced)
    assert "\n" not in str(caught.value) and world.downloads() == 2
    with pytest.raises(KVCacheError):
        world.node("two").obtain(announced)
    assert world.downloads() == 2  # the fleet backs off
    assert not world.object().exists() and not (world.directory / "one" / announced.key).exists()


def test_a_bad_object_and_a_bad_download(world: World) -> None:
    """The store, the registry, the registry: the third is good."""
    announced = world.publish()
    world.node("one").obtain(announced)
    DAMAGE["changed"](world.object())
    world.github.mode("corrupt", "assets", times=1)
    assert world.node("two").obtain(announced).path.read_bytes() == DATA
    assert world.downloads() == 3


def test_what_is_too_large_is_not_fetched_again(world: World) -> None:
    announced = world.publish()
    world.registry.close()
    world.registry = open_registry(f"ghr://{world.repo}", env=world.env, max_artifact=1000)
    with pytest.raises(KVCacheError, match="larger than the 1000 bytes allowed"):
        world.node("one").obtain(announced)
    assert world.downloads() == 1


def test_a_checksum_of_the_release_proves_what_v2_stored(world: World) -> None:
    """R3: of a release whose registry knows no digest."""
    world.github.publish("v1.0.0", repo=world.repo)
    sums = f"{hashlib.sha256(DATA).hexdigest()}  {NAME}\n".encode()
    world.github.add_asset("v1.0.0", "checksums.txt", sums, repo=world.repo)
    world.github.add_asset("v1.0.0", NAME, DATA, repo=world.repo, digest=None)
    announced = world.announced()
    world.store().write(announced.key, DATA)
    assert world.node("one").obtain(announced).source == "store"
    assert world.downloads() == 1  # the checksums


def test_a_bad_local_copy_is_fetched_again(world: World) -> None:
    announced = world.publish()
    one = world.node("one")
    one.obtain(announced).path.write_bytes(b"rot")
    again = one.obtain(announced)
    assert (again.source, again.path.read_bytes(), world.downloads()) == ("store", DATA, 1)


@pytest.mark.parametrize("record", [b"no record", b"{}", b'{"response":{"key":1},"fetched_at":"2026-01-01T00:00:00Z"}'])
def test_a_bad_record_heals(world: World, record: bytes) -> None:
    announced = world.publish()
    world.node("one").obtain(announced)
    [key] = world.records()
    world.store().write(key, record)
    assert world.node("two").obtain(announced).path.read_bytes() == DATA
    assert world.node("three").obtain(announced).source == "store"


def test_a_tag_published_again_is_fetched_again(world: World) -> None:
    """C16."""
    world.node("one").obtain(world.publish())
    world.github.remove_asset("v1.0.0", NAME, repo=world.repo)
    other = DATA[::-1]
    world.github.add_asset("v1.0.0", NAME, other, repo=world.repo)
    announced = world.announced()
    for name, source in (("one", "registry"), ("two", "store")):
        staged = world.node(name).obtain(announced)
        assert (staged.source, staged.path.read_bytes()) == (source, other)
    assert world.object().read_bytes() == DATA  # of this tag; a node of v2 may know it by its digest
    assert world.object(f"apps/{short_hash(world.registry.scope)}/v1.0.0--{NAME}").read_bytes() == other


def test_a_tag_published_again_without_digests_but_with_another_size(world: World) -> None:
    old = world.publish(digest=None)
    world.node("one").obtain(old)
    other = b"another size"
    world.github.remove_asset("v1.0.0", NAME, repo=world.repo)
    world.github.add_asset("v1.0.0", NAME, other, repo=world.repo, digest=None)
    for name in ("one", "two"):
        assert world.node(name).obtain(world.announced()).path.read_bytes() == other
    assert world.downloads() == 2


# -- beside Dewy v2, and beside other applications ---------------------------------------------------------------------


def test_what_v2_stored_is_used_where_the_digest_proves_it(world: World) -> None:
    announced = world.publish()
    world.store().write(announced.key, DATA)
    assert world.node("one").obtain(announced).source == "store"
    assert world.node("two").obtain(announced).source == "store"
    assert world.downloads() == 0


@pytest.mark.parametrize("foreign", [b"too short", os.urandom(len(DATA))])
def test_what_somebody_else_stored_is_neither_used_nor_touched(world: World, foreign: bytes) -> None:
    """C12."""
    announced = world.publish()
    world.store().write(announced.key, foreign)
    assert world.node("one").obtain(announced).path.read_bytes() == DATA
    assert world.node("two").obtain(announced).source == "store"
    assert world.downloads() == 1
    assert world.object().read_bytes() == foreign


def test_what_nothing_proves_is_fetched_once(world: World) -> None:
    announced = world.publish(digest=None)
    world.store().write(announced.key, DATA)
    assert world.node("one").obtain(announced).source == "registry"
    assert world.node("two").obtain(announced).source == "store"
    assert world.downloads() == 1
    assert world.store().stat(announced.key).size == len(DATA)
    assert not world.object("apps").exists()  # the same bytes are not stored twice


def test_two_applications_in_one_store(world: World) -> None:
    """C12: the same tag and name, and even the same size."""
    other = World(world.github, world.directory, f"{world.repo}-other")
    theirs = os.urandom(len(DATA))
    ours, their = world.publish(), other.publish(data=theirs)
    assert ours.key == their.key
    for number in range(2):
        assert world.node(f"ours-{number}").obtain(ours).path.read_bytes() == DATA
        assert other.node(f"theirs-{number}").obtain(their).path.read_bytes() == theirs
    assert world.downloads() == 2
    other.registry.close()


# -- stores that can do less -------------------------------------------------------------------------------------------


def test_without_conditional_writes_a_note_does(world: World) -> None:
    announced = world.publish(digest=None)

    def node(name: str) -> Artifacts:
        return world.node(name, world.store(f"file://{world.directory}/store"), conditional=False)

    assert node("one").obtain(announced).source == "registry"
    assert node("two").obtain(announced).source == "store"
    assert node("two").obtain(announced).source == "local copy"
    DAMAGE["short"](world.object())
    assert node("three").obtain(announced).path.read_bytes() == DATA
    assert node("four").obtain(announced).source == "store"
    assert world.downloads() == 2


def test_an_artifact_that_the_store_cannot_hold(world: World) -> None:
    announced = world.publish(digest=None)
    store = world.store(f"memory://{world.directory}?max-size=64KiB")
    for name in ("one", "two"):
        assert world.node(name, store).obtain(announced).source == "registry"
    [key] = store.list()
    assert json.loads(store.read(key))["response"]["key"] == NOT_STORED


def test_the_local_copy_as_the_store(world: World) -> None:
    """`file://...?locking=flock` in the cache directory: nothing is stored twice."""
    announced = world.publish()

    def node() -> Artifacts:
        records = SharedCache(world.store(), ttl=RECORD_TTL)
        return Artifacts(
            world.registry,
            Staging(world.directory / "store"),
            objects=None,
            records=records,
            prefix="",
            log=Log(),
        )

    assert node().obtain(announced).source == "registry"
    assert node().obtain(replace(announced, digest=announced.digest)).source == "local copy"
    world.object().unlink()
    assert node().obtain(announced).path == world.object()
    assert world.downloads() == 2


def test_a_store_that_is_down_does_not_matter(world: World) -> None:
    announced = world.publish()
    store = world.store()
    (world.directory / "store").rename(world.directory / "away")
    (world.directory / "store").symlink_to("store")  # nothing can be read or written there
    assert world.node("one", store).obtain(announced).path.read_bytes() == DATA
    assert world.downloads() == 1
    (world.directory / "store").unlink()
    assert world.node("two").obtain(announced).source == "registry"
    assert world.node("three").obtain(announced).source == "store"


def test_an_artifact_that_has_no_place_in_the_store(world: World) -> None:
    announced = world.publish(digest=None)
    for place in (world.object(), world.object(f"apps/{short_hash(world.registry.scope)}/v1.0.0--{NAME}")):
        place.mkdir(parents=True)
        (place / "in the way").write_text("x")
    assert world.node("one").obtain(announced).source == "registry"
    assert world.node("two").obtain(announced).source == "registry"
    assert world.downloads() == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for records, and not for artifacts."""
    disk = tmp_path / "store"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_store_that_is_full(world: World, small_disk: Path) -> None:
    """The node that fetched the artifact goes on with it, without a second download."""
    announced = world.publish(digest=None)
    staged = world.node("one").obtain(announced)
    assert (staged.path.read_bytes(), staged.source, world.downloads()) == (DATA, "registry", 1)
    assert world.records() and not world.object().exists()
