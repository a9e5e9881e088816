"""Azure Blob Storage: `az://<container>/<prefix>`, `abfs://<container>@<account>.dfs.core.windows.net/<prefix>`.

adlfs finds the account and its credentials, as for every user of fsspec (`AZURE_STORAGE_CONNECTION_STRING`,
`AZURE_STORAGE_ACCOUNT_NAME` with a key, a SAS token, or Azure's default chain). Requests go to Azure's own client, with
its retries off: adlfs's calls take no condition on an ETag.
"""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import aiohttp
from adlfs import AzureBlobFileSystem
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobServiceClient

from kvcache.backends.bucket import WRITE_ID, Bucket, Digest, Head, Page, Rights, Upload, digest_of
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.objects import ObjectStore
from kvcache.backends.opening import Opening, open_objects, prefix_of
from kvcache.backends.wire import PerProcess, counted_requests, http_date, pause_asked, proxy_of, wait_for
from kvcache.errors import InvalidURL, StoreUnavailable
from kvcache.kvs import ABSENT, ANYWAY, Capabilities, Condition, Stored, Version
from kvcache.url import StoreURL

FORM: Final = "az://<container>/<prefix>"
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
"""How long an answer may pause."""
WHOLE: Final = 1 << 40
"""Bytes up to which a value is ONE request: Azure's client would cut it up otherwise."""

_TAG: Final = re.compile(r'"[!#-~]+"|0x[0-9A-Fa-f]+')
"""What may be sent in If-Match: `*` would match anything."""


def open(url: StoreURL) -> ObjectStore:
    """Opens the store. InvalidURL: also a container that does not exist or may not be used. StoreUnavailable."""
    url.reject_unknown({"account", "ca", "engine", *Opening.parameters})
    if (engine := url.take_text("engine", "adlfs")) != "adlfs":
        raise url.invalid("engine", engine, "adlfs: obstore's conditional writes to Azure are not proved")
    if url.password is not None:
        raise InvalidURL(f"{url.redacted}: credentials do not belong in the URL: use AZURE_STORAGE_ACCOUNT_KEY")
    if url.user is not None:  # <container>@<account>.dfs.core.windows.net
        container, account = url.user, url.host.partition(".")[0]
    else:
        container, account = url.require("container", url.host, FORM), ""
    anonymous = url.take_bool("anon")
    account = url.take_text("account", account)
    try:
        files = AzureBlobFileSystem(
            account_name=account or None,
            anon=True if anonymous else None,
            skip_instance_cache=True,
            use_listings_cache=False,
        )
    except ValueError as error:
        raise StoreUnavailable(f"{url.redacted}: no credentials: {' '.join(str(error).split())}") from error
    opening = Opening.of(url, foreign=".blob.core." not in files.service_client.url)
    capabilities = Capabilities(conditional_write=not anonymous, store_time=True, time_resolution=1.0)
    bucket = AzureBucket(container, files, ca=url.take_text("ca", None))
    return open_objects(url, bucket, prefix_of(url.path), capabilities, opening)


