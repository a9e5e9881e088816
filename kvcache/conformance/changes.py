"""Being told that a key changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kvcache.conformance.check import expect, expect_error, only_with, patiently, refusal, scratch
from kvcache.errors import StoreUnavailable, Unsupported
from kvcache.kvs import Store, Version

_SOON = 5.0
"""Seconds within which the news has to come; far more than any store needs, far less than `_LONG`."""
_LONG = 30.0


@refusal("watch")
def refuses_to_watch(store: Store) -> None:
    """A store that cannot tell of changes says so, rather than sleeping."""
    with scratch(store) as key:
        expect_error(Unsupported, "wait_for_change", store.wait_for_change, key("a"), None, 0.01)


@only_with("watch")
def check_change_that_has_happened(store: Store) -> None:
    """wait_for_change returns True at once when the key no longer has the version given."""
    with scratch(store) as key:
        first = store.write(key("a"), b"1")
        second = patiently(store.write, key("a"), b"2")
        _expect_soon(lambda: store.wait_for_change(key("a"), first, _LONG), "an older version")
        _expect_soon(lambda: store.wait_for_change(key("a"), None, _LONG), "None, and the key is there")
        store.delete(key("a"))
        _expect_soon(lambda: store.wait_for_change(key("a"), second, _LONG), "a version, and the key is gone")


@only_with("watch")
def check_change_that_happens(store: Store) -> None:
    """wait_for_change returns True soon after the key is created, replaced or deleted by somebody else."""
    with scratch(store) as key:
        _expect_woken(store, key("a"), None, lambda: store.write(key("a"), b"1"), "created")
        version = store.stat(key("a")).version
        _expect_woken(store, key("a"), version, lambda: patiently(store.write, key("a"), b"2"), "replaced")
        version = store.stat(key("a")).version
        _expect_woken(store, key("a"), version, lambda: store.delete(key("a")), "deleted")


@only_with("watch")
def check_no_change(store: Store) -> None:
    """wait_for_change returns by its time-out when nothing happens to the key."""
    with scratch(store) as key:
        version = store.write(key("a"), b"1")
        store.write(key("b"), b"1")
        for name, has in (("a", version), ("absent", None)):
            began = time.monotonic()
            store.wait_for_change(key(name), has, 0.5)
            took = time.monotonic() - began
            expect(took < 0.5 + _SOON, f"wait_for_change with a time-out of 0.5 s took {took:.1f} s")


def _expect_soon(wait: Callable[[], bool], given: str) -> None:
    began = time.monotonic()
    changed = wait()
    took = time.monotonic() - began
    expect(
        changed and took < _SOON, f"wait_for_change given {given}: {changed} after {took:.1f} s; due was True at once"
    )


def _expect_woken(store: Store, key: str, version: Version | None, change: Callable[[], object], what: str) -> None:
    """Waits in a loop, as users do: a store may wake them for nothing, but not let them sleep."""
    woken = threading.Event()
    failures: list[StoreUnavailable] = []

    def wait() -> None:
        give_up = time.monotonic() + _LONG
        try:
            while time.monotonic() < give_up and not woken.is_set():
                if store.wait_for_change(key, version, _LONG) and _version(store, key) != version:
                    woken.set()
        except StoreUnavailable as error:
            failures.append(error)
            woken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    time.sleep(0.3)  # so that the waiter is most likely waiting by now; it is right either way
    change()
    expect(woken.wait(_SOON), f"wait_for_change did not return within {_SOON:g} s after the key was {what}")
    waiter.join(_SOON)
    for failure in failures:
        raise failure


def _version(store: Store, key: str) -> Version | None:
    return next((store.stat(key).version for _ in store.list(key)), None)
