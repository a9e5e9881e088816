"""Many real dewy processes on one store and one counted GitHub, and what they cost it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.dewy.node import Node, archive
from tests.fakes.github import FakeGitHub

ASSET = "app_linux_amd64.tar.gz"
PATIENCE = 150.0
"""Seconds for a whole fleet to do something, on two cores that also run everything else."""


class Fleet:
    """`size` nodes of `dewy assets`, each in a directory of its own."""

    def __init__(self, directory: Path, github: FakeGitHub, cache: str, size: int, ttl: float, **env: str) -> None:
        self.github, self.ttl = github, ttl
        arguments = ["--cache", f"{cache}{'&' if '?' in cache else '?'}registry-ttl={ttl:g}s", "--interval", "1s"]
        self.nodes = [
            Node(directory / f"n{number:02}", "assets", github.registry, *arguments, env={**github.env, **env})
            for number in range(size)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            for node in self.nodes:
                node.start()
            yield
        finally:
            for node in self.nodes:
                node.process.terminate()
            for node in self.nodes:
                node.stop()

    def publish(self, tag: str) -> None:
        # Bytes that do not compress: enough of them that a download takes a while.
        body = random.Random(tag).randbytes(300_000)
        self.github.publish(tag, {ASSET: archive({"VERSION": tag, "body": body})})

    def wait_deployed(self, tag: str, but: Callable[[Node], bool] = lambda node: False) -> None:
        deadline = time.monotonic() + PATIENCE
        for node in self.nodes:
            while not but(node) and node.deployed() != tag:
                assert time.monotonic() < deadline, f"{node.root.name} has {node.deployed()}, not {tag}; {tail(node)}"
                time.sleep(0.1)

    def calls_during(self, seconds: float) -> int:
        """Registry calls of the whole fleet while `seconds` pass."""
        before = len(self.github.polls())
        time.sleep(seconds)
        return len(self.github.polls()) - before

    def leader(self, shared: Path) -> Node | None:
        """Who holds a lock now, on the registry's answer or on an artifact, by the records in a shared directory."""
        for path in [*shared.glob("registry-cache/*.json"), *shared.glob("artifact-cache/*.json")]:
            holder = json.loads(path.read_bytes()).get("locked_by") or ""
            pid = holder.rpartition(":")[2]
            for node in self.nodes:
                if pid == str(node.process.pid):
                    return node
        return None

    def kill(self, node: Node) -> None:
        """SIGKILL, whatever it is doing; it is started again at once, as systemd would."""
        node.kill()
        node.start()

    def kill_one(self, chance: random.Random) -> Node:
        """Any of them."""
        node = chance.choice(self.nodes)
        self.kill(node)
        return node


def deployed_tags(node: Node) -> list[str]:
    """What the node put in place, in order."""
    return [record["cache_key"].partition("--")[0] for record in node.logged("Cached artifact")]


def tail(node: Node) -> str:
    return f"the log of {node.root.name} ends\n{node.log.read_text(errors='replace')[-3000:]}"
