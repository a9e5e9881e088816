"""Every check of the contract can fail: stores with one defect each, and the checks that must find it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvcache.backends.memory import MemoryStore
from kvcache.conformance import CONTRACT, KEPT, NOT_OFFERED, Broken
from kvcache.errors import InvalidKey, NotFound
from kvcache.kvs import ABSENT, ANYWAY, Capabilities, Condition, Match, Progress, Source, Stat, Store, Stored, Version

CHECKS = {check.name: check for check in CONTRACT}


class Strips(MemoryStore):
    """Loses trailing line ends, as a store of texts would."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data.rstrip(b"\r\n"), condition)


class EmptyForMissing(MemoryStore):
    def read_versioned(self, key: str) -> Stored:
        try:
            return super().read_versioned(key)
        except NotFound:
            return Stored(b"", Version("none"), time.time())


class WritesOver(MemoryStore):
    """Overwrites the beginning and leaves the rest, as a file opened without truncation."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        old = super().read(key) if key in super().list(key) else b""
        return super().put(key, data + old[len(data) :], condition)


class DeletesByPrefix(MemoryStore):
    def delete(self, key: str) -> None:
        for found in list(self.list(key)):
            super().delete(found)


class KeepsVersionOfDeleted(MemoryStore):
    """Numbers the writes of each key from one, and begins again after a deletion."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}

    def _numbered(self, key: str) -> Version:
        return Version(f"{key} {self.numbers[key]}")

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        number = self.numbers.get(key, 0)
        if isinstance(condition, Version):
            condition = super().stat(key).version if number and condition == self._numbered(key) else condition
        super().put(key, data, condition)
        self.numbers[key] = number + 1
        return self._numbered(key)

    def delete(self, key: str) -> None:
        super().delete(key)
        self.numbers.pop(key, None)

    def read_versioned(self, key: str) -> Stored:
        return replace(super().read_versioned(key), version=self._numbered(key))

    def stat(self, key: str) -> Stat:
        return replace(super().stat(key), version=self._numbered(key))


class OtherVersionInStat(MemoryStore):
    def stat(self, key: str) -> Stat:
        stat = super().stat(key)
        return replace(stat, version=Version(f"W/{stat.version.token}"))


class VersionIsSize(MemoryStore):
    """A version that derives from too little: the length."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if isinstance(condition, Version) and key in super().list(key) and condition == self.stat(key).version:
            condition = super().stat(key).version
        super().put(key, data, condition)
        return Version(str(len(data)))

    def read_versioned(self, key: str) -> Stored:
        stored = super().read_versioned(key)
        return replace(stored, version=Version(str(len(stored.data))))

    def stat(self, key: str) -> Stat:
        stat = super().stat(key)
        return replace(stat, version=Version(str(stat.size)))


class VersionIsContent(MemoryStore):
    """Claims unique versions, and derives them from the content, as an ETag."""

    @staticmethod
    def _tag(data: bytes) -> Version:
        return Version(str(hash(data)))

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if isinstance(condition, Version) and key in super().list(key) and condition == self.stat(key).version:
            condition = super().stat(key).version
        super().put(key, data, condition)
        return self._tag(data)

    def read_versioned(self, key: str) -> Stored:
        stored = super().read_versioned(key)
        return replace(stored, version=self._tag(stored.data))

    def stat(self, key: str) -> Stat:
        return replace(super().stat(key), version=self.read_versioned(key).version)


class StatInTheFuture(MemoryStore):
    def stat(self, key: str) -> Stat:
        return replace(super().stat(key), modified=time.time() + 3600)


class NoLimit(MemoryStore):
    """Says a limit, and cuts what exceeds it."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, max_value_bytes=2 * 1024 * 1024)

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data[: 2 * 1024 * 1024], condition)


class Unquotes(MemoryStore):
    """Decodes keys once too often."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key.replace("%2F", "/"), data, condition)


class CutsLongNames(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put("/".join(part[:255] for part in key.split("/")), data, condition)


class FoldsCase(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key.lower(), data, condition)

    def read_versioned(self, key: str) -> Stored:
        return super().read_versioned(key.lower())


class TakesAnyKey(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        try:
            return super().put(key, data, condition)
        except InvalidKey:
            return Version("swallowed")


class ListsUnsorted(MemoryStore):
    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(super().list(prefix), reverse=True))


class ListsDirectories(MemoryStore):
    """Takes a prefix for a directory."""

    def list(self, prefix: str = "") -> Iterator[str]:
        return (key for key in super().list(prefix) if not prefix or prefix.endswith("/") or key == prefix)


class LosesKeyBelowKey(MemoryStore):
    """`a/b` replaces `a`, as a careless file system store would have it."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        while "/" in key and (parent := key.rpartition("/")[0]) and parent in super().list(parent):
            super().delete(parent)
        return super().put(key, data, condition)


