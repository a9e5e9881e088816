"""An object store behind the fault proxy, and the same bucket seen past it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import kvcache.url
from kvcache.backends.objects import ObjectStore
from tests.proxy import HttpProxy
from tests.servers.certificates import Certificates

STYLES = {"seaweedfs": "s3", "moto": "s3", "fake_gcs": "gcs", "azurite": "azure"}


@dataclass
class Rig:
    server: Any
    style: str
    bucket: str
    prefix: str
    proxy: HttpProxy
    store: ObjectStore
    """By way of the proxy."""
    behind: ObjectStore
    """Past it."""

    def half_done(self) -> list[str]:
        """Names of uploads that were begun and neither ended nor aborted. Only S3 can tell."""
        uploads = self.server.client().list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

    def requests(self, method: str, path: str = "") -> list[Any]:
        """What the proxy saw, of one method and with `path` in its target."""
        self.proxy.wait_idle()
        return [entry for entry in self.proxy.journal if entry.method == method and path in entry.target]


def seen(rig: Rig) -> list[str]:
    """Methods of the requests since the last call."""
    rig.proxy.wait_idle()
    methods = [entry.method for entry in rig.proxy.journal]
    rig.proxy.forget()
    return methods


@contextlib.contextmanager
def rigged(request: pytest.FixtureRequest, name: str, options: str = "") -> Iterator[Rig]:
    """A rig on the server whose fixture is `name`, under a prefix of its own. `options` end the store's URL."""
    server = request.getfixturevalue(name)
    for variable, value in server.env.items():
        request.getfixturevalue("monkeypatch").setenv(variable, value)
    bucket, prefix = bucket_of(server), f"{uuid.uuid4().hex[:12]}/"
    with (
        HttpProxy(server.port) as proxy,
        store_at(server, bucket, prefix, proxy.url, f"check=off{options}") as store,
        store_at(server, bucket, prefix, None, "check=off") as behind,
    ):
        store.delete("warm")  # a client, and a connection
        proxy.wait_idle()
        proxy.forget()
        yield Rig(server, STYLES[name], bucket, prefix, proxy, store, behind)


_buckets: dict[Any, str] = {}


def bucket_of(server: Any) -> str:
    """The one bucket that all tests share: SeaweedFS takes seconds to make one and to write to it first."""
    if server not in _buckets:
        _buckets[server] = server.create_container() if server.name == "azurite" else server.create_bucket()
    return _buckets[server]


def store_at(server: Any, bucket: str, prefix: str, endpoint: str | None, options: str) -> ObjectStore:
    """A store on the server, by way of `endpoint` (None: straight)."""
    if server.name == "azurite":  # its address is a part of the credentials
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", server.connection_string(endpoint))
            store = kvcache.url.open_store(f"{server.store_url(bucket, prefix)}?{options}")
    else:
        store = kvcache.url.open_store(f"{server.store_url(bucket, prefix, endpoint=endpoint)}&{options}")
    assert isinstance(store, ObjectStore)
    return store


@contextlib.contextmanager
def behind_tls(port: int, certificates: Certificates) -> Iterator[str]:
    """The address of a relay that speaks TLS to its clients and hands on to `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    loop, tasks = asyncio.new_event_loop(), set()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        for pair in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(copy(*pair))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def stop() -> None:
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(relay, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
