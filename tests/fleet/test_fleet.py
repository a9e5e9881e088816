"""Fleets of real processes: one registry call per TTL window, one download per release, whatever is done to them."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dewy.node import Node, web
from tests.fakes.github import FakeGitHub
from tests.fleet.fleet import ASSET, Fleet
from tests.load.load import Load

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        yield server


def windows(seconds: float, ttl: float) -> int:
    """TTL windows that fit into `seconds`, and one that had begun."""
    return math.ceil(seconds / ttl) + 1


def test_thirty_nodes_on_one_directory(tmp_path: Path, github: FakeGitHub) -> None:
    ttl = 5.0
    fleet = Fleet(tmp_path, github, f"file://{tmp_path}/shared?locking=flock", 30, ttl)
    fleet.publish("v1.0.0")
    with fleet.running():
        fleet.wait_deployed("v1.0.0")
        assert len(github.downloads()) == 1

        healthy = fleet.calls_during(6 * ttl)
        assert 3 <= healthy <= windows(6 * ttl, ttl)

        github.mode("outage")
        time.sleep(ttl)  # until everybody has met it
        outage = fleet.calls_during(4 * ttl)
        assert outage <= 4  # one per back-off window: 5 s at first, and longer each time
        github.mode("healthy")
        fleet.publish("v1.1.0")
        fleet.wait_deployed("v1.1.0")
        assert len(github.downloads()) == 2

        github.mode("rate-limited", reset_in=3 * ttl)
        time.sleep(1.2 * ttl)
        limited = fleet.calls_during(1.5 * ttl)
        assert limited <= 1
        github.mode("healthy")
        fleet.publish("v1.2.0")
        fleet.wait_deployed("v1.2.0")
    assert len(github.downloads()) == 3
    print(f"calls: {healthy} in 6 healthy windows, {outage} in 4 of outage, {limited} in 1.5 of rate limit")
    for node in fleet.nodes:
        extracted = Counter(record["path"] for record in node.logged("Extract archive"))
        assert len(extracted) == 3 and set(extracted.values()) == {1}  # nothing twice, nothing missed


def test_nodes_and_leaders_are_killed(tmp_path: Path, github: FakeGitHub) -> None:
    kill_about(tmp_path, github, nodes=10, seconds=30, leader_chance=0.3)


@pytest.mark.soak
def test_leaders_among_thirty_nodes_are_killed_for_two_minutes(tmp_path: Path, github: FakeGitHub) -> None:
    kill_about(tmp_path, github, nodes=30, seconds=120, leader_chance=0.3)


def kill_about(directory: Path, github: FakeGitHub, nodes: int, seconds: float, leader_chance: float) -> None:
    """Somebody is killed every second or so, and whoever is seen to lead is, by this chance; while releases go on.

    Not every leader: the lease of a dead one is 30 s, in which nobody else may call.
    """
    ttl = 4.0
    chance = random.Random(20261124)
    shared = directory / "shared"
    fleet = Fleet(directory, github, f"file://{shared}?locking=flock", nodes, ttl)
    fleet.publish("v1.0.0")
    kills = leaders = releases = 0
    with fleet.running():
        fleet.wait_deployed("v1.0.0")
        for target in ("api", "assets"):
            github.mode("slow", target, delay=0.3)  # so that a leader is seen while it leads
        began = time.monotonic()
        next_kill = began
        spared: int | None = None
        while (passed := time.monotonic() - began) < seconds:
            leader = fleet.leader(shared)
            if leader is not None and leader.process.pid != spared:
                if chance.random() < leader_chance:
                    fleet.kill(leader)
                    leaders += 1
                else:
                    spared = leader.process.pid
            elif leader is None:
                spared = None
            if time.monotonic() >= next_kill:
                fleet.kill_one(chance)
                kills += 1
                next_kill = time.monotonic() + chance.uniform(0.2, 1.5)
            if passed / (seconds / 5) > releases:
                releases += 1
                fleet.publish(f"v1.{releases}.0")
            time.sleep(0.02)
        for target in ("api", "assets"):
            github.mode("healthy", target)
        fleet.wait_deployed(f"v1.{releases}.0")
        calls = len(github.polls())
        spent = time.monotonic() - began
    # A killed leader's lease is waited out, and a killed node may have called; nobody else calls in that time.
    assert calls <= windows(spent, ttl) + kills + leaders
    downloads = Counter(call["path"] for call in github.downloads())
    # A release may be overtaken by the next one before anybody got to it; a killed leader's download is done again.
    assert len(downloads) <= releases + 1
    assert sum(downloads.values()) <= releases + 1 + kills + leaders
    print(
        f"{nodes} nodes: {kills} killed at random and {leaders} as they led, {releases} releases, {calls} calls in "
        f"{spent / ttl:.0f} windows, downloads per release {sorted(downloads.values())}"
    )
    for node in fleet.nodes:
        assert node.deployed() == f"v1.{releases}.0"
        assert (node.current / "body").stat().st_size == 300_000
        assert len([p for p in (node.root / "releases").iterdir() if p.name.startswith(".tmp")]) <= 1


def test_no_request_fails_across_ten_releases(tmp_path: Path, github: FakeGitHub) -> None:
    github.publish("v1.0.0", {ASSET: web("v1.0.0")})
    cache = f"file://{tmp_path}/shared?locking=flock&registry-ttl=1s"
    node = Node(tmp_path / "node", "server", github.registry, env=github.env)
    node._command[node._command.index("-i") : node._command.index("-i")] = ["--cache", cache]
    with node:
        node.wait_served("v1.0.0")
        with Load("127.0.0.1", node.port, clients=4) as load:
            for number in range(1, 11):
                github.publish(f"v1.{number}.0", {ASSET: web(f"v1.{number}.0")})
                node.wait_served(f"v1.{number}.0")
            report = load.stop()
    print(report)
    assert report.requests > 100
    assert report.failed == 0, report.failures
    assert len(report.versions) >= 10
