"""`--port`: which addresses the application is to be listened for on. Pure; `dewy.listen` opens them.

8000                one port on all IPv4 addresses of the host
8000-8003           a range, both ends included
127.0.0.1:8000      one address, or name, of the host; IPv6 as [::1]:8000
8000, 8002          several, with commas; blanks around them do not matter
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dewy.errors import ConfigError

LOWEST: Final = 1
HIGHEST: Final = 65535
LARGEST_RANGE: Final = 101
"""Ports in one range. Dewy v2 says 100 and takes 101; whoever wrote 101 there may write it here."""

_FORM: Final = "a port such as 8000, a range such as 8000-8003, or an address such as 127.0.0.1:8000 or [::1]:8000"
_NUMBER: Final = re.compile(r"\+?[0-9]+", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Listen:
    """One address to listen on. Sorted by port, then by host."""

    port: int
    host: str = ""
    """Address or name without brackets; empty: all IPv4 addresses."""

    def __str__(self) -> str:
        """As `--port` takes it, and as `SERVER_STARTER_PORT` names it: `8000`, `127.0.0.1:8000`, `[::1]:8000`."""
        if not self.host:
            return str(self.port)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def privileged(self) -> bool:
        """Whether the system may let only root open it."""
        return self.port < 1024

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all addresses of one family."""
        return self.host in ("", "0.0.0.0", "::")


def parse_ports(values: Iterable[str]) -> tuple[Listen, ...]:
    """What the values of all `--port` options name together, sorted, each address once.

    ConfigError: a value cannot be read, or two of them cannot both be opened.
    """
    named = {listen for value in values for entry in value.split(",") if entry.strip() for listen in _parse(entry)}
    ports = tuple(sorted(named))
    for number, same in groupby(ports, key=lambda listen: listen.port):
        _check_overlap(number, tuple(same))
    return ports


def _parse(entry: str) -> Iterator[Listen]:
    text = entry.strip()
    host, colon, numbers = text.rpartition(":")
    if colon and not _HOST.fullmatch(host):
        raise ConfigError(f"--port: {text!r}: {_FORM}")
    host = _canonical(host.strip("[]"), text)
    start, dash, end = numbers.partition("-")
    first, last = _number(start, text), _number(end if dash else start, text)
    if first > last:
        raise ConfigError(f"--port: {text!r}: start port ({first}) cannot be greater than end port ({last})")
    if last - first >= LARGEST_RANGE:
        raise ConfigError(f"--port: {text!r}: port range too large ({last - first + 1} ports), at most {LARGEST_RANGE}")
    return (Listen(port, host) for port in range(first, last + 1))


def _canonical(host: str, text: str) -> str:
    """One spelling for one address, so that it is not opened twice; all IPv4 addresses are spelled as the empty host.

    Only what looks like an address is touched: a name is looked up when it is opened, not here.
    """
    looks_like_address = ":" in host or re.fullmatch(r"[0-9.]+", host)
    if not looks_like_address:
        return host.lower()
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError as error:
        raise ConfigError(f"--port: {text!r}: {host!r} is no IP address; {_FORM}") from error
    return "" if address == "0.0.0.0" else address


def _number(digits: str, text: str) -> int:
    if not _NUMBER.fullmatch(digits.strip()):
        raise ConfigError(f"--port: {text!r}: {_FORM}")
    significant = digits.strip().lstrip("+0") or "0"
    # Compared by length first: a text of a million digits is refused without being turned into a number.
    port = int(significant) if len(significant) <= len(str(HIGHEST)) else HIGHEST + 1
    if not LOWEST <= port <= HIGHEST:
        shown = significant if len(significant) <= 20 else f"{significant[:20]}…"
        raise ConfigError(f"--port: {text!r}: port number must be between {LOWEST} and {HIGHEST}, got {shown}")
    return port


def _check_overlap(port: int, same: tuple[Listen, ...]) -> None:
    """All addresses and one of them cannot both be opened. Between the families there is no overlap: IPv6 sockets
    are opened for IPv6 only."""
    for everywhere in (listen for listen in same if listen.everywhere):
        for other in same:
            if other != everywhere and (":" in other.host) == (":" in everywhere.host):
                raise ConfigError(
                    f"--port: {str(other)!r}: {str(everywhere)!r} asks for port {port} on all addresses already; "
                    "name either of the two"
                )
