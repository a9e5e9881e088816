"""The file that a download fills: what is hashed, and when, whatever the order in which ranges come."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.backends import landing
from kvcache.backends.bucket import Digest, Head
from kvcache.backends.landing import RANGE, Damaged, Landing, frontier
from kvcache.backends.streams import Reporter
from kvcache.kvs import Version


@given(st.lists(st.integers(0, RANGE), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_frontier_is_where_the_first_gap_begins(filled: list[int], dice: random.Random) -> None:
    reached = {number * RANGE: number * RANGE + count for number, count in enumerate(filled) if count}
    expected = 0
    for count in filled:
        expected += count
        if count < RANGE:
            break
    assert frontier(0, reached) == expected
    known = dice.randint(0, expected)  # from wherever it was before
    assert frontier(known, reached) == expected


async def fill(data: bytes, digest: str, pieces: list[tuple[int, int]], path) -> None:
    """Writes `data` in `pieces` (start, stop), while it is checked and flushed."""
    head = Head(len(data), Version("v"), digest=Digest("sha256", digest))
    partial = path.with_name("partial")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        there = Landing(descriptor, head, Reporter(None))
        async with asyncio.TaskGroup() as group:
            group.create_task(there.check())
            group.create_task(there.flush())
            for start, stop in pieces:
                await there.write([data[start:stop]], start)
        there.settle(partial, path)
    finally:
        os.close(descriptor)


def shuffled(size: int, dice: random.Random) -> list[tuple[int, int]]:
    """Pieces of all ranges: those of one in order, the ranges in any."""
    todo = {start: start for start in range(0, size, RANGE)}
    pieces = []
    while todo:
        start = dice.choice(list(todo))
        end = min(start + RANGE, size)
        stop = min(todo[start] + dice.randint(1, RANGE), end)
        pieces.append((todo[start], stop))
        todo[start] = stop
        if stop == end:
            del todo[start]
    return pieces


@pytest.mark.parametrize("seed", range(25))
def test_ranges_in_any_order(tmp_path, monkeypatch, seed):
    for name, value in {"RANGE": 1000, "CHECK": 700, "FLUSH": 1500, "BLOCK": 300}.items():
        monkeypatch.setattr(landing, name, value)
    monkeypatch.setitem(globals(), "RANGE", 1000)
    dice = random.Random(seed)
    data = dice.randbytes(dice.choice([0, 1, 999, 1000, 1001, 4000, 5555]))
    pieces = shuffled(len(data), dice)
    asyncio.run(asyncio.wait_for(fill(data, hashlib.sha256(data).hexdigest(), pieces, tmp_path / "file"), 60))
    assert (tmp_path / "file").read_bytes() == data
    with pytest.raises(Damaged, match="sha256"):
        asyncio.run(fill(data, hashlib.sha256(data + b"x").hexdigest(), pieces, tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_disk_that_fails_once_is_not_asked_again(tmp_path, monkeypatch):
    """The kernel tells of a failed write once: a second fsync would call the same file durable."""
    monkeypatch.setattr(landing, "FLUSH", 1000)
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, "no medium")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    data = os.urandom(3000)
    pieces = [(0, 1500), (1500, 3000)]
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(fill(data, hashlib.sha256(data).hexdigest(), pieces, tmp_path / "file"))
    assert caught.group_contains(OSError, match="no medium")
    assert len(calls) == 1
    assert not (tmp_path / "file").exists()
