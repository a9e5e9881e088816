"""What the processes of `test_races.py` and `test_single_flight.py` do. Importable without pytest."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.synchronize import Barrier
from pathlib import Path

import kvcache
from kvcache.errors import Conflict, NotFound
from kvcache.kvs import ABSENT
from kvcache.url import open_store

PROCESSES = 8
PATIENCE = 60.0

_start: Barrier | None = None


@contextmanager
def eight_processes(*preload: str) -> Iterator[ProcessPoolExecutor]:
    """A pool whose jobs begin in eights, each in a process of its own. `preload`: modules imported once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    with ProcessPoolExecutor(PROCESSES, context, _meet_at, (context.Barrier(PROCESSES),)) as pool:
        yield pool


def _meet_at(barrier: Barrier) -> None:
    global _start
    _start = barrier


def await_start() -> None:
    """All begin at the same moment, however long their interpreters took."""
    assert _start is not None
    _start.wait(PATIENCE)


def create(url: str, me: str, keys: list[str]) -> list[str]:
    """Tries to create each key; returns those it did create."""
    won = []
    with open_store(url) as store:
        await_start()
        for key in keys:
            try:
                store.write_if(key, me.encode(), ABSENT)
                won.append(key)
            except Conflict:
                pass
    return won


def increment(url: str, key: str, times: int) -> int:
    """Raises a counter by one, `times` over; returns how often it was refused meanwhile."""
    refused = 0
    give_up = time.monotonic() + PATIENCE
    with open_store(url) as store:
        await_start()
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


def replace_large(url: str, key: str, me: str, size: int, times: int) -> int:
    """Replaces a large value on the version it reads, `times` over."""
    give_up = time.monotonic() + PATIENCE
    with open_store(url) as store:
        await_start()
        done = 0
        while done < times and time.monotonic() < give_up:
            try:
                store.write_if(key, large_value(f"{me} {done}", size), store.stat(key).version)
                done += 1
            except Conflict:
                pass
        assert done == times, f"only {done} of {times} after {PATIENCE:.0f} s"
    return 0


def read_large(url: str, key: str, size: int, times: int) -> int:
    """Reads it `times` over, and on until it saw a change; returns how many different values it saw, all whole."""
    seen = set()
    with open_store(url) as store:
        await_start()
        give_up = time.monotonic() + 10.0
        while times > 0 or (len(seen) < 2 and time.monotonic() < give_up):
            times -= 1
            data = store.read(key)
            assert is_whole(data, size), "torn"
            seen.add(data[:32])
    return len(seen)


def answers(url: str, env: dict[str, str], key: str, calls: Path, fails: bool) -> tuple[int, str]:
    """Asks a cache of its own for the answer; returns who it is and what it got. `calls`: a line for each load."""
    os.environ.update(env)

    def load(ctx: kvcache.LoadContext) -> str:
        with calls.open("a") as file:
            file.write(f"{ctx.previous}\n")
        time.sleep(0.2)  # so that the others have to wait
        if fails:
            raise kvcache.UpstreamError("503", retry_after=600)
        return f"of process {os.getpid()}"

    cache = kvcache.SharedCache(_opened(url), ttl=3600)
    await_start()
    try:
        return os.getpid(), cache.get(key, load).value
    except kvcache.UpstreamUnavailable as error:
        return os.getpid(), f"{error.kind} {error.count}"


@lru_cache(maxsize=1)
def _opened(url: str) -> kvcache.Store:
    """Kept for the next round: the clients of some stores take a second to make."""
    return open_store(url)