class AzureBucket(Bucket):
    """One container. Versions are ETags, which Azure makes anew for each write."""

    rights = Rights(*("Storage Blob Data Reader", "Storage Blob Data Contributor") * 2)
    most_parts = 50_000
    never = Version('"0x0"')
    sorted_pages = True

    def __init__(self, name: str, files: Any, *, ca: str | None) -> None:
        self.label = name
        self._address: str = files.service_client.url
        self._credential: Any = files.service_client.credential
        self._ca = ca
        self._holder: PerProcess[_Client] = PerProcess(_Client)

    async def connect(self) -> None:
        await self.container()

    async def container(self) -> Any:
        """The container's client. Failure."""
        holder = self._holder.get()
        if holder.container is None:
            context = ssl.create_default_context(cafile=self._ca) if self._ca is not None else True
            holder.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                request_class=counted_requests(),
                auto_decompress=False,
                proxy=proxy_of(self._address),
            )
            service = BlobServiceClient(
                self._address,
                self._credential,
                transport=AioHttpTransport(session=holder.session, session_owner=False),
                retry_total=0,
                connection_timeout=CONNECT_SECONDS,
                read_timeout=SILENCE_SECONDS,
                max_single_put_size=WHOLE,
                max_single_get_size=WHOLE,
            )
            holder.container = service.get_container_client(self.label)
        return holder.container

    def close(self) -> None:
        holder = self._holder.take()
        if holder is not None and holder.session is not None:
            wait_for(holder.session.close())

    # -- single requests ----------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored:
        blob = (await self.container()).get_blob_client(name)
        dates: list[str | None] = []
        async with _translated():
            stream = await blob.download_blob(
                max_concurrency=1, raw_response_hook=lambda answer: dates.append(_header(answer.http_response, "Date"))
            )
            data = await stream.readall()
        return Stored(data, Version(stream.properties.etag), http_date(dates[0]) if dates else None)

    async def head(self, name: str) -> Head:
        blob = (await self.container()).get_blob_client(name)
        async with _translated():
            facts = await blob.get_blob_properties()
        marks = {key.replace("_", "-"): value for key, value in (facts.metadata or {}).items()}
        md5 = facts.content_settings.content_md5
        return Head(
            size=facts.size,
            version=Version(facts.etag),
            modified=facts.last_modified.timestamp(),
            write_id=marks.get(WRITE_ID),
            digest=digest_of(marks) or (Digest("md5", bytes(md5).hex()) if md5 else None),
        )

    async def put(self, name: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        blob = (await self.container()).get_blob_client(name)
        match: dict[str, Any] = {}
        if condition is not ANYWAY and condition is not ABSENT:
            tag = condition.token if _TAG.fullmatch(condition.token) else self.never.token
            match = {"etag": tag, "match_condition": MatchConditions.IfNotModified}
        async with _translated():
            answer = await blob.upload_blob(
                data,
                length=len(data),
                overwrite=condition is not ABSENT,
                metadata=_metadata(marks),
                validate_content=True,
                max_concurrency=1,
                **match,
            )
        return Version(answer["etag"])

    async def remove(self, name: str) -> None:
        blob = (await self.container()).get_blob_client(name)
        async with _translated():
            await blob.delete_blob(delete_snapshots="include")

    async def page(self, prefix: str, token: str | None = None) -> Page:
        container = await self.container()
        async with _translated():
            pages = container.list_blob_names(name_starts_with=prefix or None).by_page(continuation_token=token)
            names = [name async for name in await anext(pages)]
        return Page(names, pages.continuation_token or None)

    async def begin(self, name: str, marks: dict[str, str], size: int | None) -> Upload:
        return _Blocks((await self.container()).get_blob_client(name), marks)

    async def ranges(self, name: str, head: Head, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        blob = (await self.container()).get_blob_client(name)
        async with _translated():
            stream = await blob.download_blob(
                offset=start,
                length=stop - start,
                etag=head.version.token,
                match_condition=MatchConditions.IfNotModified,
                max_concurrency=1,
            )
            if stream.properties.etag != head.version.token:
                raise Failure(Kind.REFUSED, "another version was sent")
            data = await stream.readall()
            if len(data) != stop - start:
                raise Failure(Kind.UNKNOWN, f"{len(data)} bytes were sent, not {stop - start}")
        yield data


class _Client:
    """What one process holds open."""

    def __init__(self) -> None:
        self.session: aiohttp.ClientSession | None = None
        self.container: Any = None


class _Blocks:
    """Blocks that nobody sees before they are committed as a list; Azure drops what is never committed after a week."""

    streams = 4
    resends = True

    def __init__(self, blob: Any, marks: dict[str, str]) -> None:
        self._blob = blob
        self._marks = marks
        self._count = 0

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        async with _translated():
            await self._blob.stage_block(_block(number), data, length=len(data), validate_content=True)
        self._count = max(self._count, number + 1)

    async def commit(self) -> Version:
        blocks = [BlobBlock(_block(number)) for number in range(self._count)]
        async with _translated():
            answer = await self._blob.commit_block_list(blocks, metadata=_metadata(self._marks))
        return Version(answer["etag"])

    async def abort(self) -> None:
        """Azure has no request for it."""


def _block(number: int) -> str:
    """All ids of one blob have to be equally long."""
    return base64.b64encode(f"{number:08}".encode()).decode()


def _metadata(marks: dict[str, str]) -> dict[str, str]:
    """Azure takes identifiers only as names."""
    return {name.replace("-", "_"): value for name, value in marks.items()}


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Azure's and aiohttp's exceptions become Failures."""
    try:
        yield
    except HttpResponseError as error:
        raise _answered(error) from error
    except ClientAuthenticationError as error:
        failure = Failure(Kind.DENIED, f"no credentials: {' '.join(str(error).split())[:200]}")
        failure.copies = 0
        raise failure from error
    except (AzureError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Failure.unanswered(error) from error


def _answered(error: HttpResponseError) -> Failure:
    if error.response is None:  # the credentials' own server said no
        failure = Failure(Kind.DENIED, f"no credentials: {' '.join(str(error).split())[:200]}")
        failure.copies = 0
        return failure
    date = http_date(_header(error.response, "Date"))
    reason = str(error.reason or "")
    code = getattr(error, "error_code", None) or _header(error.response, "x-ms-error-code") or ""
    if "contentMD5" in reason:  # what Azurite calls InvalidOperation
        code, reason = "Md5Mismatch", "the content was damaged on its way"
    return Failure.answered(
        error.response.status_code or 0,
        str(getattr(code, "value", code)),
        reason,
        retry_after=pause_asked(_header(error.response, "Retry-After"), date),
        store_time=date,
    )


def _header(response: Any, name: str) -> str | None:
    value = response.headers.get(name)
    return None if value is None else str(value)
