"""A bucket of Amazon S3, or of what is compatible with it, by way of s3fs.

Sessions and credentials are s3fs's; requests go to its aiobotocore client directly. s3fs's own calls drop parameters
that the installed botocore does not know, so that a conditional write becomes an unconditional one in silence; the
client refuses them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from s3fs import S3FileSystem

from kvcache.backends.bucket import WRITE_ID, Bucket, Head, Page, Upload, digest_of
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.s3 import MOST_PARTS, NEVER, RIGHTS, Place, tag_of
from kvcache.backends.streams import BLOCK
from kvcache.backends.wire import PerProcess, http_date, pause_asked, tracing, wait_for
from kvcache.errors import InvalidURL
from kvcache.kvs import ABSENT, ANYWAY, Condition, Stored, Version

CONNECTIONS: Final = 64
CONNECT_SECONDS: Final = 5.0
SMALL: Final = 256 << 10
"""Bytes that are hashed on the event loop."""
SILENCE_SECONDS: Final = 30.0
"""How long an answer may pause."""

_NO_CREDENTIALS: Final = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError)


@dataclass(slots=True)
class _Connection:
    """A file system of this process and, once there has been a request, its client."""

    files: Any
    client: Any = None


class S3Bucket(Bucket):
    """One bucket. Versions are ETags, kept with their quotes."""

    rights = RIGHTS
    most_parts = MOST_PARTS
    never = NEVER

    def __init__(self, place: Place) -> None:
        self.label = place.name
        self.sorted_pages = place.sorted_pages
        self._place = place
        self._foreign = place.foreign
        self._connection = PerProcess(self._connect)

    def _connect(self) -> _Connection:
        config: dict[str, Any] = {
            "http_session_cls": CountedSession,
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
        if self._foreign:
            # Services that only resemble S3 may refuse its newer checksums; all know Content-MD5, which we send then.
            # It is signed, so that no second hash of the content need be: over TLS botocore leaves that out by itself.
            config["s3"] = {"addressing_style": "path", "payload_signing_enabled": False}
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"
        place = self._place
        session: dict[str, Any] = {"profile": place.profile} if place.profile else {}
        return _Connection(
            S3FileSystem(
                anon=place.anonymous,
                endpoint_url=place.endpoint,
                client_kwargs={"region_name": place.region} | ({"verify": place.ca} if place.ca else {}),
                config_kwargs=config,
                skip_instance_cache=True,
                use_listings_cache=False,
                **session,
            )
        )

    def close(self) -> None:
        connection = self._connection.take()
        if connection is not None and connection.client is not None:
            wait_for(connection.client.close())

    async def connect(self) -> None:
        await self.client()

    async def client(self) -> Any:
        """The aiobotocore client, connected. Failure."""
        connection = self._connection.get()
        async with _translated():
            connection.client = await connection.files.set_session()
        return connection.client

    async def refuse_old_client(self) -> None:
        client = await self.client()
        accepted = client.meta.service_model.operation_model("PutObject").input_shape.members
        if not {"IfMatch", "IfNoneMatch"} <= set(accepted):
            import botocore

            raise InvalidURL(
                f"s3: botocore {botocore.__version__} does not know the conditions of writes: "
                "pip install --upgrade 'kvcache-dewy[s3]'"
            )

    async def guard(self, data: bytes) -> dict[str, str]:
        """The parameter by which the service notices damage on the way. For S3 itself botocore adds a CRC."""
        if not self._foreign:
            return {}
        md5 = await asyncio.to_thread(_md5, data) if len(data) > SMALL else _md5(data)
        return {"ContentMD5": base64.b64encode(md5).decode()}

    # -- single requests ----------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored:
        client = await self.client()
        async with _translated():
            answer = await client.get_object(Bucket=self.label, Key=name)
            async with answer["Body"] as body:
                data = await body.read()
        return Stored(data, _version(answer), _date(answer))

    async def head(self, name: str) -> Head:
        client = await self.client()
        async with _translated():
            answer = await client.head_object(Bucket=self.label, Key=name)
        return Head(
            size=answer["ContentLength"],
            version=_version(answer),
            modified=answer["LastModified"].timestamp(),
            write_id=answer["Metadata"].get(WRITE_ID),
            digest=digest_of(answer["Metadata"]),
        )

    async def put(self, name: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        client = await self.client()
        more = await self.guard(data)
        if condition is ABSENT:
            more["IfNoneMatch"] = "*"
        elif condition is not ANYWAY:
            more["IfMatch"] = tag_of(condition)
        async with _translated():
            answer = await client.put_object(Bucket=self.label, Key=name, Body=data, Metadata=marks, **more)
        return _version(answer)

    async def remove(self, name: str) -> None:
        client = await self.client()
        async with _translated():
            await client.delete_object(Bucket=self.label, Key=name)

    async def page(self, prefix: str, token: str | None = None) -> Page:
        client = await self.client()
        following = {} if token is None else {"ContinuationToken": token}
        async with _translated():
            answer = await client.list_objects_v2(Bucket=self.label, Prefix=prefix, **following)
        names = [entry["Key"] for entry in answer.get("Contents", ())]
        return Page(names, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None)

    async def begin(self, name: str, marks: dict[str, str], size: int | None) -> Upload:
        client = await self.client()
        async with _translated():
            answer = await client.create_multipart_upload(Bucket=self.label, Key=name, Metadata=marks)
        return _PartsUpload(self, client, name, answer["UploadId"])

    async def ranges(self, name: str, head: Head, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        client = await self.client()
        span = f"bytes={start}-{stop - 1}"
        async with _translated():
            answer = await client.get_object(Bucket=self.label, Key=name, IfMatch=head.version.token, Range=span)
            async with answer["Body"] as body:
                # Services that ignore If-Match say what they send; those that ignore Range send it all.
                if _version(answer) != head.version:
                    raise Failure(Kind.REFUSED, "another version was sent")
                if answer["ContentLength"] != stop - start:
                    raise Failure(Kind.UNKNOWN, f"{answer['ContentLength']} bytes were sent, not {stop - start}")
                while chunk := await body.read(BLOCK):
                    yield chunk


class _PartsUpload:
    """A multipart upload."""

    streams = 4
    resends = True

    def __init__(self, bucket: S3Bucket, client: Any, name: str, upload: str) -> None:
        self._bucket = bucket
        self._client = client
        self._place = {"Bucket": bucket.label, "Key": name, "UploadId": upload}
        self._tags: dict[int, str] = {}

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        guard = await self._bucket.guard(data)
        async with _translated():
            answer = await self._client.upload_part(**self._place, PartNumber=number + 1, Body=data, **guard)
        self._tags[number + 1] = answer["ETag"]

    async def commit(self) -> Version:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._tags.items())]
        async with _translated():
            answer = await self._client.complete_multipart_upload(**self._place, MultipartUpload={"Parts": parts})
        return _version(answer)

    async def abort(self) -> None:
        async with _translated():
            await self._client.abort_multipart_upload(**self._place)


class CountedSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's HTTP session with our counting hook. Should a new version no longer call this method, nothing is
    counted, and `ObjectStore` then trusts no refusal without reading back."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        if not session.trace_configs:
            session.trace_configs.append(tracing())
        return session


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """botocore's and aiohttp's exceptions become Failures."""
    try:
        yield
    except ClientError as error:
        raise _answered(error) from error
    except _NO_CREDENTIALS as error:
        failure = Failure(Kind.DENIED, f"no credentials: {error}")
        failure.copies = 0
        raise failure from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise Failure(Kind.REJECTED, " ".join(str(error).split())) from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Failure.unanswered(error) from error


def _answered(error: ClientError) -> Failure:
    facts = error.response.get("ResponseMetadata", {})
    headers = facts.get("HTTPHeaders", {})
    date = http_date(headers.get("date"))
    status, code = facts.get("HTTPStatusCode", 0), str(error.response.get("Error", {}).get("Code", ""))
    return Failure.answered(
        status,
        "" if code == str(status) else code,  # answers to HEAD have no body to name a code
        str(error.response.get("Error", {}).get("Message", "")),
        retry_after=pause_asked(headers.get("retry-after"), date),
        store_time=date,
    )


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _version(answer: dict[str, Any]) -> Version:
    tag = answer.get("ETag")
    if not tag:
        raise Failure(Kind.UNSUPPORTED, "the service sent no ETag")
    return Version(tag)


def _date(answer: dict[str, Any]) -> float | None:
    return http_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
