"""Is the new release well? Asked of its own process, while the old one still serves beside it on the same port.

Connections are made until the new worker accepts one (`dewy.acceptor` tells); only that one is used for the request.
Those that the old worker accepts are closed unused, so that it sees no request that was not meant for it. Where the
system cannot tell (no /proc), whoever answers has to do; after a first start that is the new worker anyway.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dewy import acceptor
from dewy.errors import ConfigError
from dewy.listen import Listeners
from dewy.log import one_line
from dewy.supervision import Candidate

TCP: Final = "tcp"
"""In place of a path: it is enough that the new worker accepts a connection."""
MOST_AT_ONCE: Final = 16
"""Connections that are open at a time. More than one, lest a quick old worker takes every single one."""
_ACCEPT_WITHIN: Final = 1.0
"""Seconds that a connection may wait to be accepted before it is given up; a new worker may still be starting."""
_LOOK_EVERY: Final = 0.01
_ANSWER_WITHIN: Final = 10.0
"""Seconds for one answer. How long all may take is the supervisor's."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A readiness check: `path` of HTTP, or TCP. It is met by an answer of 200 to 399."""

    address: tuple[str, int]
    path: str

    def __call__(self, candidate: Candidate) -> str | None:
        with contextlib.ExitStack() as stack:
            try:
                connection = _reach(self.address, candidate, stack) if acceptor.available() else _connect(self.address)
            except OSError as error:
                return f"{_shown(self.address)}: {error.strerror or error}"
            if connection is None:
                return f"the new worker accepts no connection on {_shown(self.address)} yet"
            with connection:
                return None if self.path == TCP else self._ask(connection)

    def _ask(self, connection: socket.socket) -> str | None:
        """None: well."""
        connection.settimeout(_ANSWER_WITHIN)
        client = http.client.HTTPConnection(*self.address)
        client.sock = connection
        try:
            client.request("GET", self.path, headers={"Connection": "close", "User-Agent": "dewy"})
            status = client.getresponse().status
        except TimeoutError:
            return f"GET {self.path}: no answer within {_ANSWER_WITHIN:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"GET {self.path}: {type(error).__name__}: {one_line(error)}"
        return None if 200 <= status < 400 else f"GET {self.path}: HTTP status {status}"


def _reach(address: tuple[str, int], candidate: Candidate, stack: contextlib.ExitStack) -> socket.socket | None:
    """A connection that a process of the candidate's session has accepted; None where none did."""
    # The longer it is in vain, the more connections at once.
    count = min(MOST_AT_ONCE, 1 + int(candidate.age))
    waiting = [stack.enter_context(_connect(address)) for _ in range(count)]
    deadline = time.monotonic() + _ACCEPT_WITHIN
    while waiting and time.monotonic() < deadline:
        inodes = acceptor.accepted(waiting)
        held = acceptor.held_in_session(inodes.values(), candidate.pid) if inodes else set()
        for connection, inode in inodes.items():
            if inode in held:
                return connection
            waiting.remove(connection)
            connection.close()  # the old worker's: it is not to wait for a request that never comes
        time.sleep(_LOOK_EVERY)
    return None


def _connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=_ACCEPT_WITHIN)


def _shown(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def health_check(path: str, port: int | None, listeners: Listeners) -> HealthCheck | None:
    """The check that `--health-path` and `--health-port` ask for; None: none. ConfigError."""
    if not path:
        return None
    if path != TCP and not path.startswith("/"):
        raise ConfigError(f"--health-path: {path!r}: a path such as /healthz, or tcp")
    if port is not None:
        return HealthCheck(("127.0.0.1", port), path)
    names: Sequence[tuple[str, int]] = [listener.socket.getsockname()[:2] for listener in listeners]
    if not names:
        raise ConfigError(f"--health-path: {path!r}: needs --port, or --health-port")
    host, first = names[0]
    return HealthCheck(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), first), path)
