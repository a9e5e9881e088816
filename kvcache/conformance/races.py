"""Many writers at once: one winner, no lost update, no torn value."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kvcache.conformance.check import Broken, costs, expect, only_with, patiently, scratch
from kvcache.errors import AmbiguousWrite, Conflict, NotFound, Throttled
from kvcache.kvs import ABSENT, Match, Store

T = TypeVar("T")

THREADS = 8
INCREMENTS = 10
READS = 1000
"""Of each reader while the value is replaced, at the most."""
_PATIENCE = 60.0


@only_with("conditional_write")
def check_create_race(store: Store) -> None:
    """Of many that create a key at the same time exactly one succeeds, and its value is what is stored."""
    with scratch(store) as key:
        for turn in range(3):
            name = key(f"turn {turn}")

            def create(writer: int, name: str = name) -> bytes | None:
                data = f"{writer} {secrets.token_hex(8)}".encode()
                return data if _lands(store, name, data, ABSENT) else None

            winners = [data for data in together(create, THREADS) if data is not None]
            expect(len(winners) == 1, f"{len(winners)} of {THREADS} created the same key")
            expect(store.read(name) == winners[0], "the value stored is not that of the one who created it")


@only_with("conditional_write")
def check_match_race(store: Store) -> None:
    """Of many that write on the same version exactly one succeeds."""
    with scratch(store) as key:
        version = store.write(key("a"), secrets.token_bytes(16))

        def replace(writer: int) -> bytes | None:
            data = f"{writer} {secrets.token_hex(8)}".encode()
            return data if _lands(store, key("a"), data, version) else None

        winners = [data for data in together(replace, THREADS) if data is not None]
        expect(len(winners) == 1, f"{len(winners)} of {THREADS} wrote on the same version")
        expect(store.read(key("a")) == winners[0], "the value stored is not that of the one who wrote it")


@costs(2 * THREADS * THREADS * INCREMENTS + 20)  # each increment can make all the others try again
@only_with("conditional_write")
def check_no_lost_update(store: Store) -> None:
    """Counters that many raise by reading and writing on the version read lose no count."""
    throttled = store.capabilities.min_write_interval > 0
    threads, increments = (3, 2) if throttled else (THREADS, INCREMENTS)
    with scratch(store) as key:

        def count_up(_: int) -> int:
            """How many of its increments have an outcome that nobody knows."""
            unsure = 0
            for _ in range(increments):
                try:
                    increment(store, key("n"))
                except AmbiguousWrite:  # once at the most: its nonce is written no more
                    unsure += 1
            return unsure

        unsure = sum(together(count_up, threads))
        count = int(store.read(key("n")).split()[0])
        most = threads * increments
        but = f", {unsure} of them of unknown outcome," if unsure else ""
        expect(most - unsure <= count <= most, f"{threads} times {increments} increments{but} count {count}")


@costs(2 * READS + 200)
@only_with("atomic_replace")
def check_no_torn_read(store: Store) -> None:
    """Who reads while the value is replaced sees one value, whole, and no value older than one already seen."""
    size = 200_000
    over = threading.Event()
    with scratch(store) as key:
        store.write(key("a"), _pattern(0, size))

        def write() -> None:
            try:
                for number in range(1, 4 if store.capabilities.min_write_interval else 20):
                    patiently(store.write, key("a"), _pattern(number, size - 1000 * number))
            finally:
                over.set()

        def read() -> None:
            last = 0
            for _ in range(READS):
                if over.is_set():
                    break
                data = store.read(key("a"))
                number = data[0] if data else -1
                expect(data == _pattern(number, size - 1000 * number), "a reader saw a part of a value")
                expect(number >= last, f"a reader saw value {number} after value {last}")
                last = number

        together(lambda part: write() if part == 0 else read(), 3)


def increment(store: Store, key: str) -> None:
    """Raises the counter under `key` by one, with a nonce, so that equal counts are different bytes."""
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        match: Match
        try:
            stored = store.read_versioned(key)
        except NotFound:
            count, match = 0, ABSENT
        else:
            count, match = int(stored.data.split()[0]), stored.version
        if _lands(store, key, f"{count + 1} {secrets.token_hex(8)}".encode(), match):
            return
    raise Broken(f"a counter could not be raised for {_PATIENCE:g} s")


def together(call: Callable[[int], T], times: int) -> list[T]:
    """The results of `call(0)`, `call(1)`, ..., begun at the same moment in threads of their own."""
    start = threading.Barrier(times)

    def begin(number: int) -> T:
        start.wait(timeout=_PATIENCE)
        return call(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(begin, range(times)))


def _lands(store: Store, key: str, data: bytes, match: Match) -> bool:
    try:
        store.write_if(key, data, match)
    except Conflict:
        return False
    except Throttled as error:  # certainly not written: the key is free for the next try
        time.sleep(error.retry_after or 0.2)
        return False
    return True


def _pattern(number: int, size: int) -> bytes:
    return bytes([number]) * size
