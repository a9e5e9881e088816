"""Google Cloud Storage: `gs://<bucket>/<prefix>?endpoint=...`.

The session and the credentials are gcsfs's; requests are our own on that session. gcsfs's calls repeat a failed request
six times in secret, turn every 412 into FileExistsError, hide a 304, and delimit uploads by a fixed boundary that a
value may contain. Of its two file systems the plain one is used: the other asks a gRPC service for the bucket's layout.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import google_crc32c
from gcsfs.core import GCSFileSystem
from google.auth.credentials import TokenState
from yarl import URL

from kvcache.backends.bucket import WRITE_ID, Bucket, Head, Page, Rights, Upload, digest_of
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.gs_upload import InOneRequest, InParts
from kvcache.backends.gs_wire import crc32c_of, failure_of, generation_of, json_of, translated, version_of
from kvcache.backends.objects import ObjectStore
from kvcache.backends.opening import Opening, open_objects, prefix_of
from kvcache.backends.streams import BLOCK, PART_ATTEMPTS, persistently
from kvcache.backends.wire import PerProcess, counted_requests, http_date, proxy_of, wait_for
from kvcache.errors import InvalidURL
from kvcache.kvs import ABSENT, ANYWAY, Capabilities, Condition, Stored, Version
from kvcache.url import StoreURL

FORM: Final = "gs://<bucket>/<prefix>"
MIN_WRITE_INTERVAL: Final = 1.0
"""Seconds: Google refuses more writes than that to one object."""
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
"""How long a download may pause. Requests about values have a time-out of their own, and the second clock costs."""
_GENERATION: Final = re.compile("[1-9][0-9]{0,17}")
NEVER: Final = "1"
"""A generation that no object ever has: generations are microseconds since 1970."""


def open(url: StoreURL) -> ObjectStore:
    """Opens the store. InvalidURL: also a bucket that does not exist or may not be used. StoreUnavailable."""
    url.reject_unknown({"endpoint", "engine", "ca", *Opening.parameters})
    if url.user is not None or url.password is not None:
        raise InvalidURL(f"{url.redacted}: credentials do not belong in the URL: use Application Default Credentials")
    if (engine := url.take_text("engine", "gcsfs")) != "gcsfs":
        # obstore writes by the XML interface, which fake-gcs-server does not speak.
        raise url.invalid(
            "engine", engine, "gcsfs: obstore's conditional writes to Google Cloud Storage are not proved"
        )
    name = url.require("bucket", url.host, FORM)
    endpoint = url.take_text("endpoint", None) or os.environ.get("STORAGE_EMULATOR_HOST") or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    opening = Opening.of(url, foreign=endpoint is not None)
    bucket = GCSBucket(
        name,
        endpoint=endpoint,
        ca=url.take_text("ca", None),
        # An emulator has no accounts, and a token must not be sent in the clear.
        anonymous=opening.anonymous or (endpoint is not None and endpoint.startswith("http://")),
    )
    capabilities = Capabilities(
        conditional_write=not opening.anonymous,
        store_time=True,
        time_resolution=1.0,
        min_write_interval=MIN_WRITE_INTERVAL,
    )
    return open_objects(url, bucket, prefix_of(url.path), capabilities, opening)


class GCSBucket(Bucket):
    """One bucket. Versions are generations."""

    rights = Rights(
        "storage.objects.get", "storage.objects.create and delete", "storage.objects.delete", "storage.objects.list"
    )
    most_parts = 1 << 30  # none of its own; 5 TiB are reached before
    never = Version(NEVER)
    sorted_pages = True

    def __init__(self, name: str, *, endpoint: str | None, ca: str | None, anonymous: bool) -> None:
        self.label = name
        self._objects = f"/storage/v1/b/{quote(name, safe='')}/o"
        self._endpoint = endpoint.rstrip("/") if endpoint else None
        self._ca = ca
        self._anonymous = anonymous
        self._files: PerProcess[Any] = PerProcess(self._connect)

    def _connect(self) -> Any:
        """A file system. Asks the machine for credentials, which may take seconds: not on the event loop."""
        session: dict[str, Any] = {
            "request_class": counted_requests(),
            "read_bufsize": BLOCK,
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            "auto_decompress": False,
        }
        files = GCSFileSystem(
            project="",
            token="anon" if self._anonymous else "google_default",
            endpoint_url=self._endpoint,
            session_kwargs=session,
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        files.session_kwargs["proxy"] = proxy_of(files.base)
        return files

    def close(self) -> None:
        files = self._files.take()
        if files is not None and files.session is not None:
            wait_for(files.session.close())

    async def connect(self) -> None:
        await self.files()

    async def files(self) -> Any:
        """gcsfs's file system, with credentials and a session. Failure."""
        files: Any = self._files.made()
        if files is None:
            with translated(connecting=True):
                files = await asyncio.to_thread(self._files.get)
        if files.session is None:
            if self._ca is not None:
                context = ssl.create_default_context(cafile=self._ca)
                files.session_kwargs.setdefault("connector", aiohttp.TCPConnector(ssl=context))
            await files._set_session()  # what each of gcsfs's own calls does first; it has no public name
        return files

    # -- single requests ----------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored:
        async with self.request("GET", self._content(name), {"Accept-Encoding": "gzip"}) as answer:
            data = await answer.read()
        return Stored(data, generation_of(answer), http_date(answer.headers.get("Date")))

    async def head(self, name: str) -> Head:
        async with self.request("GET", self._object(name)) as answer:
            facts = await json_of(answer)
        marks = facts.get("metadata", {})
        return Head(
            size=int(facts["size"]),
            version=version_of(facts),
            modified=datetime.fromisoformat(facts["updated"]).timestamp() if "updated" in facts else None,
            write_id=marks.get(WRITE_ID),
            digest=digest_of(marks) or crc32c_of(facts),
        )

    async def put(self, name: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        # Random, so that no value can contain it. uploadType=media has no place for metadata, and there
        # fake-gcs-server ignores the condition.
        boundary = secrets.token_hex(16)
        checksum = google_crc32c.value(data).to_bytes(4)  # Google refuses content that has another
        about = json.dumps({"name": name, "metadata": marks, "crc32c": base64.b64encode(checksum).decode()})
        head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{about}\r\n"
        head += f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = b"".join((head.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
        place = self._uploads("multipart") + _match(condition)
        content = {"Content-Type": f"multipart/related; boundary={boundary}"}
        async with self.writing(), self.request("POST", place, content, body) as answer:
            facts = await json_of(answer)
        return await self.settled(name, facts, len(data), checksum)

    async def settled(self, name: str, facts: dict[str, Any], size: int, checksum: bytes) -> Version:
        """The version that a write has made. Failure, after removing it again, if Google has other content than `size`
        bytes with this CRC32C."""
        found, version = crc32c_of(facts), version_of(facts)
        if int(facts.get("size", size)) == size and (found is None or found.value == checksum.hex()):
            return version
        try:
            await persistently(lambda: self.remove(name, version), PART_ATTEMPTS)
        except Failure as failure:
            if failure.kind not in (Kind.ABSENT, Kind.REFUSED):  # else somebody has replaced it meanwhile
                damaged = Failure(Kind.REJECTED, "the content was damaged on its way, and could not be removed")
                damaged.copies = 1  # of the write: what is there with its mark is not what was to be written
                raise damaged from failure
        raise Failure(Kind.UNKNOWN, "the content was damaged on its way")

    async def remove(self, name: str, version: Version | None = None) -> None:
        query = f"?ifGenerationMatch={version.token}" if version else ""
        async with self.request("DELETE", self._object(name) + query):
            pass

    async def page(self, prefix: str, token: str | None = None) -> Page:
        query = {"prefix": prefix, "fields": "items(name),nextPageToken"}
        if token is not None:
            query["pageToken"] = token
        async with self.writing(), self.request("GET", f"{self._objects}?{urlencode(query)}") as answer:
            facts = await json_of(answer)
        return Page([item["name"] for item in facts.get("items", ())], facts.get("nextPageToken"))

    async def begin(self, name: str, marks: dict[str, str], size: int | None) -> Upload:
        body = json.dumps({"name": name, "metadata": marks}).encode()
        content = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": "application/octet-stream",
        }
        async with self.writing(), self.request("POST", self._uploads("resumable"), content, body) as answer:
            session = answer.headers.get("Location")
        if session is None:
            raise Failure(Kind.UNSUPPORTED, "the service gave no upload session")
        return InParts(self, name, session) if size is None else InOneRequest(self, name, session, size)

    async def ranges(self, name: str, head: Head, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        place = f"{self._content(name)}&generation={head.version.token}"
        wanted = {"Accept-Encoding": "gzip", "Range": f"bytes={start}-{stop - 1}"}
        patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        async with self.request("GET", place, wanted, timeout=patience) as answer:
            if generation_of(answer) != head.version:
                raise Failure(Kind.REFUSED, "another version was sent")
            if answer.content_length != stop - start:
                raise Failure(Kind.UNKNOWN, f"{answer.content_length} bytes were sent, not {stop - start}")
            async for chunk, _ in answer.content.iter_chunks():  # as received: `iter_any` would join them first
                yield chunk

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        place: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        also: frozenset[int] = frozenset(),
        **options: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; `place` is a path below the service's address, or a URL, and `options` are aiohttp's. Failure,
        unless its status is 2xx or in `also`."""
        files = await self.files()
        sent = {"Accept-Encoding": "identity", "User-Agent": "kvcache (gzip)", **(headers or {})}
        credentials = files.credentials
        if credentials.credentials is not None:
            with translated(connecting=True):
                if credentials.credentials.token_state is not TokenState.FRESH:
                    await asyncio.to_thread(credentials.maybe_refresh)
                credentials.credentials.apply(sent)
        base = files.base.removesuffix("/storage/v1/")
        url = URL(place if "://" in place else base + place, encoded=True)
        asking = files.session.request(method, url, headers=sent, data=body, allow_redirects=False, **options)
        with translated():
            async with asking as answer:
                if not 200 <= answer.status < 300 and answer.status not in also:
                    raise await failure_of(answer)
                yield answer

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Around requests to the bucket rather than to one object: only the bucket can be what is not found."""
        try:
            yield
        except Failure as failure:
            if failure.kind is Kind.ABSENT:
                failure.kind = Kind.NO_BUCKET
            raise

    def _object(self, name: str) -> str:
        return f"{self._objects}/{quote(name, safe='')}"

    def _content(self, name: str) -> str:
        return f"/download{self._object(name)}?alt=media"

    def _uploads(self, kind: str) -> str:
        return f"/upload{self._objects}?uploadType={kind}"


def _match(condition: Condition) -> str:
    """The condition as it stands at the end of a query."""
    if condition is ANYWAY:
        return ""
    if condition is ABSENT:
        return "&ifGenerationMatch=0"
    token = condition.token  # 0 would mean that there must be none
    return f"&ifGenerationMatch={token if _GENERATION.fullmatch(token) else NEVER}"
