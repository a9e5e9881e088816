"""The same on object stores: SeaweedFS with 20 nodes, Google Cloud Storage's double with 8."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.github import FakeGitHub
from tests.fleet.fleet import Fleet
from tests.fleet.test_fleet import windows
from tests.proxy import HttpProxy
from tests.servers import FakeGCS, Seaweed

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        yield server


def live_through_it(fleet: Fleet, github: FakeGitHub, proxy: HttpProxy, releases: int) -> None:
    """Releases, with leaders killed, the upstream down, and the bucket down for a while."""
    chance = random.Random(7)
    fleet.publish("v1.0.0")
    with fleet.running():
        fleet.wait_deployed("v1.0.0")
        healthy = fleet.calls_during(4 * fleet.ttl)
        assert healthy <= windows(4 * fleet.ttl, fleet.ttl)
        downloads = Counter(call["path"] for call in github.downloads())
        assert list(downloads.values()) == [1]
        for number in range(1, releases + 1):
            tag = f"v1.{number}.0"
            match number % 3:
                case 1:
                    fleet.publish(tag)
                    for _ in range(3):
                        fleet.kill_one(chance)
                        time.sleep(0.5)
                case 2:
                    github.mode("outage")
                    time.sleep(2 * fleet.ttl)
                    github.mode("healthy")
                    fleet.publish(tag)
                case _:
                    proxy.down()
                    time.sleep(fleet.ttl)
                    fleet.publish(tag)
                    time.sleep(fleet.ttl)
                    proxy.up()
            fleet.wait_deployed(tag)
    downloads = Counter(call["path"] for call in github.downloads())
    print(f"{len(fleet.nodes)} nodes: {healthy} calls in 4 windows; downloads per release {sorted(downloads.values())}")
    assert len(downloads) == releases + 1


def test_twenty_nodes_on_one_bucket(
    tmp_path: Path, github: FakeGitHub, seaweedfs: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)
    bucket = seaweedfs.create_bucket()
    with HttpProxy(seaweedfs.port) as proxy:
        cache = f"s3://{seaweedfs.region}/{bucket}/app?endpoint=http://127.0.0.1:{proxy.port}"
        live_through_it(Fleet(tmp_path, github, cache, 20, 5.0), github, proxy, releases=5)


def test_eight_nodes_on_google_cloud_storage(
    tmp_path: Path, github: FakeGitHub, fake_gcs: FakeGCS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fake_gcs.env.items():
        monkeypatch.setenv(name, value)
    bucket = fake_gcs.create_bucket()
    with HttpProxy(fake_gcs.port) as proxy:
        cache = f"gs://{bucket}/app?endpoint=http://127.0.0.1:{proxy.port}"
        live_through_it(Fleet(tmp_path, github, cache, 8, 5.0), github, proxy, releases=3)
