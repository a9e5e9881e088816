"""An object store behind the fault proxy, and the same bucket seen past it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import kvcache.url
from kvcache.backends.objects import ObjectStore
from tests.proxy import HttpProxy

STYLES = {"seaweedfs": "s3", "moto": "s3", "fake_gcs": "gcs", "azurite": "azure"}


@dataclass
class Rig:
    server: Any
    style: str
    bucket: str
    proxy: HttpProxy
    store: ObjectStore
    """By way of the proxy."""
    behind: ObjectStore
    """Past it."""

    def half_done(self) -> list[str]:
        """Keys of uploads that were begun and neither ended nor aborted. Only S3 can tell."""
        uploads = self.server.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

    def requests(self, method: str, path: str = "") -> list[Any]:
        """What the proxy saw, of one method and with `path` in its target."""
        self.proxy.wait_idle()
        return [entry for entry in self.proxy.journal if entry.method == method and path in entry.target]


@contextlib.contextmanager
def rigged(request: pytest.FixtureRequest, name: str, options: str = "") -> Iterator[Rig]:
    """A rig on the server whose fixture is `name`, in a bucket of its own. `options` end the store's URL."""
    server = request.getfixturevalue(name)
    for variable, value in server.env.items():
        request.getfixturevalue("monkeypatch").setenv(variable, value)
    bucket = server.create_bucket()
    with (
        HttpProxy(server.port) as proxy,
        opened(server.store_url(bucket, endpoint=proxy.url) + f"&check=off{options}") as store,
        opened(server.store_url(bucket) + "&check=off") as behind,
    ):
        behind.write("warm", b"")  # the first write to a bucket of SeaweedFS takes a second
        store.read("warm")
        behind.delete("warm")
        proxy.wait_idle()
        proxy.forget()
        yield Rig(server, STYLES[name], bucket, proxy, store, behind)


@contextlib.contextmanager
def opened(url: str) -> Iterator[ObjectStore]:
    with kvcache.url.open_store(url) as store:
        assert isinstance(store, ObjectStore)
        yield store
