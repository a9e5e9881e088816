"""The demo's story: a fleet starts, serves, moves to a new release under load; then the numbers."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from dewy.demo.upstream import Upstream

NODES = 3
TTL = 4.0
PATIENCE = 60.0
"""Seconds within which every step has to happen, on however slow a machine."""


class DemoFailed(Exception):
    """What was promised did not happen; the message says what."""


class Node:
    """One `dewy server` in a directory of its own, with one port."""

    def __init__(self, number: int, directory: Path, cache: str, upstream: Upstream) -> None:
        self.name = f"node-{number}"
        self.port = _free_port()
        self.log = directory / f"{self.name}.log"
        root = directory / self.name
        root.mkdir()
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("DEWY_", "GITHUB_", "GH_"))}
        command = [sys.executable, "-m", "dewy", "server", "--registry", "ghr://demo/app", "--cache", cache]
        command += ["--interval", "1s", "--port", f"127.0.0.1:{self.port}", "--", "./current/app"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=root, stderr=log, stdout=log, env={**plain, "GITHUB_API_URL": upstream.url}
            )

    def version(self) -> str:
        """What the application answers now. OSError, HTTPException: it does not."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Load:
    """Asks one node after the other, all the time, and counts."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._nodes = nodes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            for node in self._nodes:
                try:
                    node.version()
                    self.answered += 1
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(f"{node.name}: {error!r}")
            self._over.wait(0.01)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def run() -> int:
    """Tells the story; 0 if everything went as promised, else 1 with the nodes' logs kept."""
    directory = Path(tempfile.mkdtemp(prefix="dewy-demo-"))
    try:
        with Upstream() as upstream:
            _tell_story(directory, upstream)
    except DemoFailed as error:
        click.echo(f"dewy demo: {error}; the logs are in {directory}", err=True)
        return 1
    shutil.rmtree(directory)
    return 0


def _tell_story(directory: Path, upstream: Upstream) -> None:
    cache = f"file://{directory}/shared?locking=flock&registry-ttl={TTL:g}s"
    say = _Narrator()
    upstream.publish("v1.0.0")
    say(f"v1.0.0 is released. {NODES} nodes start, each as")
    say(f"  dewy server --registry ghr://demo/app --cache 'file:///shared?locking=flock&registry-ttl={TTL:g}s' ...")
    nodes = [Node(number + 1, directory, cache, upstream) for number in range(NODES)]
    try:
        _wait_for(nodes, "v1.0.0")
        say("every node serves v1.0.0; from here on requests are made all the time")
        load = Load(nodes)
        began, calls = time.monotonic(), len(upstream.calls)
        time.sleep(2 * TTL)
        upstream.publish("v1.1.0")
        say("v1.1.0 is released")
        _wait_for(nodes, "v1.1.0")
        say("every node serves v1.1.0")
        time.sleep(TTL)
        windows = (time.monotonic() - began) / TTL
        load.stop()
        calls = len(upstream.calls) - calls
    finally:
        for node in nodes:
            node.stop()
    say(f"requests answered: {load.answered}, failed: {len(load.failed)}")
    say(f"upstream calls: {calls} in {windows:.1f} windows of {TTL:g} s, for {NODES} nodes that poll every second")
    say(f"artifact downloads from the upstream: {len(upstream.downloads)} for 2 releases on {NODES} nodes")
    if load.failed:
        raise DemoFailed(f"{len(load.failed)} requests failed, the first: {load.failed[0]}")
    if calls > windows + 1:
        raise DemoFailed(f"{calls} upstream calls in {windows:.1f} windows")
    if len(upstream.downloads) != 2:
        raise DemoFailed(f"{len(upstream.downloads)} downloads of 2 releases")


class _Narrator:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self._began:5.1f} s  {text}")


def _wait_for(nodes: Sequence[Node], version: str) -> None:
    deadline = time.monotonic() + PATIENCE
    for node in nodes:
        while not _answers(node.version, version):
            if node.process.poll() is not None:
                raise DemoFailed(f"{node.name} ended with {node.process.returncode}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{node.name} does not serve {version} after {PATIENCE:g} s")
            time.sleep(0.05)


def _answers(ask: Callable[[], str], expected: str) -> bool:
    try:
        return ask() == expected
    except (OSError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
