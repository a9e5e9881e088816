"""The file store, beyond the contract: the layout on disk, other programs in it, locks, and what the disk says."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.backends.file import FileStore, version_of
from kvcache.errors import (
    AmbiguousWrite,
    Conflict,
    InvalidKey,
    InvalidURL,
    NotFound,
    StoreUnavailable,
    Unsupported,
)
from kvcache.kvs import ABSENT, MAX_KEY_BYTES, check_key
from kvcache.localdir import LOCK_SLOTS, decode_path, encode_key
from kvcache.url import open_store
from tests.stores.processes import run_together


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "root", locking=True)


@pytest.fixture
def plain(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "root")


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# -- layout -----------------------------------------------------------------------------------------------------------


def test_the_file_of_a_key_is_its_value(store: FileStore, tmp_path: Path) -> None:
    store.write("v1.2.3--app_linux_amd64.tar.gz", b"artifact")
    store.write("registry-cache/6a3ac88e9034e0d9.json", b"{}")
    store.upload("current", tmp_path / "root" / "v1.2.3--app_linux_amd64.tar.gz")
    root = tmp_path / "root"
    assert (root / "v1.2.3--app_linux_amd64.tar.gz").read_bytes() == b"artifact"
    assert (root / "registry-cache" / "6a3ac88e9034e0d9.json").read_bytes() == b"{}"
    assert (root / "current").read_bytes() == b"artifact"


def test_what_dewy_v2_wrote_is_there(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "v1--app%20x.zip").write_bytes(b"from v2")
    assert list(store.list()) == ["v1--app%20x.zip"]
    assert store.read("v1--app%20x.zip") == b"from v2"


def test_modes_honour_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        FileStore(tmp_path / "root").write("a/b", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "root" / "a" / "b").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "root" / "a").stat().st_mode & 0o777 == 0o750


def test_nothing_is_left_but_values_and_locks(store: FileStore, tmp_path: Path) -> None:
    for number in range(LOCK_SLOTS + 20):
        store.write(f"k{number}", b"x")
        store.delete(f"k{number}")
    left = files_in(tmp_path / "root")
    assert all(name.startswith(".kvcache/locks/") for name in left), left
    assert len(left) <= LOCK_SLOTS


def test_the_hidden_directory_is_out_of_reach(store: FileStore, tmp_path: Path) -> None:
    names = [".kvcache", ".kvcache%", ".kvcache%=x", ".KVCACHE", ".kvcache.txt", "a/.kvcache/b"]
    for name in names:
        store.write(name, name.encode())
    assert list(store.list()) == sorted(names)
    assert [store.read(name).decode() for name in names] == names
    assert {path.name for path in (tmp_path / "root" / ".kvcache").iterdir()} == {"tmp", "locks"}
    store.delete(".kvcache")
    assert (tmp_path / "root" / ".kvcache").is_dir()


def test_prefixes_reach_into_escaped_names(store: FileStore) -> None:
    long = "l" * 300
    store.write(f"{long}/x", b"1")
    store.write(f"dir/{long}", b"2")
    assert list(store.list("l" * 250)) == [f"{long}/x"]
    assert list(store.list("dir/l")) == [f"dir/{long}"]
    assert list(store.list("dir/m")) == []


SEGMENT = st.one_of(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300),
    st.builds(lambda tail: f".kvcache{tail}", st.text("%+=a", max_size=4)),
)
KEY = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


def is_key(text: str) -> bool:
    try:
        check_key(text)
    except InvalidKey:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(KEY.filter(is_key))
def test_a_key_has_one_path_and_a_path_one_key(key: str) -> None:
    path = encode_key(key)
    assert decode_path(path) == key
    for name in path.split("/"):
        assert 0 < len(name.encode()) <= 255
        assert name not in (".", "..")
    assert path.split("/")[0].lower() != ".kvcache"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | KEY)
def test_any_path_is_a_key_or_none(path: str) -> None:
    key = decode_path(path)
    assert key is None or encode_key(key) == path


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=MAX_KEY_BYTES + 10))
def test_no_key_leads_out_of_the_directory(key: str) -> None:
    try:
        path = encode_key(key)
    except InvalidKey:
        return
    assert os.path.normpath(f"/base/{path}") == f"/base/{path}"


# -- other programs in the directory ----------------------------------------------------------------------------------


def test_a_change_by_another_program_is_another_version(store: FileStore, tmp_path: Path) -> None:
    file = tmp_path / "root" / "a"
    version = store.write("a", b"1")
    for change in (
        lambda: file.write_bytes(b"2"),  # in place, same length
        lambda: os.utime(file, ns=(1, 1)),
        lambda: (file.with_name("b").write_bytes(b"3"), file.with_name("b").rename(file)),
    ):
        change()
        with pytest.raises(Conflict):
            store.write_if("a", b"mine", version)
        version = store.read_versioned("a").version
    store.write_if("a", b"mine", version)
    assert store.read("a") == b"mine"


def test_versions_of_another_programs_quick_changes_are_told_apart(store: FileStore, tmp_path: Path) -> None:
    """Two changes of one length in one tick of the kernel's clock look alike: none is shown before the tick is over."""
    file = tmp_path / "root" / "a"
    store.write("a", b"0000")
    seen = set()
    for number in range(20):
        file.write_bytes(b"%04d" % number)
        stored = store.read_versioned("a")
        file.write_bytes(b"%04d" % (number + 5000))
        with pytest.raises(Conflict):
            store.write_if("a", b"mine", stored.version)
        seen.add(stored.version)
    assert len(seen) == 20


