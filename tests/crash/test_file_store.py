"""A file store whose process is killed at any step of a write, or whose disk is full: old or new, never torn."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvcache.backends.file import FileStore
from kvcache.errors import NotFound, StoreUnavailable
from kvcache.kvs import ABSENT
from tests.crash.dying import crashes, dies_at
from tests.crash.full_disk import Disk, small_disk

OLD = b"old " * 1000
NEW = b"new value " * 1000


def found(store: FileStore, key: str) -> bytes | None:
    try:
        return store.read(key)
    except NotFound:
        return None


def litter(root: Path) -> list[Path]:
    temporary = root / ".kvcache" / "tmp"
    return list(temporary.iterdir()) if temporary.exists() else []


Work = Callable[[FileStore], object]

WORK: dict[str, tuple[bytes | None, Work, bytes | None]] = {
    "create": (None, lambda store: store.write("d/e/k", NEW), NEW),
    "replace": (OLD, lambda store: store.write("d/e/k", NEW), NEW),
    "create if absent": (None, lambda store: store.write_if("d/e/k", NEW, ABSENT), NEW),
    "replace if unchanged": (OLD, lambda store: store.write_if("d/e/k", NEW, store.stat("d/e/k").version), NEW),
    "upload": (OLD, lambda store: store.upload("d/e/k", io.BytesIO(NEW)), NEW),
    "delete": (OLD, lambda store: store.delete("d/e/k"), None),
}


@pytest.mark.parametrize("locking", [True, False], ids=["flock", "plain"])
@pytest.mark.parametrize("name", WORK)
def test_killed_at_every_step(tmp_path: Path, name: str, locking: bool) -> None:
    old, work, new = WORK[name]
    if "if" in name and not locking:
        work = {"create if absent": WORK["create"][1], "replace if unchanged": WORK["replace"][1]}[name]
    root = tmp_path / "root"

    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        if old is not None:
            FileStore(root, locking=locking).write("d/e/k", old)

    reset()
    seen = set()
    for _ in crashes(lambda: work(FileStore(root, locking=locking))):
        after = FileStore(root, locking=locking)
        value = found(after, "d/e/k")
        assert value in (old, new)
        seen.add(value)
        assert set(after.list()) == ({"d/e/k"} if value is not None else set())
        assert after.write("d/other", b"x") == after.stat("d/other").version, "the next start works"
        after.delete("d/other")
        assert litter(root) == [], "the next start sweeps"
        reset()
    assert found(FileStore(root, locking=locking), "d/e/k") == new
    assert seen == {old, new}, "some deaths came before the change, and some after it"


def test_conditions_hold_after_a_crash_at_every_step(tmp_path: Path) -> None:
    """Whatever is there afterwards has one version: the one it had before, if it is the old value."""
    root = tmp_path / "root"
    store = FileStore(root, locking=True)
    before = store.write("k", OLD)
    for _ in crashes(lambda: FileStore(root, locking=True).write_if("k", NEW, store.stat("k").version)):
        after = FileStore(root, locking=True)
        stored = after.read_versioned("k")
        assert (stored.version == before) == (stored.data == OLD)
        before = after.write_if("k", OLD, stored.version)


@pytest.mark.parametrize("locking", [True, False], ids=["flock", "plain"])
def test_litter_does_not_grow(tmp_path: Path, locking: bool) -> None:
    root = tmp_path / "root"
    writes = next(step for step in range(1, 50) if dies_at(step, lambda: store_write(root, locking)) and litter(root))
    most = 0
    for _ in range(50):
        assert dies_at(writes, lambda: store_write(root, locking))
        most = max(most, len(litter(root)))
    assert most == 1


def store_write(root: Path, locking: bool) -> None:
    FileStore(root, locking=locking).write("k", NEW)


def test_a_live_writers_file_is_not_swept(tmp_path: Path) -> None:
    root = tmp_path / "root"

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            other = FileStore(root)  # starts, and so sweeps, while this upload is on its way
            other.write("other", b"x")
            return super().read(size)

    FileStore(root).upload("k", Slow(NEW))
    assert FileStore(root).read("k") == NEW


def test_the_value_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power loss leaves cannot be tried here; the order of the calls that decides it can."""
    calls: list[str] = []

    def trace(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **named: object) -> object:
            result = real(*args, **named)
            if isinstance(args[0], int) and stat.S_ISDIR(os.fstat(args[0]).st_mode):
                calls.append(f"{name} directory")
            else:
                calls.append(name)
            return result

        monkeypatch.setattr(os, name, call)

    store = FileStore(tmp_path / "root", locking=True)
    store.write("the first write", b"makes the hidden directory")
    for name in ("write", "utime", "fsync", "replace"):
        trace(name)
    store.write("new directory/k", NEW)
    monkeypatch.undo()
    assert calls == [
        "write",
        "utime",
        "fsync",
        "fsync directory",  # of the root, which got `new directory` ...
        "replace",
        "fsync directory",  # ... which got the value
    ]


# -- full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.mark.parametrize("locking", [True, False], ids=["flock", "plain"])
def test_full_disk(disk: Disk, locking: bool) -> None:
    root = disk.root / "root"
    store = FileStore(root, locking=locking)
    version = store.write("k", OLD)
    with disk.full():
        for write in (
            lambda: store.write("k", NEW),
            lambda: store.write("new/key", NEW),
            lambda: store.upload("k", io.BytesIO(NEW)),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                write()
            assert "No space left on device" in str(caught.value) or "File too large" in str(caught.value)
            assert "\n" not in str(caught.value)
        assert (store.read("k"), store.stat("k").version) == (OLD, version)
        assert list(store.list()) == ["k"]
        assert litter(root) == []
    store.write("k", NEW)
    assert FileStore(root, locking=locking).read("k") == NEW


def test_a_full_disk_can_be_emptied(disk: Disk) -> None:
    store = FileStore(disk.root / "root", locking=True)
    store.write("k", OLD)
    with disk.full():
        store.delete("k")
        assert list(store.list()) == []
    with disk.full(), pytest.raises(StoreUnavailable):
        FileStore(disk.root / "another", locking=True).write("k", NEW)
