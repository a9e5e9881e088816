"""Every store that the contract suite runs against: a name, and how to open a fresh, empty one.

To add a store, add ONE entry to `STORES`. Its function gets pytest's `request`, for fixtures
(`request.getfixturevalue("seaweedfs")`), and a name that no other test has used, for a prefix or a bucket; it returns
an open store, which is closed after the test.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

import kvcache.url
from kvcache.kvs import Store
from tests.stores.rig import bucket_of

OpenStore = Callable[[pytest.FixtureRequest, str], Store]


def memory(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"memory://{fresh}")


def file(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"file://{request.getfixturevalue('tmp_path')}/{fresh}")


def file_flock(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"file://{request.getfixturevalue('tmp_path')}/{fresh}?locking=flock")


def redis(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(request.getfixturevalue("redis").store_url(prefix=f"{fresh}/"))


def valkey(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(request.getfixturevalue("valkey").store_url(prefix=f"{fresh}/"))


def redis_cluster(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(request.getfixturevalue("redis_cluster").store_url(prefix=f"{fresh}/"))


def consul(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(request.getfixturevalue("consul").store_url(prefix=fresh))


def seaweedfs(request: pytest.FixtureRequest, fresh: str) -> Store:
    return _bucket(request, "seaweedfs", fresh)


def seaweedfs_obstore(request: pytest.FixtureRequest, fresh: str) -> Store:
    return _bucket(request, "seaweedfs", fresh, "&engine=obstore")


def moto(request: pytest.FixtureRequest, fresh: str) -> Store:
    return _bucket(request, "moto", fresh)


def fake_gcs(request: pytest.FixtureRequest, fresh: str) -> Store:
    return _bucket(request, "fake_gcs", fresh)


def azurite(request: pytest.FixtureRequest, fresh: str) -> Store:
    return _bucket(request, "azurite", fresh)


def fsspec_local(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"local://{request.getfixturevalue('tmp_path')}/{fresh}")


def fsspec_dir(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"dir::file://{request.getfixturevalue('tmp_path')}/{fresh}")


def fsspec_memory(request: pytest.FixtureRequest, fresh: str) -> Store:
    return kvcache.url.open_store(f"dir::memory://{fresh}")


def _bucket(request: pytest.FixtureRequest, server: str, fresh: str, options: str = "") -> Store:
    """A store under a prefix of its own, with the server's credentials in the environment."""
    started = request.getfixturevalue(server)
    for name, value in started.env.items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    return kvcache.url.open_store(started.store_url(bucket_of(started), f"{fresh}/pre fix/ü") + options)


STORES: dict[str, OpenStore] = {
    "memory": memory,
    "file": file,
    "file-flock": file_flock,
    "redis": redis,
    "valkey": valkey,
    "redis-cluster": redis_cluster,
    "consul": consul,
    "seaweedfs": seaweedfs,
    "seaweedfs-obstore": seaweedfs_obstore,
    "moto": moto,
    "fake-gcs": fake_gcs,
    "azurite": azurite,
    "fsspec-local": fsspec_local,
    "fsspec-dir": fsspec_dir,
    "fsspec-memory": fsspec_memory,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An open, empty store of each kind in turn."""
    with STORES[request.param](request, f"t{uuid.uuid4().hex[:12]}") as opened:
        yield opened
