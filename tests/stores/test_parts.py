"""Values in parts: names and manifests; small and large values, limits and conditions, over a shelf in memory.

Readers, writers, deaths and sweeps are in test_parted.py, the real servers in test_redis.py and test_consul.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.backends import parts
from kvcache.backends.parts import ORPHAN_AGE, Manifest
from kvcache.errors import Conflict, InvalidKey, NotFound, TooLarge
from kvcache.kvs import ABSENT, Version
from tests.stores.shelf import LIMIT, START, World, fail

SMALL, LARGE, OTHER = b"small", b"0123456789" * 5 + b"end", b"another large value, in three parts"


@pytest.fixture
def world() -> World:
    return World()


# -- names and manifests -----------------------------------------------------------------------------------------------

keys = st.from_regex(r"[a-zé .%-]{1,6}(/[a-z0-9-]{1,4}){0,3}", fullmatch=True).filter(parts.is_listed)


@given(key=keys, began=st.floats(0, 1e11), number=st.integers(0, 10**6))
def test_a_part_tells_its_key_and_upload(key: str, began: float, number: int) -> None:
    upload = parts.upload_name(began, "00ff")
    assert parts.part_of(parts.part_name(key, upload, number)) == (key, upload)
    assert parts.started(upload) == int(began)
    assert not parts.is_listed(parts.part_name(key, upload, number))


@pytest.mark.parametrize(
    "name", ["key", ".parts", ".parts/key", ".parts/key/12-ff", "a/.parts/b/12-ff/0", ".parts/key/up/0", "x/key/1-f/0"]
)
def test_what_is_no_part_is_left_alone(name: str) -> None:
    assert parts.part_of(name) is None


@given(st.builds(Manifest, st.just("12-ff"), st.integers(1, 10**6), st.integers(0), st.text("0123456789abcdef")))
def test_a_manifest_survives_its_bytes(manifest: Manifest) -> None:
    assert Manifest.decode(manifest.encode()) == manifest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        b'{"upload": "up", "count": 1, "size": 1, "sha256": ""}',
        b'{"upload": 1, "count": 1, "size": 1, "sha256": ""}',
        b'{"upload": "1-f", "count": 0, "size": 1, "sha256": ""}',
        b'{"upload": "1-f", "count": "1", "size": 1, "sha256": ""}',
        b'{"upload": "1-f", "count": 1, "size": 1, "sha256": null}',
        b'{"upload": "1-f", "count": 1, "size": 1, "sha256": "", "more": 1}',
    ],
)
def test_what_is_no_manifest_is_not_taken_for_one(data: bytes) -> None:
    assert Manifest.decode(data) is None


def test_a_version_names_the_parts_it_stands_for() -> None:
    version = parts.joined("17", Manifest("12-ff", 3, 30, "00"))
    assert parts.split(version) == ("17", parts.Upload("12-ff", 3))
    assert parts.split(parts.joined("17", None)) == ("17", None)
    assert parts.split(Version("anything@at*all")) == ("anything", None)


@pytest.mark.parametrize(
    ("age", "live", "orphan"),
    [(ORPHAN_AGE - 1, None, False), (ORPHAN_AGE, None, True), (ORPHAN_AGE, "mine", False), (ORPHAN_AGE, "x", True)],
)
def test_orphans_are_old_and_named_by_nobody(age: float, live: str | None, orphan: bool) -> None:
    upload = f"{int(START)}-ff"
    assert parts.is_orphan(upload, upload if live == "mine" else live, START + age) is orphan


# -- small and large ---------------------------------------------------------------------------------------------------


def test_small_values_are_whole_and_large_ones_in_parts(world: World) -> None:
    world.store.write("key", SMALL)
    assert not world.shelf.parts
    version = world.store.write("key", LARGE)
    assert len(world.shelf.parts) == 6
    stored = world.store.read_versioned("key")
    assert (stored.data, stored.version) == (LARGE, version)
    assert (world.store.stat("key").size, world.store.stat("key").version) == (len(LARGE), version)
    assert list(world.store.list()) == ["key"]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 10, 11, 19, 20, 21, LIMIT])
def test_every_size_comes_back(world: World, size: int, tmp_path: Path) -> None:
    data, told = bytes(range(size)), []
    world.store.upload("key", io.BytesIO(data), told.append)
    assert world.store.read("key") == data
    assert told == sorted(told)
    assert told[-1] == size
    told.clear()
    stat = world.store.download("key", tmp_path / "file", told.append)
    assert (tmp_path / "file").read_bytes() == data
    assert stat == world.store.stat("key")
    assert told[-1] == size


class Dribble(io.RawIOBase):
    """Can't be rewound, and hands out three bytes at most."""

    def __init__(self, data: bytes, breaks: bool = False) -> None:
        self._rest, self._breaks = data, breaks

    def read(self, size: int = -1) -> bytes:
        if not self._rest and self._breaks:
            raise OSError("the pipe broke")
        size = min(size, 3)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def seekable(self) -> bool:
        return False


