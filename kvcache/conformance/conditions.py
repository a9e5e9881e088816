"""Conditional writes: they land when the condition holds, and only then."""

from __future__ import annotations

import secrets

from kvcache.conformance.check import (
    expect,
    expect_absent,
    expect_error,
    expect_value,
    only_with,
    patiently,
    refusal,
    scratch,
)
from kvcache.errors import Conflict, Unsupported
from kvcache.kvs import ABSENT, Match, Store, Version


@refusal("conditional_write")
def refuses_conditional_writes(store: Store) -> None:
    """A store without conditional writes refuses them, and writes nothing."""
    with scratch(store) as key:
        expect_error(Unsupported, "write_if on an absent key", store.write_if, key("a"), b"x", ABSENT)
        expect_absent(store, key("a"), "a conditional write that is not supported")
        version = store.write(key("a"), b"old")
        expect_error(Unsupported, "write_if with a version", store.write_if, key("a"), b"x", version)
        expect_value(store, key("a"), b"old", "a conditional write that is not supported")


def _expect_conflict(store: Store, key: str, match: Match, why: str) -> None:
    """A write on `match` must be refused and change neither value nor version."""
    before = store.read_versioned(key)
    expect_error(Conflict, f"write_if {why}", patiently, store.write_if, key, _unique("intruder"), match)
    after = store.read_versioned(key)
    expect(
        (after.data, after.version) == (before.data, before.version),
        f"write_if {why} was refused, and yet changed {before.version} to {after.version}",
    )


def _expect_conflict_on_absent(store: Store, key: str, match: Match, why: str) -> None:
    expect_error(Conflict, f"write_if {why}", patiently, store.write_if, key, b"intruder", match)
    expect_absent(store, key, f"a refused write_if {why}")


def _unique(text: str) -> bytes:
    """Bytes that are written only once, so that versions that derive from content differ too."""
    return f"{text} {secrets.token_hex(8)}".encode()


@only_with("conditional_write")
def check_create_only(store: Store) -> None:
    """A write on ABSENT lands on an absent key and is refused on any other, an empty one included."""
    with scratch(store) as key:
        data = _unique("first")
        version = store.write_if(key("a"), data, ABSENT)
        expect_value(store, key("a"), data, "write_if on ABSENT")
        expect(store.read_versioned(key("a")).version == version, "write_if returned another version than is read")
        _expect_conflict(store, key("a"), ABSENT, "on ABSENT over a value")
        store.write(key("empty"), b"")
        _expect_conflict(store, key("empty"), ABSENT, "on ABSENT over an empty value")


@only_with("conditional_write")
def check_create_again(store: Store) -> None:
    """A write on ABSENT lands on a key that was deleted."""
    with scratch(store) as key:
        store.write(key("a"), _unique("first"))
        store.delete(key("a"))
        data = _unique("second")
        patiently(store.write_if, key("a"), data, ABSENT)
        expect_value(store, key("a"), data, "deleting it and write_if on ABSENT")


@only_with("conditional_write")
def check_match(store: Store) -> None:
    """A write on the current version lands, by whichever way that version was learnt, and returns the next one."""
    with scratch(store) as key:
        told = store.write(key("a"), _unique("0"))
        for learnt_by in ("write", "write_if", "read_versioned", "stat"):
            if learnt_by == "read_versioned":
                told = store.read_versioned(key("a")).version
            elif learnt_by == "stat":
                told = store.stat(key("a")).version
            data = _unique(learnt_by)
            told = patiently(store.write_if, key("a"), data, told)
            expect_value(store, key("a"), data, f"write_if on the version learnt by {learnt_by}")
            expect(store.read_versioned(key("a")).version == told, "write_if returned another version than is read")


@only_with("conditional_write")
def check_match_of_odd_values(store: Store) -> None:
    """Conditions hold alike for values that are empty, binary, and of 1 MiB."""
    with scratch(store) as key:
        for number, data in enumerate((b"", bytes(range(256)), secrets.token_bytes(1024 * 1024))):
            name = key(f"v{number}")
            first = store.write_if(name, data, ABSENT)
            _expect_conflict(store, name, ABSENT, f"on ABSENT over {len(data)} bytes")
            replacement = data + b"!"
            patiently(store.write_if, name, replacement, first)
            expect_value(store, name, replacement, f"write_if on the version of {len(data)} bytes")
            expect_error(Conflict, "write_if on a stale version", store.write_if, name, data + b"?", first)


