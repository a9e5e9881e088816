"""Uploads to Google Cloud Storage: one resumable session, of which nothing is visible before its last byte.

Where the length is known the content is ONE request, fed part by part as it is read, so no round trip holds it up.
Else each part is a request. A request that breaks ends the session: the upload is begun again with a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from kvcache.backends.bucket import Digest
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.gs_wire import json_of
from kvcache.kvs import Version

if TYPE_CHECKING:
    from kvcache.backends.gs import GCSBucket


class _Session:
    """What both ways share. Parts come in order."""

    streams = 1
    resends = False

    def __init__(self, bucket: GCSBucket, name: str, url: str) -> None:
        self._bucket = bucket
        self._name = name
        self._url = url
        self._sent = 0
        self._sum = Digest("crc32c", "").new()
        self._facts: dict[str, Any] | None = None

    def _note(self, data: bytes) -> None:
        self._sum.update(data)
        self._sent += len(data)

    async def commit(self) -> Version:
        if self._facts is None:
            raise Failure(Kind.UNKNOWN, "the upload has not ended")
        return await self._bucket.settled(self._name, self._facts, self._sent, self._sum.digest())

    async def abort(self) -> None:
        # 499 is the answer to a cancelled session; one that has ended, or is forgotten, is as good.
        async with self._bucket.request("DELETE", self._url, also=frozenset({404, 410, 499})):
            pass


class InOneRequest(_Session):
    """The length is known."""

    def __init__(self, bucket: GCSBucket, name: str, url: str, size: int) -> None:
        super().__init__(bucket, name, url)
        self._size = size
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._request: asyncio.Task[dict[str, Any]] | None = None

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        if self._request is None:
            self._request = asyncio.create_task(self._put())
        self._note(data)
        for part in (data, None) if last else (data,):
            putting = asyncio.ensure_future(self._parts.put(part))
            await asyncio.wait({putting, self._request}, return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():  # the request is over, and nobody will ever take this part
                putting.cancel()
                await self._request
                raise Failure(Kind.UNKNOWN, "the upload ended before its content did")
        if last:
            self._facts = await self._request

    async def _put(self) -> dict[str, Any]:
        headers = {
            "Content-Length": str(self._size),
            "Content-Range": f"bytes 0-{self._size - 1}/{self._size}",
        }
        async with self._bucket.request("PUT", self._url, headers, self._content()) as answer:
            return await json_of(answer)

    async def _content(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part

    async def abort(self) -> None:
        if self._request is not None:
            self._request.cancel()
            await asyncio.gather(self._request, return_exceptions=True)
        await super().abort()


class InParts(_Session):
    """The length is not known before the end."""

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        self._note(data)
        stop = start + len(data)
        while True:  # Google may keep only a part of a part, and then has to be sent the rest
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{stop if last else '*'}"}
            async with self._bucket.request("PUT", self._url, headers, data, also=frozenset({308})) as answer:
                if answer.status != 308:
                    self._facts = await json_of(answer)
                    return
                _, _, end = answer.headers.get("Range", "").rpartition("-")
            kept = int(end) + 1 if end.isdigit() else 0
            if kept == stop and not last:
                return
            if not start < kept < stop:
                raise Failure(Kind.UNKNOWN, f"{kept} bytes were kept of an upload of {stop} so far")
            start, data = kept, data[kept - start :]
