"""The guard: a small process that ends dewy's workers if dewy is killed, whatever the way. See `standalone/guard.py`.

A process cannot clean up after its own kill -9; another has to. Workers are known to the guard from before they execute
their command until the last process of their group is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from typing import Final

from dewy.children import standalone, watch
from dewy.errors import StartFailed


class Guard:
    """Starts a guard, and a new one when it dies. Used by one thread; `lost` is called from another.

    `grace`: seconds that it gives the workers of a killed dewy to finish.
    """

    pause: Final = 1.0
    """Seconds between two tries to replace a guard, so that one that cannot live is no tight loop."""

    def __init__(self, lost: Callable[[], None], grace: float) -> None:
        self._lost = lost
        self._grace = grace
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._dead = threading.Event()
        self._tried_at = float("-inf")

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the guard's process, where there is one."""
        return () if self._child is None else (self._child.pid,)

    @property
    def fd(self) -> int:
        """Where a new worker announces itself. Only after `ensure`."""
        return self._pipe

    def ensure(self, groups: Iterable[int]) -> None:
        """Sees to it that a guard lives, and knows of `groups`. StartFailed: no new process."""
        if self._alive():
            return
        self._close_pipe()
        self._start()
        for group in groups:
            self._send(b"+%d\n" % group)

    def keep(self, groups: Iterable[int], now: float) -> float | None:
        """As `ensure`, but where it is too early for a new guard, returns the seconds to wait instead."""
        if self._alive():
            return None
        wait = self._tried_at + self.pause - now
        if wait > 0:
            return wait
        self._tried_at = now
        self.ensure(groups)
        return None

    def drop(self, group: int) -> None:
        """A process group is gone; its number may soon be another's."""
        self._send(b"-%d\n" % group)

    def close(self) -> None:
        """Lets the guard go, and waits for it. It ends whoever it still watches over."""
        self._close_pipe()
        if self._child is not None:
            self._child.wait()

    def _alive(self) -> bool:
        return self._child is not None and not self._dead.is_set()

    def _start(self) -> None:
        self._child = None
        try:
            read, self._pipe = os.pipe()
        except OSError as error:
            raise StartFailed(f"no pipe to a guard: {error.strerror}", host=True) from error
        try:
            self._child = self._spawn(read)
        except (OSError, RuntimeError) as error:  # no new process, or no new thread
            self._close_pipe()
            raise StartFailed(f"no guard: {error}", host=True) from error
        finally:
            os.close(read)

    def _spawn(self, read: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            standalone("guard", self._grace),
            stdin=read,
            # It outlives dewy: whoever reads dewy's output to its end must not wait for the guard's.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._dead = dead = threading.Event()

        def ended(_: int) -> None:
            dead.set()
            self._lost()

        try:
            watch(child, ended)
        except RuntimeError:
            child.kill()
            child.wait()
            raise
        return child

    def _send(self, line: bytes) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has died, and its successor will be told of all that live
                os.write(self._pipe, line)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