@only_with("conditional_write")
def check_stale(store: Store) -> None:
    """A write on a version that has been replaced is refused, whether or not its replacement was conditional."""
    with scratch(store) as key:
        first = store.write(key("a"), _unique("1"))
        second = patiently(store.write, key("a"), _unique("2"))
        _expect_conflict(store, key("a"), first, "on the version before an unconditional write")
        patiently(store.write_if, key("a"), _unique("3"), second)
        _expect_conflict(store, key("a"), second, "on the version before a conditional write")
        _expect_conflict(store, key("a"), first, "on the version before two writes")


@only_with("conditional_write")
def check_version_of_another_key(store: Store) -> None:
    """A write on the version of another key is refused."""
    with scratch(store) as key:
        other = store.write(key("b"), _unique("other"))
        store.write(key("a"), _unique("mine"))
        _expect_conflict(store, key("a"), other, "on another key's version")


@only_with("conditional_write")
def check_made_up_version(store: Store) -> None:
    """A write on a version that the store never gave is refused like any other that is not current."""
    with scratch(store) as key:
        store.write(key("a"), _unique("mine"))
        for token in ("", "0", "1", "*", '"0123456789abcdef0123456789abcdef"', "no such version"):
            _expect_conflict(store, key("a"), Version(token), f"on the made-up version {token!r}")


@only_with("conditional_write")
def check_vanished(store: Store) -> None:
    """A write on the version of a key that was deleted is refused, and the key stays absent."""
    with scratch(store) as key:
        version = store.write(key("a"), _unique("1"))
        store.delete(key("a"))
        _expect_conflict_on_absent(store, key("a"), version, "on the version of a deleted key")
        other = store.write(key("b"), _unique("2"))
        _expect_conflict_on_absent(store, key("never"), other, "with a version on a key that never was")


@only_with("conditional_write")
def check_delete_and_create_again(store: Store) -> None:
    """A version from before a deletion is refused after the key was created again."""
    with scratch(store) as key:
        before = store.write(key("a"), _unique("1"))
        store.delete(key("a"))
        patiently(store.write_if, key("a"), _unique("2"), ABSENT)
        _expect_conflict(store, key("a"), before, "on the version before delete and create")


@only_with("conditional_write")
def check_a_b_a(store: Store) -> None:
    """A version is refused when the value has changed and changed back, if each write's bytes are unique."""
    with scratch(store) as key:
        first = store.write(key("a"), _unique("A"))
        patiently(store.write, key("a"), _unique("B"))
        patiently(store.write, key("a"), _unique("A"))
        _expect_conflict(store, key("a"), first, "on a version from before A-B-A")


@only_with("conditional_write", "unique_versions")
def check_a_b_a_with_equal_bytes(store: Store) -> None:
    """A version is refused when the value has changed and changed back to the very same bytes."""
    with scratch(store) as key:
        first = store.write(key("a"), b"A")
        patiently(store.write, key("a"), b"B")
        patiently(store.write, key("a"), b"A")
        _expect_conflict(store, key("a"), first, "on a version from before A-B-A with equal bytes")


@only_with("conditional_write", "unique_versions")
def check_same_bytes_twice(store: Store) -> None:
    """A conditional write of the bytes that are there lands, and ends the version that was."""
    with scratch(store) as key:
        first = store.write_if(key("a"), b"same", ABSENT)
        second = patiently(store.write_if, key("a"), b"same", first)
        expect(first != second, f"writing the same bytes again kept the version {first}")
        _expect_conflict(store, key("a"), first, "on the version before the same bytes were written again")


@only_with("conditional_write", "unique_versions")
def check_delete_and_create_again_with_equal_bytes(store: Store) -> None:
    """A version from before a deletion is refused although the same bytes were written again."""
    with scratch(store) as key:
        before = store.write(key("a"), b"same")
        store.delete(key("a"))
        patiently(store.write, key("a"), b"same")
        _expect_conflict(store, key("a"), before, "on the version before delete and create with equal bytes")
