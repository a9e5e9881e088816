"""The local copy of artifacts: whole or absent, checked, bounded; shared by processes, and with a file store."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.backends.file import FileStore
from kvcache.errors import InvalidKey, NotFound, StoreUnavailable
from kvcache.staging import BadCopy, Staging
from tests.crash.full_disk import Disk, small_disk

ROOT = Path(__file__).parents[1]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Clock:
    """Nanoseconds that pass when it is looked at."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "cache", 1000, clock=Clock())


def put(staging: Staging, name: str, data: bytes) -> Path:
    return staging.put(name, io.BytesIO(data), sha256=sha256(data), size=len(data))


def values(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and ".kvcache" not in path.parts
    )


def left_over(directory: Path) -> list[Path]:
    return list((directory / ".kvcache" / "tmp").iterdir())


# -- putting and getting ----------------------------------------------------------------------------------------------


def test_what_was_put_is_got(staging: Staging, tmp_path: Path) -> None:
    data = os.urandom(500)
    path = put(staging, "v1--app.tar.gz", data)
    assert path == tmp_path / "cache" / "v1--app.tar.gz"
    assert path.read_bytes() == data
    assert staging.get("v1--app.tar.gz") == path
    assert staging.get("v1--app.tar.gz", sha256=sha256(data).upper(), size=500) == path
    assert staging.sha256_of("v1--app.tar.gz") == sha256(data)
    assert left_over(tmp_path / "cache") == []


def test_what_was_not_put_is_not_there(staging: Staging) -> None:
    assert staging.get("a") is None
    assert staging.get("a/b", sha256="0" * 64, size=1) is None
    assert staging.sha256_of("a") is None
    assert staging.names() == []
    staging.remove("a")


def test_names_with_slashes_and_hostile_ones(staging: Staging, tmp_path: Path) -> None:
    assert put(staging, "apps/0123/v1--app", b"x") == tmp_path / "cache" / "apps" / "0123" / "v1--app"
    for name in ("../escape", "/absolute", "", "a/../../b"):
        for call in (
            lambda name=name: put(staging, name, b"x"),
            lambda name=name: staging.get(name),
            lambda name=name: staging.sha256_of(name),
            lambda name=name: staging.remove(name),
            lambda name=name: staging.use(name).__enter__(),
        ):
            with pytest.raises(InvalidKey):
                call()
    assert values(tmp_path) == ["cache/apps/0123/v1--app"]


def test_a_function_may_fetch(staging: Staging) -> None:
    def fetch(path: Path) -> None:
        assert not path.exists()
        path.write_bytes(b"fetched")

    assert staging.put("a", fetch).read_bytes() == b"fetched"
    assert staging.sha256_of("a") == sha256(b"fetched")


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"size": 5}, "fetched 4 bytes, SHA-256 .*, due were 5 bytes"),
        ({"sha256": "0" * 64}, "due were SHA-256 0000"),
        ({"size": 4, "sha256": "0" * 64}, "due were 4 bytes, SHA-256 0000"),
        ({"size": 3, "sha256": sha256(b"data")}, "due were 3 bytes"),
    ],
)
def test_what_is_not_what_was_announced_is_not_staged(
    staging: Staging, tmp_path: Path, expected: dict[str, object], says: str
) -> None:
    put(staging, "a", b"old")
    for source in (io.BytesIO(b"data"), lambda path: path.write_bytes(b"data")):
        with pytest.raises(BadCopy, match=says):
            staging.put("a", source, **expected)  # type: ignore[arg-type]
    assert staging.get("a") is not None
    assert (tmp_path / "cache" / "a").read_bytes() == b"old"
    assert left_over(tmp_path / "cache") == []


