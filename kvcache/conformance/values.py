"""Writing, reading, deleting, and what is told about a value."""

from __future__ import annotations

import secrets
import time

from kvcache.conformance.check import (
    expect,
    expect_absent,
    expect_error,
    expect_value,
    only_with,
    patiently,
    scratch,
)
from kvcache.errors import NotFound, TooLarge
from kvcache.kvs import Store

VALUES = {
    "empty": b"",
    "one NUL": b"\x00",
    "every byte": bytes(range(256)),
    "line ends": b"\r\n\n\r",
    "what multipart bodies end with": b"\r\n--==0==--\r\n",
    "not UTF-8": b"\xff\xfe\xed\xa0\x80",
    "JSON": b'{"a": 1}',
    "1 MiB": secrets.token_bytes(1024) * 1024,
}

_LARGEST_TRIED = 128 * 1024 * 1024
"""Limits above this are believed, since trying them would cost the memory of a whole value."""


def check_read_what_was_written(store: Store) -> None:
    """What is read is byte for byte what was written, at once and by every way of reading."""
    with scratch(store) as key:
        for number, (name, data) in enumerate(VALUES.items()):
            store.write(key(f"v{number}"), data)
            expect_value(store, key(f"v{number}"), data, f"writing a value of {name}")
            expect(
                store.read_versioned(key(f"v{number}")).data == data, f"read_versioned differs for a value of {name}"
            )


def check_nothing_there(store: Store) -> None:
    """Reading a key under which nothing is stored is NotFound, not an empty value."""
    with scratch(store) as key:
        expect_error(NotFound, "reading a key that was never written", store.read, key("a"))
        expect_error(NotFound, "read_versioned of a key never written", store.read_versioned, key("a"))
        expect_error(NotFound, "stat of a key that was never written", store.stat, key("a"))


def check_write_replaces(store: Store) -> None:
    """A write replaces the whole value, whatever the lengths."""
    with scratch(store) as key:
        for data in (b"short", b"longer than the one before", b"", b"x"):
            patiently(store.write, key("a"), data)
            expect_value(store, key("a"), data, "replacing the value")


def check_delete(store: Store) -> None:
    """A deleted key is absent; its neighbours are not; deleting what is not there is not an error."""
    with scratch(store) as key:
        for name in ("a", "ab", "b/c"):
            store.write(key(name), name.encode())
        store.delete(key("a"))
        expect_absent(store, key("a"), "deleting it")
        expect_value(store, key("ab"), b"ab", "deleting its neighbour")
        store.delete(key("a"))
        store.delete(key("never/written"))
        store.delete(key("b/c"))
        expect(list(store.list(key(""))) == [key("ab")], "after deleting two of three keys, list shows something else")


def check_delete_and_write_again(store: Store) -> None:
    """A key can be written again after it was deleted, under a new version."""
    with scratch(store) as key:
        before = store.write(key("d/a"), b"first")
        store.delete(key("d/a"))
        after = patiently(store.write, key("d/a"), b"second")
        expect_value(store, key("d/a"), b"second", "deleting and writing again")
        expect(before != after, f"the version {before} came back after deleting and writing other bytes")


def check_version_is_the_same_everywhere(store: Store) -> None:
    """The version that a write returns is the one that read_versioned and stat tell, until the next write."""
    with scratch(store) as key:
        for data in (b"one", b""):
            written = patiently(store.write, key("a"), data)
            told = (store.read_versioned(key("a")).version, store.stat(key("a")).version)
            expect(told == (written, written), f"write returned {written}, read_versioned and stat tell {told}")
            expect(store.read_versioned(key("a")).version == written, "the version changed without a write")


def check_version_changes(store: Store) -> None:
    """Other bytes are another version, also when they are as long and written in the same instant."""
    with scratch(store) as key:
        versions = [patiently(store.write, key("a"), b"%06d" % n) for n in range(12)]
        expect(len(set(versions)) == len(versions), f"12 different values have only {len(set(versions))} versions")


@only_with("unique_versions")
def check_version_changes_with_equal_bytes(store: Store) -> None:
    """A write is a new version even when it writes the bytes that are there."""
    with scratch(store) as key:
        versions = [patiently(store.write, key("a"), b"same") for _ in range(12)]
        expect(len(set(versions)) == len(versions), f"12 writes of one value have only {len(set(versions))} versions")


def check_stat(store: Store) -> None:
    """stat tells the size in bytes and, if at all, a time of change that is about now by the store's clock."""
    with scratch(store) as key:
        for data in (b"", b"12345", "ü€".encode()):
            patiently(store.write, key("a"), data)
            stat = store.stat(key("a"))
            expect(stat.size == len(data), f"stat tells {stat.size} bytes of a value of {len(data)}")
            if stat.modified is not None:
                now = store.read_versioned(key("a")).store_time or time.time()
                expect(
                    abs(now - stat.modified) < 600, f"just written, but last changed {now - stat.modified:.0f} s ago"
                )


def check_too_large(store: Store) -> None:
    """A value beyond the store's limit is TooLarge, and the old one stays."""
    limit = store.capabilities.max_value_bytes
    if limit is None or limit > _LARGEST_TRIED:
        return
    with scratch(store) as key:
        store.write(key("a"), b"old")
        expect_error(TooLarge, f"writing {limit + 1} bytes", store.write, key("a"), bytes(limit + 1))
        expect_value(store, key("a"), b"old", "a write that was too large")
