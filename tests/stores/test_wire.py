"""Waiting for fsspec's loop from another thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from kvcache.backends.wire import wait_for


def test_what_the_work_returns_and_raises():
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise ZeroDivisionError

    assert wait_for(answer()) == 42
    with pytest.raises(ZeroDivisionError):
        wait_for(fail())


def test_an_interrupted_caller_ends_the_work_and_waits_for_its_clean_up():
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(0.5)  # by then the caller waits
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        wait_for(work())
    assert ended.is_set()
