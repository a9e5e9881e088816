"""Values in parts: every interleaving that matters of readers, writers, deaths and sweeps, over a shelf in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kvcache.backends import parts
from kvcache.backends.parted import READ_ATTEMPTS, PartedStore
from kvcache.backends.parts import ORPHAN_AGE, UPLOAD_TIME, Manifest
from kvcache.errors import AmbiguousWrite, CorruptRecord, NotFound, StoreUnavailable
from kvcache.kvs import ABSENT, Version
from tests.stores.shelf import START, MemoryShelf, World, fail

SMALL, LARGE, OTHER = b"small", b"0123456789" * 5 + b"end", b"another large value, in three parts"


@pytest.fixture
def world() -> World:
    return World()


# -- readers and writers at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("replacement", [SMALL, OTHER])
def test_a_reader_sees_the_old_value_or_the_new_one(world: World, at: int, replacement: bytes, tmp_path: Path) -> None:
    for read in (world.store.read, lambda key: _downloaded(world.store, key, tmp_path)):
        world.store.write("key", LARGE)
        world.once("get_part", lambda: world.another_node().write("key", replacement), name=f"/{at}")
        assert read("key") == replacement


def _downloaded(store: PartedStore, key: str, folder: Path) -> bytes:
    store.download(key, folder / "file")
    return (folder / "file").read_bytes()


def test_a_reader_gives_up_when_the_value_never_stands_still(world: World) -> None:
    world.store.write("key", LARGE)
    writer = world.another_node()
    writes: list[Version] = []

    def replace_under_the_reader(operation: str, name: str) -> None:
        if operation == "get_part" and name.endswith("/1"):
            writes.append(writer.write("key", LARGE))

    world.shelf.before = replace_under_the_reader
    with pytest.raises(StoreUnavailable, match="replaced"):
        world.store.read("key")
    assert len(writes) == READ_ATTEMPTS


def test_the_progress_never_goes_back(world: World, tmp_path: Path) -> None:
    told: list[int] = []
    world.store.write("key", LARGE)
    world.once("get_part", lambda: world.another_node().write("key", LARGE), name="/4")
    world.store.download("key", tmp_path / "file", told.append)
    assert told == [10, 20, 30, 40, 50, 53]


def test_a_value_that_lost_parts_is_absent_and_can_be_created_anew(world: World, tmp_path: Path) -> None:
    world.store.write("key", LARGE)
    del world.shelf.parts[sorted(world.shelf.parts)[2]]
    with pytest.raises(NotFound) as caught:
        world.store.download("key", tmp_path / "file")
    assert caught.value.store_time == world.clock.time
    assert not list(tmp_path.iterdir())
    world.store.write_if("key", SMALL, ABSENT)
    assert world.store.read("key") == SMALL


@pytest.mark.parametrize(
    "damage",
    [
        lambda shelf, name: shelf.parts.update({name: b"x" * 10}),
        lambda shelf, name: shelf.parts.update({name: shelf.parts[name][:-1]}),
        lambda shelf, name: shelf.entries.update(key=(b"{}", "v99", True)),
    ],
    ids=["changed", "short", "manifest"],
)
def test_a_damaged_value_is_neither_served_nor_thrown_away(
    world: World, damage: Callable[[MemoryShelf, str], object], tmp_path: Path
) -> None:
    world.store.write("key", LARGE)
    damage(world.shelf, sorted(world.shelf.parts)[2])
    before = dict(world.shelf.parts)
    with pytest.raises(CorruptRecord):
        world.store.download("key", tmp_path / "file")
    with pytest.raises(CorruptRecord):
        world.store.read("key")
    assert not list(tmp_path.iterdir())
    assert world.shelf.parts == before
    world.store.write_if("key", SMALL, world.store.stat("key").version)
    assert world.store.read("key") == SMALL


def test_damage_on_the_way_is_not_damage(world: World) -> None:
    world.store.write("key", LARGE)
    name = sorted(world.shelf.parts)[3]
    whole = world.shelf.parts[name]
    arriving = iter([whole[::-1], whole])

    def before(operation: str, on: str) -> None:
        if (operation, on) == ("get_part", name):
            world.shelf.parts[name] = next(arriving)

    world.shelf.before = before
    assert world.store.read("key") == LARGE


def test_a_value_that_lost_parts_is_absent_to_a_reader_without_the_right_to_write(world: World) -> None:
    world.store.write("key", LARGE)
    world.shelf.parts.clear()

    def read_only(operation: str, name: str) -> None:
        if operation == "remove":
            raise StoreUnavailable("no right")

    world.shelf.before = read_only
    with pytest.raises(NotFound):
        world.store.read("key")


# -- orphans -----------------------------------------------------------------------------------------------------------


def test_a_crash_in_mid_upload_leaves_orphans_for_the_sweep(world: World) -> None:
    world.store.write("live", LARGE)
    live = set(world.shelf.parts)
    world.once("place", fail(SystemExit("killed")))
    drop, world.store._drop = world.store._drop, lambda *_: None  # type: ignore[method-assign]  # the dead clean nothing up
    with pytest.raises(SystemExit):
        world.store.write("key", LARGE)
    world.store._drop = drop  # type: ignore[method-assign]
    assert len(world.shelf.parts) == 12
    assert world.store.sweep() == 0, "the upload may still be alive"
    world.clock.time += ORPHAN_AGE
    assert world.store.sweep() == 6
    assert set(world.shelf.parts) == live
    assert world.store.read("live") == LARGE


def test_an_unknown_outcome_leaves_the_parts_to_the_one_it_turns_out_to_be(world: World) -> None:
    def land_and_hide() -> None:
        *_, part = sorted(world.shelf.parts)
        key, upload = parts.part_of(part) or ("", "")
        world.shelf.entries[key] = (Manifest(upload, 6, len(LARGE), _sha256(LARGE)).encode(), "v99", True)
        raise AmbiguousWrite("no answer")

    world.once("place", land_and_hide)
    with pytest.raises(AmbiguousWrite):
        world.store.write("key", LARGE)
    assert world.store.read("key") == LARGE


def test_the_next_large_upload_sweeps(world: World) -> None:
    world.shelf.parts[parts.part_name("gone", parts.upload_name(START - ORPHAN_AGE, "ff"), 0)] = b"orphan"
    world.store.write("key", SMALL)
    assert len(world.shelf.parts) == 1
    world.store.write("key", LARGE)
    assert len(world.shelf.parts) == 6


def test_an_upload_that_takes_too_long_gives_up(world: World) -> None:
    world.store.write("key", SMALL)
    world.once("put_part", lambda: setattr(world.clock, "time", world.clock.time + UPLOAD_TIME + 1), name="/3")
    with pytest.raises(StoreUnavailable, match="longer than"):
        world.store.write("key", LARGE)
    assert world.store.read("key") == SMALL
    assert not world.shelf.parts


def test_an_upload_that_slept_through_a_sweep_does_not_claim_success(world: World) -> None:
    """SIGSTOP between the last part and the manifest; another node sweeps; SIGCONT."""

    def sleep_through_a_sweep() -> None:
        world.clock.time += ORPHAN_AGE
        assert world.another_node().sweep() == 6

    world.once("place", sleep_through_a_sweep)
    with pytest.raises(StoreUnavailable, match="interrupted"):
        world.store.write("key", LARGE)
    with pytest.raises(NotFound):
        world.store.read("key")


def test_a_publish_in_the_middle_of_a_sweep_is_seen_by_it(world: World) -> None:
    """The sweep lists the parts; then, a moment too early for it to be called old, its manifest lands."""
    sweeper = world.another_node()
    world.once("place", lambda: setattr(world.clock, "time", world.clock.time + ORPHAN_AGE - 1))
    world.store.write("key", LARGE)
    world.clock.time += 10
    assert sweeper.sweep() == 0
    assert world.store.read("key") == LARGE


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- everything in any order -------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Writers, dying writers, sweepers and a clock that jumps: what is stored is what was last written, and in the end
    nothing is left but what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model: dict[str, bytes] = {}

    names = st.sampled_from(["a", "a/b", "c"])
    values = st.binary(min_size=0, max_size=40)

    @rule(key=names, data=values)
    def write(self, key: str, data: bytes) -> None:
        self.world.store.write(key, data)
        self.model[key] = data

    @rule(key=names, data=values)
    def replace(self, key: str, data: bytes) -> None:
        match = self.world.store.stat(key).version if key in self.model else ABSENT
        self.world.store.write_if(key, data, match)
        self.model[key] = data

    @rule(key=names)
    def delete(self, key: str) -> None:
        self.world.store.delete(key)
        self.model.pop(key, None)

    @rule(key=names, data=st.binary(min_size=9, max_size=40), after=st.integers(0, 4))
    def die_in_mid_upload(self, key: str, data: bytes, after: int) -> None:
        """A process that is killed cleans nothing up, so here its clean-up fails too."""
        sent = []

        def before(operation: str, name: str) -> None:
            if operation == "put_part":
                sent.append(name)
            if len(sent) > after or operation in ("place", "drop_part"):
                raise StoreUnavailable("dead")

        self.world.shelf.before = before
        with pytest.raises(StoreUnavailable):
            self.world.another_node().write(key, data)
        self.world.shelf.before = lambda *_: None

    @rule()
    def sweep(self) -> None:
        self.world.another_node().sweep()

    @rule(seconds=st.sampled_from([1.0, UPLOAD_TIME, ORPHAN_AGE]))
    def wait(self, seconds: float) -> None:
        self.world.clock.time += seconds

    @invariant()
    def what_was_written_is_read(self) -> None:
        assert {key: self.world.store.read(key) for key in self.world.store.list()} == self.model

    def teardown(self) -> None:
        self.world.clock.time += ORPHAN_AGE
        self.world.store.sweep()
        due = {key for key, data in self.model.items() if len(data) > MemoryShelf.inline_bytes}
        assert {parts.part_of(name)[0] for name in self.world.shelf.parts} == due  # type: ignore[index]  # all are parts


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