def test_a_backup_put_back_is_another_version(store: FileStore, tmp_path: Path) -> None:
    """Same bytes, same time of change, and on most file systems the same inode number: an operator's `cp -p`, `mv`."""
    file, restored = tmp_path / "root" / "a", tmp_path / "root" / "restored"
    for _ in range(20):
        version = store.write("a", b"1")
        status = file.stat()
        store.write("a", b"2")  # frees the inode, which the next file gets
        restored.write_bytes(b"1")
        os.utime(restored, ns=(status.st_atime_ns, status.st_mtime_ns))
        restored.rename(file)
        with pytest.raises(Conflict):
            store.write_if("a", b"mine", version)


def test_a_version_is_all_that_the_file_system_tells(store: FileStore, tmp_path: Path) -> None:
    store.write("a", b"1")
    told = (tmp_path / "root" / "a").stat()
    names = ("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    parts = {name: getattr(told, name) for name in names}

    class Status:
        def __init__(self, **changed: int) -> None:
            self.__dict__.update(parts | changed)

    versions = {version_of(Status(**{name: parts[name] + 1})) for name in names}  # type: ignore[arg-type]
    assert len(versions | {store.stat("a").version}) == len(names) + 1


def test_a_file_of_ours_is_older_than_any_change_by_others_could_be(store: FileStore, tmp_path: Path) -> None:
    before = time.time_ns()
    store.write("a", b"1")
    assert before - 50_000_000 <= (tmp_path / "root" / "a").stat().st_mtime_ns <= time.time_ns() - 50_000_000


def test_a_value_removed_by_another_program_is_absent(store: FileStore, tmp_path: Path) -> None:
    version = store.write("d/a", b"1")
    (tmp_path / "root" / "d" / "a").unlink()
    with pytest.raises(NotFound):
        store.read("d/a")
    with pytest.raises(Conflict):
        store.write_if("d/a", b"2", version)
    store.write_if("d/a", b"3", ABSENT)


def test_a_program_that_never_stops_writing_is_reported(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a", b"0")
    monkeypatch.setattr("kvcache.backends.file.unsettled", lambda status: 0.001)
    with pytest.raises(StoreUnavailable, match="another program keeps writing"):
        store.read("a")


def test_a_change_in_the_middle_of_a_read_is_seen(store: FileStore, tmp_path: Path) -> None:
    size = 3 * 1024 * 1024
    store.write("a", b"1" * size)
    told: list[int] = []

    def interfere(done: int) -> None:
        if not told:
            (tmp_path / "root" / "a").write_bytes(b"2" * size)
        told.append(done)

    stat = store.download("a", tmp_path / "copy", progress=interfere)
    assert (tmp_path / "copy").read_bytes() == b"2" * size
    assert stat.version == store.stat("a").version


def test_a_write_that_is_overwritten_at_once_has_a_version_of_its_own(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: str, target: Path) -> None:
        real(source, target)
        target.write_bytes(b"2")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        version = store.write("a", b"1")
    assert store.read("a") == b"2"
    with pytest.raises(Conflict):
        store.write_if("a", b"3", version)


def test_directories_pipes_and_broken_links_are_no_values(store: FileStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "directory" / "empty").mkdir(parents=True)
    os.mkfifo(root / "pipe")
    (root / "broken").symlink_to("nowhere")
    (root / "out").symlink_to("/etc", target_is_directory=True)
    (root / "line\nend").write_text("x")
    assert list(store.list()) == []
    for key in ("directory", "pipe", "broken", "directory/x", "pipe/x"):
        with pytest.raises(NotFound):
            store.read(key)
        store.delete(key) if key == "directory" else None
    store.write("directory/empty", b"an empty directory gives way")
    store.write("broken", b"so does a link")
    assert list(store.list()) == ["broken", "directory/empty"]


def test_an_operator_may_remove_everything(store: FileStore, tmp_path: Path) -> None:
    store.write("a/b", b"1")
    for path in sorted((tmp_path / "root").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "root").rmdir()
    assert list(store.list()) == []
    store.write_if("a/b", b"2", ABSENT)
    assert store.read("a/b") == b"2"


# -- the local copy is the store --------------------------------------------------------------------------------------


def test_a_file_of_the_store_is_not_copied_onto_itself(store: FileStore, tmp_path: Path) -> None:
    version = store.write("a", b"1")
    file = tmp_path / "root" / "a"
    inode = file.stat().st_ino
    assert store.upload("a", file) == version
    assert store.download("a", str(file)).version == version
    assert (file.read_bytes(), file.stat().st_ino) == (b"1", inode)


# -- locks, threads, processes ----------------------------------------------------------------------------------------


def test_a_lock_held_too_long_is_reported(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "root", locking=True, lock_timeout=0.05)
    store.write("a", b"1")
    locks = list((tmp_path / "root" / ".kvcache" / "locks").iterdir())
    assert len(locks) == 1
    held = os.open(locks[0], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StoreUnavailable, match=r"locked by another process for 0\.05 s"):
        store.write("a", b"2")
    assert store.read("a") == b"1"  # readers need no lock
    os.close(held)
    store.write("a", b"2")


def test_a_lock_file_that_was_removed_is_made_anew(store: FileStore, tmp_path: Path) -> None:
    store.write("a", b"1")
    for path in (tmp_path / "root" / ".kvcache" / "locks").iterdir():
        path.unlink()
    store.write_if("a", b"2", store.stat("a").version)


def test_a_forked_child_does_not_keep_the_lock(store: FileStore) -> None:
    store.write("a", b"1")
    with store._directory.key_lock("a"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        FileStore(store._directory.root, locking=True, lock_timeout=1.0).write("a", b"2")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_processes_lose_no_update(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/root?locking=flock"
    assert run_together("count_up", url, "n", 20) == [20] * 8
    assert open_store(url).read("n").split()[0] == b"160"


def test_processes_create_a_key_once(tmp_path: Path) -> None:
    won = run_together("create", f"file://{tmp_path}/root?locking=flock", "k", 30)
    assert sum(won) == 30, won


def test_writers_and_deleters_in_one_directory_do_not_hinder_each_other(plain: FileStore) -> None:
    """A delete removes the directory that is empty after it, just when a write makes a file in it."""
    failed: list[Exception] = []

    def work(name: str) -> None:
        try:
            for _ in range(100):
                plain.write(f"deep/er/{name}", b"x")
                assert plain.read(f"deep/er/{name}") == b"x"
                plain.delete(f"deep/er/{name}")
        except Exception as error:  # shown by the assertion below
            failed.append(error)

    workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    assert list(plain.list()) == []
    assert not (plain._directory.root / "deep").exists()


# -- what the disk says -----------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Calls of `os` that fail with the errno given for their name: what no real disk does on demand."""
    faults: dict[str, int] = {}

    def arm(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **named: object) -> object:
            if name in faults:
                raise OSError(faults[name], os.strerror(faults[name]))
            return real(*args, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "replace", "read"):
        arm(name)
    yield faults
    faults.clear()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_failing_disk_leaves_the_old_value(store: FileStore, failing: dict[str, int], call: str, code: int) -> None:
    store.write("a", b"old")
    version = store.stat("a").version
    failing[call] = code
    for write in (lambda: store.write("a", b"new"), lambda: store.write_if("a", b"new", version)):
        with pytest.raises(StoreUnavailable) as caught:
            write()
        assert os.strerror(code) in str(caught.value)
        assert "root/a" in str(caught.value)
        assert "\n" not in str(caught.value)
    failing.clear()
    assert (store.read("a"), store.stat("a").version) == (b"old", version)
    assert not list((store._directory.root / ".kvcache" / "tmp").iterdir())
    store.write_if("a", b"new", version)


def test_a_value_in_place_that_may_not_last_is_ambiguous(
    store: FileStore, failing: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a", b"old")
    real = os.replace

    def replace(*args: str) -> None:
        real(*args)
        failing["fsync"] = errno.EIO

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(AmbiguousWrite):
        store.write("a", b"new")


def test_a_disk_that_cannot_be_read_is_unavailable(store: FileStore, failing: dict[str, int], tmp_path: Path) -> None:
    store.write("a", b"x")
    failing["read"] = errno.EIO
    for read in (lambda: store.read("a"), lambda: store.download("a", tmp_path / "copy")):
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            read()
    assert not (tmp_path / "copy").exists()


def test_a_file_where_the_directory_should_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = FileStore(tmp_path / "file")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        store.write("a", b"x")
    with pytest.raises(NotFound):
        store.read("a")


def test_errors_of_a_source_are_the_callers_own(store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.upload("a", tmp_path / "missing")
    store.write("a", b"x")
    with pytest.raises(FileNotFoundError):
        store.download("a", tmp_path / "missing" / "target")


def test_times_too_coarse_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.utime

    def coarse(path: int, *, ns: tuple[int, int]) -> None:
        real(path, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    monkeypatch.setattr(os, "utime", coarse)
    with pytest.raises(InvalidURL, match="keeps times too coarsely"):
        open_store(f"file://{tmp_path}/root?locking=flock")
    with pytest.raises(Unsupported):
        FileStore(tmp_path / "root", locking=True).write("a", b"x")
    FileStore(tmp_path / "root").write("a", b"x")  # without conditions, versions need not be exact


def test_missing_locks_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InvalidURL, match="has no locks"):
        open_store(f"file://{tmp_path}/root?locking=flock")
    plain = open_store(f"file://{tmp_path}/root")
    plain.write("a", b"x")  # needs none
    assert plain.read("a") == b"x"
