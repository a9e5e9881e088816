"""Locks that end with their holder: `flock`, which the kernel takes back however a process dies. One host only."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def open_lock(path: Path) -> Iterator[int]:
    """The file of a lock, made if need be, not locked yet. Closing it gives the lock back."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Takes the lock, unless somebody has it. Whether it was taken."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(lock: Path) -> bool:
    """Whether a live process holds a lock; without a lock file its owner died before it could."""
    if not lock.exists():
        return False
    with open_lock(lock) as fd:
        return not try_lock(fd)
