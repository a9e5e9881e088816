"""Which process accepted a connection that this one has just made to a port of this host. Linux: read from /proc.

Old and new worker accept on the same socket, so nobody can choose whom a connection reaches. But the kernel tells
afterwards: the server's end of a connection has an inode once it was accepted, and whoever holds it has it among its
open files. So a health check can ask the new worker alone, of any application, without its help.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TABLES: Final = ("net/tcp", "net/tcp6")
_MAPPED: Final = bytes(10) + b"\xff\xff"
"""Before an IPv4 address that came in on an IPv6 socket."""


def available() -> bool:
    """Whether this host can tell."""
    return sys.platform == "linux" and (_PROC / "self" / _TABLES[0]).exists()


def accepted(connections: Iterable[socket.socket]) -> Mapping[socket.socket, int]:
    """The inode of the other end of each connection that somebody has accepted by now. OSError."""
    wanted = {pair: connection for connection in connections for pair in _pairs(connection)}
    found = {}
    for name in _TABLES:
        with contextlib.suppress(FileNotFoundError), (_PROC / "self" / name).open(encoding="ascii") as table:  # no IPv6
            next(table, None)
            for line in table:
                columns = line.split()
                connection = wanted.get((columns[1], columns[2]))
                if connection is not None and columns[9] != "0":  # 0: it waits to be accepted
                    found[connection] = int(columns[9])
    return found


def held_in_session(inodes: Iterable[int], session: int) -> set[int]:
    """Those of the inodes that a process of the session has among its open files."""
    names = {f"socket:[{inode}]": inode for inode in inodes}
    held = set()
    for process in _PROC.iterdir():
        if process.name.isdecimal() and _session_of(process) == session:
            # It may end between two looks, or be another user's by now, which is then beyond us.
            with contextlib.suppress(OSError):
                for link in (process / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        held |= {names[target]} if (target := str(link.readlink())) in names else set()
    return held


def _session_of(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[3])  # the name before it may hold blanks and brackets
    except (OSError, IndexError):
        return None


def _pairs(connection: socket.socket) -> list[tuple[str, str]]:
    """(local, remote) of the other end, as the kernel's tables write it: IPv4, or IPv4 inside IPv6."""
    here, there = connection.getsockname(), connection.getpeername()
    pairs = [(_endpoint(there, b""), _endpoint(here, b""))]
    if connection.family == socket.AF_INET:
        pairs.append((_endpoint(there, _MAPPED), _endpoint(here, _MAPPED)))
    return pairs


def _endpoint(name: tuple[str, int], prefix: bytes) -> str:
    packed = prefix + ipaddress.ip_address(name[0].partition("%")[0]).packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{name[1]:04X}"
