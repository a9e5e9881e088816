"""Signals, handled where locks may be taken and time may pass: in a thread of their own.

A handler that runs in the main thread, between any two of its instructions, must not touch a lock that the main thread
may hold at that moment. So the interpreter's C handler only writes the signal's number into a pipe, at once and even
while the main thread is stuck in a call, and a thread reads them there and calls the handlers, one at a time, in the
order in which the signals came.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeAlias

Handler: TypeAlias = Callable[[signal.Signals], None]

_log: Final = logging.getLogger(__name__)


class Signals:
    """Handlers in force, until `close`. A context manager. Made by `install_signals`, in the main thread."""

    def __init__(self, handlers: Mapping[signal.Signals, Handler]) -> None:
        self._handlers: dict[int, Handler] = {int(number): handler for number, handler in handlers.items()}
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # set_wakeup_fd demands it
        self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old: dict[signal.Signals, Any] = {}
        for number in handlers:
            # Some Python handler has to be there, or the default action would be taken.
            self._old[number] = signal.signal(number, _nothing) or signal.SIG_DFL
        self._thread = threading.Thread(target=self._dispatch, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Puts back what was in force before. Waits for a handler that runs, unless called by it."""
        for number, old in self._old.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(self._old_wakeup)
        self._writer.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _dispatch(self) -> None:
        with self._reader:
            while numbers := self._reader.recv(4096):
                for number in numbers:
                    # Signals that others handle (SIGCHLD of asyncio, SIGINT of Python itself) pass here too.
                    if handler := self._handlers.get(number):
                        self._call(handler, signal.Signals(number))

    def _call(self, handler: Handler, number: signal.Signals) -> None:
        try:
            handler(number)
        except Exception:  # whatever a handler does, later signals, above all SIGTERM, must still be served
            _log.exception("signal handler failed: %s", number.name)


def install_signals(handlers: Mapping[signal.Signals, Handler]) -> Signals:
    """Has `handlers` called for their signals from now on. Main thread only (ValueError elsewhere).

    Handlers run in another thread, one after the other, and may block, but hold up later signals meanwhile; so they had
    better only set something going (`Supervisor.request_restart`, an event). While process 1, only signals that are
    handled here have any effect: the kernel takes no default action for that process.
    """
    return Signals(handlers)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The number is in the pipe already."""
