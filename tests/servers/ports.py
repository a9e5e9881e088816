"""Free loopback ports that stay ours: for servers that must be told their port, and must find it again after a restart.

They lie below the range from which the system takes ports for outgoing connections, so that no client of any test can
come to sit on the port of a server that is down just now. A lock file keeps other test processes off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
FIRST, LAST = 11_000, 21_999
COMPANION = 10_000
"""SeaweedFS and Redis Cluster listen on a second port, this much above the one that they are given."""

_draw = random.SystemRandom()


class Port:
    """One reserved port (and its companion), until `release`."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock

    def release(self) -> None:
        """Gives the port back. Twice is not an error."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def reserve() -> Port:
    """A port on which nobody listens, nor on its companion, kept from every other caller on this machine."""
    locks = Path(tempfile.gettempdir()) / f"kvcache-test-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for _ in range(1000):
        number = _draw.randint(FIRST, LAST)
        with contextlib.ExitStack() as undo:
            lock = os.open(locks / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_free(number) and _is_free(number + COMPANION):
                undo.pop_all()
                return Port(number, lock)
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection that lingers in TIME_WAIT does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
    return True
