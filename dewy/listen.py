"""The listening sockets of the application: opened once, kept as long as dewy lives, handed to every worker.

Since dewy holds them, a connection that comes while no worker accepts waits in the kernel's queue instead of being
refused; that is why a restart, or a crash, loses none. Where systemd opened them first (socket activation), they are
adopted instead of being opened again.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

from dewy.errors import ConfigError, StartFailed
from dewy.ports import Listen

BACKLOG: Final = 4096
"""Connections that may wait for a worker; the kernel lowers it to its own limit (net.core.somaxconn)."""
FIRST_FD: Final = 3
"""Where handed-down sockets begin, for systemd and for server-starter alike."""
_SYSTEMD: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""As `bind` takes it; which of them, depends on the family."""
_STEP: Final = 0.1
"""Seconds between two tries at a port that is taken."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One open socket. A worker inherits it only by being handed it: every other child gets none."""

    listen: Listen
    socket: socket.socket
    adopted: bool = False


class Listeners:
    """All sockets, in the order in which workers get them. A context manager; `close` is for the very end."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = tuple(listeners)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._listeners)

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def fds(self) -> tuple[int, ...]:
        """The sockets by their numbers in this process."""
        return tuple(listener.socket.fileno() for listener in self._listeners)

    def environment(self) -> dict[str, str]:
        """What tells a worker of its sockets, in the ways of server-starter and of systemd.

        `LISTEN_PID` is not among it: that is the worker's own, so it is set in the worker.
        """
        handed = [(fd, listener.listen) for fd, listener in enumerate(self._listeners, FIRST_FD)]
        variables = {"SERVER_STARTER_PORT": ";".join(f"{listen}={fd}" for fd, listen in handed)}
        if handed:
            variables["LISTEN_FDS"] = str(len(handed))
            # A colon ends a name there, so the host of an address is left out.
            variables["LISTEN_FDNAMES"] = ":".join(str(listen.port) for _, listen in handed)
        return variables

    def close(self) -> None:
        """Gives the ports back. Harmless when repeated."""
        for listener in self._listeners:
            listener.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_listeners(
    ports: Iterable[Listen],
    *,
    environ: MutableMapping[str, str] = os.environ,
    backlog: int = BACKLOG,
    patience: float = 0.0,
) -> Listeners:
    """Opens every address of `ports`, or adopts the socket that systemd opened for it.

    `patience`: seconds to keep trying while an address is in use, as it is shortly after a dewy was killed whose
    workers are still finishing. systemd's variables are taken out of `environ`: they were for this process alone.

    ConfigError: systemd passed a socket that no port names (its clients would wait for ever), or a name is unknown.
    StartFailed: an address cannot be opened. Nothing stays open then.
    """
    waiting = _adoptable(environ)
    opened: list[Listener] = []
    try:
        for listen in ports:
            inherited = next((given for given in waiting if _serves(given, listen)), None)
            if inherited is None:
                opened.append(Listener(listen, _open(listen, backlog, time.monotonic() + patience)))
            else:
                waiting.remove(inherited)
                opened.append(Listener(listen, inherited, adopted=True))
        if waiting:
            addresses = ", ".join(_address(given) for given in waiting)
            raise ConfigError(
                f"--port: systemd passed a socket for {addresses}: every socket of its unit has to be named"
            )
    except BaseException:  # whatever it was, also an interrupt: no socket is left behind
        for listener in opened:
            listener.socket.close()
        for given in waiting:
            given.close()
        raise
    return Listeners(opened)


def _adoptable(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd passed to this very process; none, where the variables are meant for another."""
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    for name in _SYSTEMD:
        environ.pop(name, None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_adopt(fd) for fd in range(FIRST_FD, FIRST_FD + int(count)) if _is_socket(fd)]


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def _adopt(fd: int) -> socket.socket:
    given = socket.socket(fileno=fd)
    given.set_inheritable(False)
    return given


def _serves(given: socket.socket, listen: Listen) -> bool:
    """Whether an adopted socket is the one that `listen` asks for.

    systemd's `ListenStream=8000` is an IPv6 socket that takes IPv4 too, so all addresses match in either family.
    """
    if given.family not in (socket.AF_INET, socket.AF_INET6) or given.type != socket.SOCK_STREAM:
        return False
    host, port = given.getsockname()[:2]
    if port != listen.port:
        return False
    if listen.everywhere:
        return host in ("0.0.0.0", "::")
    return host in {address[0] for _, address in _lookup(listen)}


def _open(listen: Listen, backlog: int, deadline: float) -> socket.socket:
    family, address = _lookup(listen)[0]
    while True:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(address)
            opened.listen(backlog)
        except OSError as error:
            opened.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise StartFailed(f"cannot listen on port {listen}: {_why(error)}") from error
            time.sleep(_STEP)
        except BaseException:  # an interrupt between the socket and its use
            opened.close()
            raise
        else:
            return opened


def _lookup(listen: Listen) -> list[tuple[socket.AddressFamily, _Address]]:
    """The addresses behind `listen`, IPv4 first. Resolves names; ConfigError where there is none."""
    host = listen.host or "0.0.0.0"
    try:
        found = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--port: {str(listen)!r}: host {host!r} is unknown; an address of this host") from error
    addresses = [(family, address) for family, _, _, _, address in found]
    return sorted(addresses, key=lambda pair: pair[0] != socket.AF_INET)


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "address already in use; stop what listens there, or name another port"
        case errno.EACCES | errno.EPERM:
            return "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this host has no such address"
        case _:
            return error.strerror or str(error)


def _address(given: socket.socket) -> str:
    name = given.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else repr(name)
