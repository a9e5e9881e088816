"""How far a transfer is, for whoever sits at a terminal; nothing where stderr is a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kvcache.kvs import Progress

PAUSE: Final = 0.1
"""Seconds between two changes of the line."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress | None]:
    """Something to call with the bytes transferred so far. `total`: how many there will be, where that is known."""
    if not sys.stderr.isatty():
        yield None
        return
    due = time.monotonic() + PAUSE  # what is over at once needs no line

    def show(done: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now < due:
            return
        due = now + PAUSE
        part = f" of {_size(total)}, {100 * done // total} %" if total else ""
        sys.stderr.write(f"\r\x1b[K{what}: {_size(done)}{part}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
