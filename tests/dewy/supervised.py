"""What the tests of the supervisor share: the application, free ports, requests, looks at the table of processes."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dewy.listen import open_listeners
from dewy.ports import parse_ports
from dewy.supervision import Candidate, Event, Settings
from dewy.supervisor import Supervisor

WEB = Path(__file__).parents[1] / "apps" / "web.py"
PATIENCE = 30.0
"""Seconds. Generous: only a test that fails takes that long."""


def free_port() -> int:
    """Below the range from which the system takes ports for clients, so that none of them comes to sit on it."""
    while True:
        port = random.randint(22_000, 31_999)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of `condition`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


class Application:
    """A release of the web application in a directory of its own, listened for on one port, and its supervisor.

    A worker is up when it begins to accept, so that no test depends on how quick this machine is just now.
    """

    def __init__(self, directory: Path, *, port: int | None = None, **settings: Any) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(WEB, directory / "web.py")
        self.release("v1")
        self.port = port or free_port()
        self.events: list[Event] = []
        self.env = {**os.environ, "WEB_READY_DIR": str(directory)}
        self.listeners = open_listeners(parse_ports([f"127.0.0.1:{self.port}"]), environ={})
        self.supervisor = Supervisor(
            [sys.executable, "web.py"],
            self.listeners,
            cwd=str(directory),
            env=self.env,  # the tests change it between two starts
            settings=Settings(**{"ready": self.accepts, "ready_interval": 0.02, **settings}),
            on_event=self.events.append,
        )

    def release(self, version: str) -> None:
        (self.directory / "VERSION").write_text(version)

    def accepts(self, candidate: Candidate) -> str | None:
        return None if (self.directory / str(candidate.pid)).exists() else "does not accept yet"

    def get(self, path: str = "/") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def begin(self, path: str, answers: list[Any]) -> threading.Thread:
        """Sends a slow request, and returns when it is being answered. For a time when one worker serves."""
        thread = threading.Thread(target=lambda: answers.append(self.get(path)))
        thread.start()
        wait_for(lambda: self.get()["busy"] > 1, "the request is being answered")
        return thread

    def pid(self) -> int:
        pid = self.supervisor.snapshot().pid
        assert pid is not None
        return pid

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def wait_told(self, kind: type[Event], count: int = 1) -> list[Any]:
        return wait_for(lambda: events if len(events := self.told(kind)) >= count else None, f"{count} {kind.__name__}")

    def wait_drained(self) -> None:
        wait_for(lambda: not self.supervisor.snapshot().draining, "nobody draining")


@contextmanager
def application(directory: Path, **settings: Any) -> Iterator[Application]:
    app = Application(directory, **settings)
    try:
        yield app
    finally:
        app.supervisor.stop(drain=2.0)
        app.listeners.close()


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def descendants() -> dict[int, str]:
    """All children of this process and theirs, with their states."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            found[process.pid] = process.status()
        except psutil.NoSuchProcess:
            continue
    return found
