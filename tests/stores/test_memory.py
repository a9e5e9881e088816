"""The memory store, beyond the contract: names, the bound, its clock, forks."""

from __future__ import annotations

import io
import os
import threading
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.backends.memory import MemoryStore
from kvcache.errors import Conflict, InvalidURL, NotFound, TooLarge
from kvcache.kvs import ABSENT
from kvcache.url import open_store


def test_the_same_name_is_the_same_store() -> None:
    name = uuid.uuid4().hex
    with open_store(f"memory://{name}?max-size=1MiB") as one:
        one.write("a", b"1")
    assert open_store(f"memory://{name}").read("a") == b"1"
    assert open_store(f"memory://{name}?max-size=1024KiB").read("a") == b"1"
    with pytest.raises(NotFound):
        open_store(f"memory://other-{name}").read("a")
    assert open_store("memory://") is open_store("memory://")


def test_a_store_has_one_size() -> None:
    name = uuid.uuid4().hex
    open_store(f"memory://{name}?max-size=1MiB")
    with pytest.raises(InvalidURL, match="max-size: '2MiB': expected 1048576, with which it was opened first"):
        open_store(f"memory://{name}?max-size=2MiB")


def test_the_least_recently_used_goes_first() -> None:
    store = MemoryStore(max_size=3 * 101)
    for key in "abc":
        store.write(key, bytes(100))
    store.read("a")
    store.stat("b")  # looking at it is not using it
    store.write("d", bytes(100))
    assert list(store.list()) == ["a", "c", "d"]
    store.write("e", bytes(200))
    assert list(store.list()) == ["d", "e"]


def test_an_evicted_key_is_absent_and_its_version_never_comes_back() -> None:
    store = MemoryStore(max_size=150)
    version = store.write_if("a", bytes(100), ABSENT)
    store.write("b", bytes(100))
    with pytest.raises(NotFound):
        store.read("a")
    with pytest.raises(Conflict):
        store.write_if("a", b"x", version)
    assert store.wait_for_change("a", version, timeout=0.0)
    assert store.write_if("a", bytes(100), ABSENT) != version


def test_what_cannot_fit_evicts_nothing() -> None:
    store = MemoryStore(max_size=100)
    store.write("a", bytes(90))
    with pytest.raises(TooLarge):
        store.write("b", bytes(100))
    with pytest.raises(TooLarge):
        store.upload("b", io.BytesIO(bytes(1000)))
    assert list(store.list()) == ["a"]


WRITES = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 120), st.booleans()), max_size=60)


@settings(max_examples=100, deadline=None)
@given(WRITES)
def test_it_never_holds_more_than_its_size(writes: list[tuple[str, int, bool]]) -> None:
    store = MemoryStore(max_size=200)
    for key, size, delete in writes:
        if delete:
            store.delete(key)
        else:
            store.write(key, bytes(size))
            assert len(store.read(key)) == size, "what was just written is not what goes"
        assert sum(len(key) + store.stat(key).size for key in store.list()) <= 200


def test_the_clock_comes_from_outside() -> None:
    store = MemoryStore(clock=lambda: 1_234.5)
    store.write("a", b"x")
    assert (store.read_versioned("a").store_time, store.stat("a").modified) == (1_234.5, 1_234.5)
    with pytest.raises(NotFound) as caught:
        store.read("b")
    assert caught.value.store_time == 1_234.5


def test_a_value_is_the_stores_own() -> None:
    store = MemoryStore()
    data = bytearray(b"1")
    store.write("a", data)  # type: ignore[arg-type]  # a caller without types
    data[0] = 0
    assert store.read("a") == b"1"


def test_a_forked_child_has_a_store_that_works() -> None:
    """Although another thread is nearly always in the middle of using it: its clock is slow."""
    in_parent = os.getpid()

    def slow_clock() -> float:
        time.sleep(0.02 if os.getpid() == in_parent else 0.0)
        return time.time()

    store = MemoryStore(clock=slow_clock)
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.001):
            store.write("busy", b"x")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        store.write("a", b"parent")
        for _ in range(5):
            child = os.fork()
            if child == 0:
                store.write("a", b"child")
                os._exit(0 if store.read("a") == b"child" else 1)
            assert exit_code(child) == 0
        assert store.read("a") == b"parent"
    finally:
        over.set()
        worker.join()


def exit_code(child: int) -> int:
    deadline = time.monotonic() + 20.0
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for a lock that nobody holds")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])
