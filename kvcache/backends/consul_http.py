"""One HTTP request to Consul, over urllib3: no retries, a limit on its time, its answer whole or an exception."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError

from kvcache.backends.consul_wire import Garbled, Refused, date
from kvcache.errors import TooLarge

CONNECTIONS: Final = 32
"""Connections that are kept for the next request. More are opened when needed."""
CAUGHT: Final = (HTTPError, OSError, Refused, Garbled)
"""What `ConsulHTTP.request` raises, apart from TooLarge."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`store_time` is the Date header; `index` X-Consul-Index, 0 where there is none."""

    status: int
    body: bytes
    store_time: float
    index: int


class ConsulHTTP:
    """The agent at `base`. Any thread may use it, and a forked child too."""

    def __init__(self, base: str, token: str | None, timeout: float, tls: ssl.SSLContext | None) -> None:
        self._base = base
        self._headers = {"X-Consul-Token": token} if token else {}
        self._timeout = timeout
        self._tls = tls
        self._lock = threading.Lock()  # one pool a process, though many threads send the first request
        self._pool: urllib3.PoolManager | None = None
        self._pid = 0

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        *,
        body: bytes | None = None,
        accept: Collection[int] = (200,),
        hold: float = 0.0,
    ) -> Reply:
        """Sends it once. `path` is escaped here; `hold`: seconds for which it may hold its answer back."""
        url = f"{self._base}{quote(path)}?{urlencode(params)}"
        timeout = urllib3.Timeout(connect=self._timeout, read=self._timeout + hold)
        answer = self._connections().request(
            method, url, body=body, headers=self._headers, timeout=timeout, retries=False, redirect=False
        )
        index = answer.headers.get("X-Consul-Index", "")
        # A 404 without an index is that of something else than Consul, and does not say that a key is absent.
        if answer.status not in accept or (answer.status == 404 and not index.isdigit()):
            reason = answer.data[:200].decode(errors="replace").strip().partition("\n")[0]
            if answer.status == 413:
                raise TooLarge(f"{path}: {reason}")
            raise Refused(answer.status, reason, _seconds(answer.headers.get("Retry-After")))
        index = answer.headers.get("X-Consul-Index", "")
        return Reply(answer.status, answer.data, date(answer.headers.get("Date")), int(index) if index.isdigit() else 0)

    def _connections(self) -> urllib3.PoolManager:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():  # a forked child must not share its parent's sockets
                self._pool = urllib3.PoolManager(num_pools=1, maxsize=CONNECTIONS, ssl_context=self._tls)
                self._pid = os.getpid()
            return self._pool

    def close(self) -> None:
        """Gives back the connections; the next request opens new ones."""
        with self._lock:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.clear()
            self._pool = None


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