def test_a_source_that_fails_leaves_nothing(staging: Staging, tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionResetError("the connection broke")
            return super().read(10)

    def fetch(path: Path) -> None:
        path.write_bytes(b"half")
        raise ConnectionResetError("the connection broke")

    for source in (Breaks(b"x" * 100), fetch):
        with pytest.raises(ConnectionResetError):
            staging.put("a", source)
    assert staging.get("a", size=4) is None
    assert values(tmp_path / "cache") == []
    assert left_over(tmp_path / "cache") == []


# -- damage -----------------------------------------------------------------------------------------------------------


def rot(path: Path, data: bytes) -> None:
    """Changes the bytes as a failing disk does: no time of change tells."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_bytes_that_the_disk_lost_are_noticed_by_what_was_measured(staging: Staging) -> None:
    path = put(staging, "a", b"good")
    rot(path, b"bad!")
    assert staging.get("a") is None
    assert not path.exists()
    assert staging.names() == []


def test_bytes_that_the_disk_lost_are_noticed_by_what_is_due(staging: Staging) -> None:
    path = put(staging, "a", b"good")
    rot(path, b"bad!")
    assert staging.get("a", sha256=sha256(b"good"), size=4) is None
    assert not path.exists()


def test_damage_that_matches_what_is_due_is_no_damage_in_disguise(staging: Staging) -> None:
    """Other bytes than were measured, of an unchanged file, are never used, whoever asks for them."""
    path = put(staging, "a", b"good")
    rot(path, b"bad!")
    assert staging.get("a", sha256=sha256(b"bad!")) is None


def test_a_short_file_is_thrown_away(staging: Staging, tmp_path: Path) -> None:
    """Dewy v2 writes in place: a crash leaves the beginning of an artifact."""
    path = tmp_path / "cache" / "v1--app"
    for expected in ({"size": 100}, {"sha256": sha256(b"x" * 100)}):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 60)
        assert staging.get("v1--app", **expected) is None  # type: ignore[arg-type]
        assert not path.exists()


def test_a_file_that_nothing_vouches_for_is_not_used_and_not_touched(staging: Staging, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "a"
    path.parent.mkdir()
    path.write_bytes(b"whose?")
    assert staging.get("a") is None
    assert path.read_bytes() == b"whose?"
    assert staging.sha256_of("a") is None


@pytest.mark.parametrize("expected", [{"size": 6}, {"sha256": sha256(b"v2 has")}])
def test_a_file_of_dewy_v2_is_taken_over_when_it_is_proven(
    staging: Staging, tmp_path: Path, expected: dict[str, object]
) -> None:
    path = tmp_path / "cache" / "a"
    path.parent.mkdir()
    path.write_bytes(b"v2 has")
    assert staging.get("a", **expected) == path  # type: ignore[arg-type]
    assert staging.sha256_of("a") == sha256(b"v2 has")
    assert staging.get("a") == path
    assert staging.names() == ["a"]


def test_a_whole_file_that_is_not_asked_for_stays(staging: Staging) -> None:
    """A tag published again: the old artifact may be deployed still, until the new one takes its place."""
    path = put(staging, "a", b"first")
    assert staging.get("a", sha256=sha256(b"second")) is None
    assert path.read_bytes() == b"first"
    put(staging, "a", b"second")
    assert staging.get("a", sha256=sha256(b"second")) == path


def test_a_record_is_of_one_file_only(staging: Staging) -> None:
    path = put(staging, "a", b"first")
    path.write_bytes(b"other")
    assert staging.sha256_of("a") is None
    assert staging.get("a") is None
    assert path.read_bytes() == b"other", "somebody wrote it on purpose: it is not damage"


def test_records_that_are_damaged_vouch_for_nothing(staging: Staging, tmp_path: Path) -> None:
    put(staging, "a", b"data")
    (record,) = (tmp_path / "cache" / ".kvcache" / "staged").iterdir()
    for torn in (b"", b"{", b"[]", b"null", b'{"name": "a"}', b"\xff\xff"):
        record.write_bytes(torn)
        assert staging.get("a") is None
        assert staging.names() == []
    assert staging.get("a", sha256=sha256(b"data")) is not None
    assert staging.names() == ["a"]


# -- the bound --------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_is_evicted(staging: Staging, tmp_path: Path) -> None:
    for name in "abc":
        put(staging, name, bytes(300))
    assert staging.get("a")
    with staging.use("b"):
        pass
    assert staging.names() == ["b", "a", "c"]
    put(staging, "d", bytes(300))
    assert values(tmp_path / "cache") == ["a", "b", "d"]
    assert staging.get("c") is None


def test_a_file_replaced_does_not_count_twice(staging: Staging, tmp_path: Path) -> None:
    put(staging, "a", bytes(400))
    put(staging, "b", bytes(400))
    put(staging, "b", bytes(600))
    assert values(tmp_path / "cache") == ["a", "b"]


def test_one_file_larger_than_the_bound_is_kept_until_the_next(staging: Staging, tmp_path: Path) -> None:
    put(staging, "a", bytes(10))
    put(staging, "large", bytes(5000))
    assert values(tmp_path / "cache") == ["large"]
    put(staging, "b", bytes(10))
    assert values(tmp_path / "cache") == ["b"]


def test_what_is_pinned_stays(tmp_path: Path) -> None:
    pins = ["deployed"]
    staging = Staging(tmp_path, 1000, pinned=lambda: pins, clock=Clock())
    put(staging, "deployed", bytes(900))
    put(staging, "a", bytes(900))
    put(staging, "b", bytes(900))
    assert values(tmp_path) == ["b", "deployed"]
    pins.clear()
    put(staging, "c", bytes(900))
    assert values(tmp_path) == ["c"]


def test_what_is_in_use_stays(staging: Staging, tmp_path: Path) -> None:
    put(staging, "used", bytes(900))
    other = Staging(tmp_path / "cache", 1000)
    with staging.use("used") as path:
        put(other, "a", bytes(900))
        put(other, "b", bytes(900))
        assert path.stat().st_size == 900
        assert "used" in values(tmp_path / "cache")
    put(other, "c", bytes(900))
    assert "used" not in values(tmp_path / "cache")


def test_what_will_be_in_use_can_be_held_before_it_is_there(staging: Staging, tmp_path: Path) -> None:
    with staging.use("a") as path:
        assert staging.get("a", size=900) is None
        put(staging, "a", bytes(900))
        put(Staging(tmp_path / "cache", 1000), "b", bytes(900))
        assert staging.get("a", size=900) == path


def test_what_others_put_there_is_not_evicted(staging: Staging, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    FileStore(cache).write("registry-cache/x.json", bytes(2000))
    FileStore(cache).write("current", b"a")
    put(staging, "a", bytes(900))
    put(staging, "b", bytes(900))
    assert values(cache) == ["b", "current", "registry-cache/x.json"]


def test_a_file_that_vanished_is_forgotten(staging: Staging, tmp_path: Path) -> None:
    put(staging, "a", bytes(900)).unlink()
    put(staging, "b", bytes(900))
    put(staging, "c", bytes(900))
    assert staging.names() == ["c"]
    assert staging.get("a") is None


SIZES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 1200)), max_size=25)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.sets(st.sampled_from("abcdefgh"), max_size=2))
def test_the_bound_holds_but_for_what_may_not_go(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, int]], pins: set[str]
) -> None:
    directory = tmp_path_factory.mktemp("staging")
    staging = Staging(directory, 1000, pinned=lambda: pins, clock=Clock())
    for name, size in puts:
        path = staging.put(name, io.BytesIO(bytes(size)))
        assert path.stat().st_size == size
        kept = {other: (directory / other).stat().st_size for other in staging.names()}
        assert set(values(directory)) == set(kept)
        if set(kept) - pins - {name}:
            assert sum(kept.values()) <= 1000
        assert pins & {done for done, _ in puts[: puts.index((name, size)) + 1]} <= set(kept)


# -- the file store in the same directory -----------------------------------------------------------------------------


def test_staged_is_stored_and_stored_is_staged(staging: Staging, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "cache", locking=True)
    names = ["v1--app.tar.gz", "apps/0123/v1--app", "l" * 300, ".kvcache/x"]
    for name in names:
        path = put(staging, name, b"1" * 50)
        inode = path.stat().st_ino
        assert store.read(name) == b"1" * 50
        store.upload(name, path)
        store.download(name, path)
        assert path.stat().st_ino == inode, "nothing was copied"
    assert list(store.list()) == sorted(names)

    store.write("v2--app", b"2" * 50)
    assert staging.get("v2--app", sha256=sha256(b"2" * 50)) == tmp_path / "cache" / "v2--app"
    store.delete("v2--app")
    assert staging.get("v2--app") is None
    staging.remove("v1--app.tar.gz")
    with pytest.raises(NotFound):
        store.read("v1--app.tar.gz")


def test_use_does_not_change_the_version_of_the_stores_value(staging: Staging, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "cache", locking=True)
    put(staging, "a", b"x")
    version = store.stat("a").version
    with staging.use("a"):
        assert staging.get("a")
    put(staging, "b", b"x")
    assert store.stat("a").version == version


# -- several processes ------------------------------------------------------------------------------------------------

PROGRAM = """
import hashlib, io, os, random, sys
from kvcache.staging import Staging
directory, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
staging = Staging(directory, 5000)
got = 0
for turn in range(40):
    number = chance.randrange(8)
    data = bytes([number]) * (500 + 100 * number)
    digest = hashlib.sha256(data).hexdigest()
    name = f"n/{number}"
    with staging.use(name) as path:
        if staging.get(name, sha256=digest, size=len(data)) is None:
            staging.put(name, io.BytesIO(data), sha256=digest, size=len(data))
        else:
            got += 1
        assert path.read_bytes() == data, "what is in use is there and whole"
print(got)
"""


def test_processes_share_a_directory(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "cache"), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for seed in range(4)
    ]
    got = 0
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        got += int(out)
    assert got > 0, "the processes found each other's files"
    staging = Staging(tmp_path / "cache", 5000)
    assert set(values(tmp_path / "cache")) == set(staging.names())
    put(staging, "last", b"x")
    assert sum((tmp_path / "cache" / name).stat().st_size for name in staging.names()) <= 5000
    assert left_over(tmp_path / "cache") == []


def test_threads_put_one_name(staging: Staging) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                data = bytes([number]) * 100
                put(staging, "a", data)
                path = staging.get("a")  # of whichever thread
                assert path is None or len(set(path.read_bytes())) == 1
        except BaseException as error:  # shown by the assertion below
            failed.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    assert staging.sha256_of("a") in {sha256(bytes([number]) * 100) for number in range(4)}


# -- full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


def test_full_disk(disk: Disk) -> None:
    staging = Staging(disk.root / "cache")
    old = put(staging, "a", b"old")

    def fetch(path: Path) -> None:
        path.write_bytes(bytes(500_000))

    with disk.full():
        with pytest.raises(StoreUnavailable):
            put(staging, "a", bytes(500_000))
        with pytest.raises(OSError, match=r"No space left|File too large"):
            staging.put("a", fetch)  # what a function raises is its own
        assert staging.get("a", sha256=sha256(b"old")) == old
        assert left_over(disk.root / "cache") == []
    assert put(staging, "a", bytes(500_000)).stat().st_size == 500_000