class IgnoresConditions(MemoryStore):
    """As many S3 look-alikes do."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data, ANYWAY)


class IgnoresMatch(MemoryStore):
    """Knows If-None-Match, and not If-Match."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data, condition if condition is ABSENT else ANYWAY)


class IgnoresAbsent(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data, ANYWAY if condition is ABSENT else condition)


class EmptyIsAbsent(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if condition is ABSENT and key in super().list(key) and not super().read(key):
            condition = ANYWAY
        return super().put(key, data, condition)


class CreatesOnVanished(MemoryStore):
    """A version of a key that is gone is as good as ABSENT to it."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data, condition if key in super().list(key) else ANYWAY)


class NeverCreatesAgain(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if condition is ABSENT and key in self.known:
            condition = Version("of what was deleted")
        self.known.add(key)
        return super().put(key, data, condition)


class RefusesAndWrites(MemoryStore):
    """Reports the conflict after the fact."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        version = super().put(key, data, ANYWAY) if condition is not ANYWAY else None
        return super().put(key, data, condition) if version is None or condition is ABSENT else version


class ChecksThenActs(MemoryStore):
    """Conditions that hold when nobody else is there."""

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if condition is not ANYWAY:
            found: Match = super().stat(key).version if key in super().list(key) else ABSENT
            if found == condition:
                time.sleep(0.005)
                return super().put(key, data, ANYWAY)
        return super().put(key, data, condition)


class WritesInPieces(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if condition is ANYWAY and len(data) > 100_000:
            super().put(key, data[: len(data) // 2], condition)
            time.sleep(0.002)
        return super().put(key, data, condition)


class UploadsInPlace(MemoryStore):
    """Writes what it has when the source breaks."""

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        if isinstance(source, str | os.PathLike):
            return super().upload(key, source, progress)
        data = bytearray()
        try:
            while chunk := source.read(100_000):
                data += chunk
        finally:
            version = self.write(key, bytes(data))
        return version


class UploadsFromTheStart(MemoryStore):
    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        if not isinstance(source, str | os.PathLike) and source.seekable():
            source.seek(0)
        return super().upload(key, source, progress)


class UploadsBesides(MemoryStore):
    """Creates, and does not replace."""

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        return super().stat(key).version if key in super().list(key) else super().upload(key, source, progress)


class DownloadsInPlace(MemoryStore):
    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        with Path(path).open("wb") as file:
            file.write(self.read(key))
            if progress is not None:
                progress(self.stat(key).size)
        return self.stat(key)


class ProgressInPieces(MemoryStore):
    """Tells the size of each piece rather than the sum."""

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        last = 0

        def piece(done: int) -> None:
            nonlocal last
            if progress is not None:
                progress(done - last)
            last = done

        return super().download(key, path, piece)


class ClockGoesBack(MemoryStore):
    def __init__(self) -> None:
        super().__init__(clock=iter(range(2_000_000_000, 0, -1)).__next__)


class ClockStandsInMilliseconds(MemoryStore):
    def __init__(self) -> None:
        super().__init__(clock=lambda: time.time() * 1000)


class TellsNoTime(MemoryStore):
    def read_versioned(self, key: str) -> Stored:
        return replace(super().read_versioned(key), store_time=None)


class SleepsThroughChanges(MemoryStore):
    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        time.sleep(min(timeout, 1.5))
        return False


class NeverWakes(MemoryStore):
    """Sees what has happened, is not told of what happens."""

    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        if super().wait_for_change(key, version, 0.0):
            return True
        time.sleep(min(timeout, 1.5))
        return False


class WaitsTooLong(MemoryStore):
    def wait_for_change(self, key: str, version: Version | None, timeout: float) -> bool:
        return super().wait_for_change(key, version, timeout + 1.5)


class Claims(MemoryStore):
    """Says that it can do less than it does: what is not offered has to be refused."""

    lacks: str

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, **{self.lacks: False})

    def write_if(self, key: str, data: bytes, match: Match) -> Version:
        return self.put(key, data, match)


class ClaimsNoConditions(Claims):
    lacks = "conditional_write"


class ClaimsNoTime(Claims):
    lacks = "store_time"


class ClaimsNoWatch(Claims):
    lacks = "watch"


FOUND_BY: dict[type[Store], set[str]] = {
    Strips: {"read_what_was_written"},
    EmptyForMissing: {"nothing_there", "delete"},
    WritesOver: {"write_replaces"},
    DeletesByPrefix: {"delete"},
    KeepsVersionOfDeleted: {
        "delete_and_write_again",
        "delete_and_create_again",
        "delete_and_create_again_with_equal_bytes",
    },
    OtherVersionInStat: {"version_is_the_same_everywhere"},
    VersionIsSize: {"version_changes", "a_b_a"},
    VersionIsContent: {
        "version_changes_with_equal_bytes",
        "a_b_a_with_equal_bytes",
        "same_bytes_twice",
        "delete_and_create_again_with_equal_bytes",
    },
    StatInTheFuture: {"stat"},
    NoLimit: {"too_large"},
    Unquotes: {"unusual_keys"},
    CutsLongNames: {"long_segments"},
    FoldsCase: {"case_of_keys"},
    TakesAnyKey: {"hostile_keys"},
    ListsUnsorted: {"list"},
    ListsDirectories: {"list"},
    LosesKeyBelowKey: {"key_that_begins_another"},
    IgnoresConditions: {
        "create_only",
        "stale",
        "version_of_another_key",
        "made_up_version",
        "vanished",
        "delete_and_create_again",
        "a_b_a",
        "create_race",
        "match_race",
        "no_lost_update",
    },
    IgnoresMatch: {"stale", "version_of_another_key", "made_up_version", "vanished", "match_race"},
    IgnoresAbsent: {"create_only", "match_of_odd_values", "create_race"},
    EmptyIsAbsent: {"create_only"},
    CreatesOnVanished: {"vanished"},
    NeverCreatesAgain: {"create_again"},
    RefusesAndWrites: {"create_only", "match_of_odd_values"},
    ChecksThenActs: {"create_race", "match_race", "no_lost_update", "linearizable"},
    WritesInPieces: {"no_torn_read"},
    UploadsInPlace: {"upload_that_breaks"},
    UploadsFromTheStart: {"upload_of_file_objects"},
    UploadsBesides: {"upload_replaces"},
    DownloadsInPlace: {"download_that_breaks"},
    ProgressInPieces: {"upload_and_download"},
    ClockGoesBack: {"store_time"},
    ClockStandsInMilliseconds: {"store_time"},
    TellsNoTime: {"store_time"},
    SleepsThroughChanges: {"change_that_has_happened"},
    NeverWakes: {"change_that_happens"},
    WaitsTooLong: {"no_change"},
    ClaimsNoConditions: {"create_only"},
    ClaimsNoTime: {"store_time"},
    ClaimsNoWatch: {"no_change"},
}

FINDS = [(store, name) for store, names in FOUND_BY.items() for name in sorted(names)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds until a store counts as one that does not wake: these stores have no network in between."""
    monkeypatch.setattr("kvcache.conformance.changes._SOON", 1.0)


@pytest.mark.parametrize(("broken", "name"), FINDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_defect_is_found(broken: type[Any], name: str) -> None:
    with pytest.raises(Broken) as caught:
        CHECKS[name].verify(broken())
    assert str(caught.value)


def test_every_check_finds_some_defect() -> None:
    found = {name for names in FOUND_BY.values() for name in names}
    # `match` asks that what should land does: a store that fails it fails others of these as well.
    assert set(CHECKS) - found == {"match"}


def test_a_sound_store_keeps_every_promise() -> None:
    store = MemoryStore()
    assert {check.verify(store) for check in CONTRACT} == {KEPT}


def test_what_a_store_refuses_is_not_offered() -> None:
    class Refuses(MemoryStore):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, conditional_write=False)

    assert CHECKS["create_only"].verify(Refuses()) == NOT_OFFERED
    assert CHECKS["delete"].verify(Refuses()) == KEPT


def test_every_check_says_what_it_promises() -> None:
    for check in CONTRACT:
        assert check.promise.endswith("."), check.name
        assert len(check.promise) < 200, check.name
    assert len(CHECKS) == len(CONTRACT)
