"""Load on a web server, and the count of what went wrong: for "no failed request across ten releases".

    with Load("127.0.0.1", 8000, clients=4) as load:
        ...
    report = load.stop()
    assert report.requests and not report.failed

or  python tests/load/load.py http://127.0.0.1:8000/ --clients 8 --seconds 10     (exit 1 where a request failed)

Every client has its own thread and sends one GET after the other. Of `clients`, every second one keeps its connection
open. A server may close an idle connection at any moment, also while a request is on its way to it; a client that gets
not one byte of answer on a *reused* connection then sends a GET once more on a new one, as RFC 9112 9.3.1 has it and
as every browser and proxy does. Those are counted as `resent`, not as failed. Everything else that is no 200 is failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

MOST_FAILURES = 100
"""Texts of failures that are kept; all are counted."""


@dataclass
class Report:
    """What all clients saw together."""

    requests: int = 0
    failed: int = 0
    resent: int = 0
    slowest: float = 0.0
    """Seconds of the slowest answer."""
    versions: Counter[str] = field(default_factory=Counter)
    """Answers by the version that gave them, as far as answers are JSON objects with a "version"."""
    pids: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """The first failures: seconds since the start, and what happened."""

    def add(self, other: Report) -> None:
        self.requests += other.requests
        self.failed += other.failed
        self.resent += other.resent
        self.slowest = max(self.slowest, other.slowest)
        self.versions += other.versions
        self.pids += other.pids
        self.failures = (self.failures + other.failures)[:MOST_FAILURES]

    def __str__(self) -> str:
        versions = ", ".join(f"{name}: {count}" for name, count in sorted(self.versions.items()))
        lines = [
            f"requests {self.requests}, failed {self.failed}, resent {self.resent}, slowest {self.slowest:.3f} s",
            f"versions {versions or 'none'}",
            *self.failures,
        ]
        return "\n".join(lines)


class Load:
    """Clients at work from `__enter__` to `stop`. `pause`: seconds between two requests of one client, on average."""

    def __init__(
        self, host: str, port: int, *, path: str = "/", clients: int = 4, pause: float = 0.01, timeout: float = 20.0
    ) -> None:
        self._address = (host, port)
        self._path = path
        self._pause = pause
        self._timeout = timeout
        self._over = threading.Event()
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._reports = [Report() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._client, args=(report, number % 2 == 0), daemon=True)
            for number, report in enumerate(self._reports)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def so_far(self) -> Report:
        """What was seen until now. Exact only after `stop`."""
        with self._lock:
            total = Report()
            for report in self._reports:
                total.add(report)
            return total

    def stop(self) -> Report:
        """Lets every client finish its request. Harmless when repeated."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.so_far()

    def _client(self, report: Report, keep_alive: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.is_set():
            reused = connection is not None
            connection = connection or http.client.HTTPConnection(*self._address, timeout=self._timeout)
            began = time.monotonic()
            failure = None
            try:
                closing = self._request(connection, report, keep_alive)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                # http.client says RemoteDisconnected, or a reset, before the first byte of an answer; after it,
                # IncompleteRead. A reset in the middle of an answer is told apart by `_request`.
                closing = True
                if reused:
                    with self._lock:
                        report.resent += 1
                    connection.close()
                    connection = None
                    continue
                failure = error
            except (OSError, http.client.HTTPException) as error:
                closing, failure = True, error
            with self._lock:
                report.requests += 1
                report.slowest = max(report.slowest, time.monotonic() - began)
                if failure is not None:
                    self._record(report, failure)
            if closing or not keep_alive:
                connection.close()
                connection = None
            self._over.wait(random.uniform(0.5, 1.5) * self._pause)
        if connection is not None:
            connection.close()

    def _request(self, connection: http.client.HTTPConnection, report: Report, keep_alive: bool) -> bool:
        """One request; whether the server closes the connection after it."""
        connection.request("GET", self._path, headers={} if keep_alive else {"Connection": "close"})
        response = connection.getresponse()
        try:
            body = response.read()
        except ConnectionError as error:
            raise http.client.IncompleteRead(b"") from error
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}: {body[:200]!r}")
        self._count_version(report, body)
        return response.will_close

    def _count_version(self, report: Report, body: bytes) -> None:
        try:
            value = json.loads(body)
        except ValueError:
            return
        if isinstance(value, dict):
            with self._lock:
                if "version" in value:
                    report.versions[str(value["version"])] += 1
                if "pid" in value:
                    report.pids[int(value["pid"])] += 1

    def _record(self, report: Report, error: Exception) -> None:
        report.failed += 1
        if len(report.failures) < MOST_FAILURES:
            report.failures.append(f"{time.monotonic() - self._started:8.3f} s  {type(error).__name__}: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Load on a web server; exit 1 where a request failed.")
    parser.add_argument("url", help="such as http://127.0.0.1:8000/")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two requests of one client")
    options = parser.parse_args()
    url = urlsplit(options.url)
    path = url.path or "/"
    with Load(url.hostname, url.port or 80, path=path, clients=options.clients, pause=options.pause) as load:
        time.sleep(options.seconds)
    report = load.stop()
    print(report)
    return 1 if report.failed or not report.requests else 0


if __name__ == "__main__":
    sys.exit(main())
