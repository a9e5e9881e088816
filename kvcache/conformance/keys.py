"""Which keys there are, which there are not, and how they are listed."""

from __future__ import annotations

import tempfile
from io import BytesIO
from itertools import islice
from pathlib import Path

from kvcache.conformance.check import Broken, costs, expect, expect_absent, expect_error, expect_value, scratch
from kvcache.errors import InvalidKey, StoreUnavailable
from kvcache.kvs import ABSENT, MAX_KEY_BYTES, Store

UNUSUAL = (
    "with space",
    " leading and trailing ",
    "percent%",
    "percent%2Fescaped",
    "percent%252Ftwice",
    "question?mark=1",
    "hash#mark",
    "plus+and&ampersand=equals",
    "quote'and\"quotes",
    "colon:semicolon;comma,",
    "star*[set]{braces}|<angle>",
    "$dollar`backtick`~tilde^!",
    "-dash",
    ".hidden",
    "..twice",
    "twice..",
    "...",
    "UPPER and lower",
    "ünïcödé/日本語/ключ/🔑",
    "deep/er/and/deeper/than/one/would/think",
    "v1.2.3--app_linux_amd64.tar.gz",
    "registry-cache/6a3ac88e9034e0d9.json",
    "s" * 255,
    ".kvcache/locks",
    ".kvcache%=x",
)

HOSTILE = (
    "",
    "/",
    "/absolute",
    ".",
    "..",
    "../escape",
    "a/../../escape",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "trailing/",
    "NUL\x00byte",
    "back\\slash",
    "line\nend",
    "delete\x7f",
    "lone surrogate \udc80",
    "x" * (MAX_KEY_BYTES + 1),
)
_TELLING = ("absolute", "escape", "trailing", "byte", "slash", "line", "delete", "surrogate", "xxx")
"""What keys have in their names that come of hostile ones: others may write to the store meanwhile."""


@costs(200)
def check_unusual_keys(store: Store) -> None:
    """Keys with spaces, percent signs, question marks, unicode, long ones: each is one key, and is listed as it is."""
    with scratch(store) as key:
        longest = ("m" * 199 + "/") * 5
        names = [*UNUSUAL, longest[: MAX_KEY_BYTES - len(key(""))]]
        for name in names:
            store.write(key(name), name.encode())
        for name in names:
            expect_value(store, key(name), name.encode(), "writing keys that look like it")
        listed = list(store.list(key("")))
        due = sorted(key(name) for name in names)
        expect(listed == due, f"list: {_difference(listed, due)}")
        for name in names:
            store.delete(key(name))
        expect(not list(store.list(key(""))), "keys are listed after all were deleted")


def check_long_segments(store: Store) -> None:
    """A segment of more than 255 bytes, the limit of most file systems, works; or such a key is InvalidKey."""
    with scratch(store) as key:
        kept = []
        for name in ("l" * 300, "ü" * 150 + "/" + "ä" * 200, "dir/" + "x" * 600):
            try:
                store.write(key(name), name.encode())
            except InvalidKey:
                expect(not list(store.list(key(name))), "a key that was refused is listed")
            else:
                kept.append(key(name))
                expect_value(store, key(name), name.encode(), "writing a key with a long segment")
        expect(list(store.list(key(""))) == sorted(kept), "keys with long segments are not listed as they are")


def check_case_of_keys(store: Store) -> None:
    """Keys that differ in case only are different keys."""
    with scratch(store) as key:
        store.write(key("readme"), b"lower")
        store.write(key("README"), b"upper")
        expect_value(store, key("readme"), b"lower", "writing a key that differs in case")


@costs(300)
def check_hostile_keys(store: Store) -> None:
    """Keys that are empty, absolute, climb out, or hold NUL are InvalidKey in every method; nothing is written."""
    before = _some(store)
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory, "file")
        for key in HOSTILE:
            shown = repr(key[:40])
            expect_error(InvalidKey, f"read({shown})", store.read, key)
            expect_error(InvalidKey, f"read_versioned({shown})", store.read_versioned, key)
            expect_error(InvalidKey, f"stat({shown})", store.stat, key)
            expect_error(InvalidKey, f"write({shown})", store.write, key, b"x")
            expect_error(InvalidKey, f"delete({shown})", store.delete, key)
            expect_error(InvalidKey, f"upload({shown})", store.upload, key, BytesIO(b"x"))
            expect_error(InvalidKey, f"download({shown})", store.download, key, local)
            if store.capabilities.conditional_write:
                expect_error(InvalidKey, f"write_if({shown})", store.write_if, key, b"x", ABSENT)
        expect(not local.exists(), "a download of a hostile key left a file")
    left = {key for key in _some(store) - before if any(part in key for part in _TELLING)}
    expect(not left, f"writes of hostile keys left {sorted(left)[:5]}")


def _some(store: Store) -> set[str]:
    """The first keys of the store, which may be full of other people's."""
    return set(islice(store.list(), 2000))


def check_list(store: Store) -> None:
    """list gives the keys that start with the prefix, character by character, sorted, at once after a write."""
    with scratch(store) as key:
        names = ["a", "a.txt", "a0/x", "ab", "abc/d", "abc/e/f", "abc.d", "b", "C", "ä", "z%2F", "z z"]
        for name in reversed(names):
            store.write(key(name), b"")
            expect(key(name) in store.list(key(name)), f"{name!r} is not listed right after it was written")
        for prefix in ("", "a", "ab", "abc/", "abc/e", "b", "z", "z%", "z ", "ä", "nothing"):
            due = sorted(key(name) for name in names if name.startswith(prefix))
            listed = list(store.list(key(prefix)))
            expect(listed == due, f"list with prefix {prefix!r}: {_difference(listed, due)}")
        for hostile in ("../", "/", "a//", "\x00"):
            expect(not list(store.list(key("") + hostile)), f"keys are listed below the prefix {hostile!r}")


def check_key_that_begins_another(store: Store) -> None:
    """`a` and `a/b` both work; or, where names cannot be both, the second is InvalidKey and the first is unharmed."""
    with scratch(store) as key:
        for first, second in (("a", "a/b"), ("c/d", "c"), ("e/f/g", "e"), ("h", "h/i/j")):
            store.write(key(first), b"first")
            try:
                store.write(key(second), b"second")
            except InvalidKey:
                expect_absent(store, key(second), "its write was refused")
                store.delete(key(second))
            except StoreUnavailable:
                raise
            except Exception as error:  # whatever else it is, it is the evidence
                raise Broken(f"writing {second!r} beside {first!r} raised {type(error).__name__}: {error}") from error
            else:
                expect_value(store, key(second), b"second", f"writing it beside {first!r}")
            expect_value(store, key(first), b"first", f"writing {second!r} beside it")
            store.delete(key(first))


def _difference(listed: list[str], due: list[str]) -> str:
    missing, extra = sorted(set(due) - set(listed)), sorted(set(listed) - set(due))
    return f"missing {missing[:5]}, too many {extra[:5]}" if missing or extra else f"order: {listed[:20]}"