def pipe(data: bytes, breaks: bool = False) -> BinaryIO:
    return Dribble(data, breaks)  # type: ignore[return-value]  # all that upload() uses of a binary file


def test_a_stream_of_unknown_length_is_cut_into_full_parts(world: World) -> None:
    world.store.upload("key", pipe(LARGE))
    assert [len(part) for part in world.shelf.parts.values()] == [10] * 5 + [3]
    assert world.store.read("key") == LARGE


def test_an_upload_that_breaks_leaves_the_old_value_and_no_parts(world: World) -> None:
    world.store.write("key", SMALL)
    with pytest.raises(OSError, match="the pipe broke"):
        world.store.upload("key", pipe(LARGE, breaks=True))
    assert world.store.read("key") == SMALL
    assert not world.shelf.parts


@pytest.mark.parametrize("source", [io.BytesIO, pipe])
def test_too_large_changes_nothing(world: World, source: Callable[[bytes], BinaryIO]) -> None:
    world.store.write("key", SMALL)
    with pytest.raises(TooLarge, match="200 bytes"):
        world.store.upload("key", source(bytes(LIMIT + 1)))
    assert world.store.read("key") == SMALL
    assert not world.shelf.parts


def test_too_large_is_found_before_anything_is_sent(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LIMIT + 1))
    world.shelf.before = lambda operation, name: pytest.fail(f"{operation} {name}")
    for write in (
        lambda: world.store.write("key", bytes(LIMIT + 1)),
        lambda: world.store.upload("key", tmp_path / "file"),
    ):
        with pytest.raises(TooLarge):
            write()


def test_the_name_of_the_parts_is_not_for_users(world: World) -> None:
    for key in (".parts/key/1-f/0", "a/.parts/b", ".parts"):
        with pytest.raises(InvalidKey, match="reserved"):
            world.store.write(key, b"")
    world.store.write(".partsx", b"")
    assert list(world.store.list(".parts")) == [".partsx"]


# -- conditions --------------------------------------------------------------------------------------------------------


def test_conditions_hold_between_small_and_large(world: World) -> None:
    small = world.store.write_if("key", SMALL, ABSENT)
    large = world.store.write_if("key", LARGE, small)
    for match in (ABSENT, small, Version("v99")):
        with pytest.raises(Conflict):
            world.store.write_if("key", OTHER, match)
        with pytest.raises(Conflict):
            world.store.write_if("key", SMALL, match)
    assert world.store.read("key") == LARGE
    other = world.store.write_if("key", OTHER, large)
    world.store.write_if("key", SMALL, other)
    assert world.store.read("key") == SMALL
    assert not world.shelf.parts


def test_a_condition_that_cannot_hold_sends_no_parts(world: World) -> None:
    world.store.write("key", SMALL)
    world.once("put_part", fail(AssertionError("a part was sent")))
    with pytest.raises(Conflict):
        world.store.write_if("key", LARGE, ABSENT)


def test_a_write_that_loses_the_race_removes_its_parts(world: World) -> None:
    version = world.store.write("key", SMALL)
    world.once("place", lambda: world.another_node().write("key", b"theirs"))
    with pytest.raises(Conflict):
        world.store.write_if("key", LARGE, version)
    assert world.store.read("key") == b"theirs"
    assert not world.shelf.parts


@pytest.mark.parametrize("replacement", [SMALL, OTHER])
def test_what_is_replaced_or_deleted_takes_its_parts_along(world: World, replacement: bytes) -> None:
    world.store.write("key", LARGE)
    before = set(world.shelf.parts)
    world.store.write("key", replacement)
    assert before.isdisjoint(world.shelf.parts)
    world.store.write_if("key", SMALL, world.store.stat("key").version)
    world.store.write("key", LARGE)
    world.store.delete("key")
    assert not world.shelf.parts
    with pytest.raises(NotFound):
        world.store.read("key")
