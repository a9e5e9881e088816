"""What the processes of `test_races.py` do. Importable by a fresh interpreter, and without pytest."""

from __future__ import annotations

import hashlib
import time

from kvcache.errors import Conflict, NotFound
from kvcache.kvs import ABSENT
from kvcache.url import open_store

PATIENCE = 60.0


def await_start(at: float) -> None:
    """All begin at the same moment, however long their interpreters took."""
    time.sleep(max(0.0, at - time.time()))


def create(url: str, at: float, me: str, keys: list[str]) -> list[str]:
    """Tries to create each key; returns those it did create."""
    won = []
    with open_store(url) as store:
        await_start(at)
        for key in keys:
            try:
                store.write_if(key, me.encode(), ABSENT)
                won.append(key)
            except Conflict:
                pass
    return won


def increment(url: str, at: float, key: str, times: int) -> int:
    """Raises a counter by one, `times` over; returns how often it was refused meanwhile."""
    refused = 0
    give_up = time.monotonic() + PATIENCE
    with open_store(url) as store:
        await_start(at)
        done = 0
        while done < times and time.monotonic() < give_up:
            try:
                try:
                    stored = store.read_versioned(key)
                    store.write_if(key, b"%d" % (int(stored.data) + 1), stored.version)
                except NotFound:
                    store.write_if(key, b"1", ABSENT)
                done += 1
            except Conflict:
                refused += 1
        assert done == times, f"only {done} of {times} after {PATIENCE:.0f} s"
    return refused


def large_value(seed: str, size: int) -> bytes:
    """A value that tells whether it is whole: a digest, over and over."""
    digest = hashlib.sha256(seed.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def is_whole(data: bytes, size: int) -> bool:
    """Whether it is one of `large_value`."""
    return len(data) == size and data == (data[:32] * (size // 32 + 1))[:size]


def replace_large(url: str, at: float, key: str, me: str, size: int, times: int) -> int:
    """Replaces a large value on the version it reads, `times` over."""
    give_up = time.monotonic() + PATIENCE
    with open_store(url) as store:
        await_start(at)
        done = 0
        while done < times and time.monotonic() < give_up:
            try:
                store.write_if(key, large_value(f"{me} {done}", size), store.stat(key).version)
                done += 1
            except Conflict:
                pass
        assert done == times, f"only {done} of {times} after {PATIENCE:.0f} s"
    return 0


def read_large(url: str, at: float, key: str, size: int, times: int) -> int:
    """Reads it `times` over, and on until it saw a change; returns how many different values it saw, all whole."""
    seen = set()
    with open_store(url) as store:
        await_start(at)
        give_up = time.monotonic() + 10.0
        while times > 0 or (len(seen) < 2 and time.monotonic() < give_up):
            times -= 1
            data = store.read(key)
            assert is_whole(data, size), "torn"
            seen.add(data[:32])
    return len(seen)
