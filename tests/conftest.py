"""Session-wide servers: each starts when the first test asks for it, and serves all tests of this process.

A test that uses one of them is marked `servers`, which `make test-quick` leaves out. One that starts a server of its
own, or asks for one by `request.getfixturevalue`, carries the mark itself.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import servers

NAMES = (
    *("seaweedfs", "moto", "localbucket", "nanio", "s3rver", "fake_gcs", "gcp_emulator", "azurite"),
    *("redis", "redis_tls", "valkey", "redis_cluster", "consul"),
)

LONG = tuple(
    f"tests/{name}.py"
    for name in (
        *("spec/test_tla", "docs/test_commands", "conformance/test_servers", "conformance/test_through_faults"),
        *("protocol/test_explorer", "protocol/test_invariants", "bench/test_parts", "conformance/test_command"),
        *("stores/test_s3", "stores/test_gs", "crash/test_release", "stores/test_contract", "dewy/test_loop"),
        *("dewy/test_rollback", "dewy/test_troubles", "stores/test_streaming", "stores/test_faults_objects"),
        *("stores/test_single_flight", "stores/test_failover", "stores/test_races", "stores/test_storm_artifacts"),
    )
)
"""These files begin first, so that none of them is what everybody waits for in the end."""

# A busy machine is no reason to fail.
settings.register_profile("here", deadline=None)
settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers: needs a server of tests/servers")
    # A shell starts what it puts into the background with these ignored, and all children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not set(NAMES).isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)
    items.sort(key=lambda item: LONG.index(place) if (place := item.nodeid.partition("::")[0]) in LONG else len(LONG))


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[servers.Seaweed]:
    """S3, the real thing."""
    with servers.Seaweed() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[servers.Moto]:
    """S3, AWS-shaped; not atomic."""
    with servers.Moto() as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[servers.FakeGCS]:
    """Google Cloud Storage; conditions on multipart uploads only."""
    with servers.FakeGCS() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[servers.Redis]:
    with servers.Redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_tls() -> Iterator[servers.Redis]:
    """Redis with TLS and two users, `app` and `other`."""
    with servers.Redis(tls=True, users={"app": "pass/word", "other": "another"}) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[servers.Valkey]:
    with servers.Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[servers.RedisCluster]:
    """Three primaries."""
    with servers.RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def consul() -> Iterator[servers.Consul]:
    with servers.Consul() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[servers.Azurite]:
    with servers.Azurite() as server:
        yield server


@pytest.fixture(scope="session")
def localbucket() -> Iterator[servers.LocalBucket]:
    """S3 that ignores If-Match."""
    with servers.LocalBucket() as server:
        yield server


@pytest.fixture(scope="session")
def nanio() -> Iterator[servers.Nanio]:
    """S3 that ignores every condition of a write."""
    with servers.Nanio() as server:
        yield server


@pytest.fixture(scope="session")
def s3rver() -> Iterator[servers.S3Rver]:
    """S3 that ignores every condition of a write."""
    with servers.S3Rver() as server:
        yield server


@pytest.fixture(scope="session")
def gcp_emulator() -> Iterator[servers.GCPEmulator]:
    """Google Cloud Storage that ignores every condition."""
    with servers.GCPEmulator() as server:
        yield server
