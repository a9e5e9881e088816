"""A bucket of Amazon S3, or of what is compatible with it, by way of obstore: `engine=obstore`.

obstore (Rust's object_store) is faster than s3fs and takes less memory. It does not show the Date of an answer, so this
engine has no store time; nor single parts of an upload, so one that breaks is begun again as a whole.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from kvcache.backends.bucket import WRITE_ID, Bucket, Head, Page, Upload, digest_of
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.s3 import MOST_PARTS, NEVER, RIGHTS, Place, tag_of
from kvcache.backends.streams import BLOCK, PART, PART_ATTEMPTS, PART_SECONDS
from kvcache.backends.wire import PerProcess
from kvcache.kvs import ABSENT, Condition, Stored, Version

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
"""How long the request for a value may take, should nobody end it sooner."""
STREAMS: Final = 3
"""Parts of one upload that are on their way at once."""

_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]*)</Message>")
_UNSENT: Final = re.compile(r"kind: Connect\b")


@cache
def _home() -> int:
    """The process that obstore's threads belong to: they begin at first use, and a fork does not take them along."""
    return os.getpid()


@dataclass(frozen=True, slots=True)
class _Clients:
    values: S3Store
    """Sends each request once."""
    transfers: S3Store
    """Sends a part of an upload again: nobody sees it before the last request."""


class ObstoreBucket(Bucket):
    """One bucket. Versions are ETags, kept with their quotes."""

    rights = RIGHTS
    most_parts = MOST_PARTS
    never = NEVER

    def __init__(self, place: Place) -> None:
        self.label = place.name
        self.sorted_pages = place.sorted_pages
        self._place = place
        self._clients: PerProcess[_Clients] = PerProcess(self._connect)

    def _connect(self) -> _Clients:
        place = self._place
        endpoint = place.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if _home() != os.getpid():
            raise Failure(Kind.UNSUPPORTED, "obstore does not work in a forked process: use engine=s3fs, or spawn it")
        config: Any = {
            "region": place.region,
            "skip_signature": place.anonymous,
            "checksum_algorithm": "SHA256",  # by which the service notices damage on the way
            "disable_bulk_delete": True,
        }
        options: Any = {"connect_timeout": timedelta(seconds=CONNECT_SECONDS)}
        if endpoint is not None:
            config["endpoint"] = endpoint.rstrip("/")
            options["allow_http"] = endpoint.startswith("http://")
        if place.ca is not None:
            options["root_certificate"] = Path(place.ca).read_bytes()

        def client(seconds: float, retries: int) -> S3Store:
            limits: Any = {**options, "timeout": timedelta(seconds=seconds)}
            return S3Store(
                place.name,
                config=config,
                client_options=limits,
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=PART_SECONDS)},
            )

        with _translated(connecting=True):
            return _Clients(client(ANSWER_SECONDS, 0), client(PART_SECONDS, PART_ATTEMPTS))

    def close(self) -> None:
        self._clients.take()

    async def connect(self) -> None:
        self._clients.get()

    # -- single requests ----------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored:
        with _translated():
            answer = await obstore.get_async(self._clients.get().values, name)
            data = bytes(await answer.bytes_async())
        return Stored(data, _version(answer.meta["e_tag"]))

    async def head(self, name: str) -> Head:
        with _translated():
            answer = await obstore.get_async(self._clients.get().values, name, options={"head": True})
        meta, marks = answer.meta, answer.attributes
        return Head(
            size=meta["size"],
            version=_version(meta["e_tag"]),
            modified=meta["last_modified"].timestamp(),
            write_id=marks.get(WRITE_ID),
            digest=digest_of(marks),
        )

    async def put(self, name: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        mode: Any = {"e_tag": tag_of(condition)} if isinstance(condition, Version) else "overwrite"
        if condition is ABSENT:
            mode = "create"
        # As parts, the content would appear under no condition, and not at once.
        with _translated():
            answer = await obstore.put_async(
                self._clients.get().values, name, data, attributes=dict(marks), mode=mode, use_multipart=False
            )
        return _version(answer["e_tag"])

    async def remove(self, name: str) -> None:
        with _translated():
            await obstore.delete_async(self._clients.get().values, name)

    async def page(self, prefix: str, token: str | None = None) -> Page:
        """The whole listing: obstore lists folders, and goes on by itself."""
        folder = prefix.rpartition("/")[0]
        names: list[str] = []
        if folder and {"", ".", ".."} & set(folder.split("/")):
            return Page(names, None)  # obstore has no such folders, and no key is in one
        with _translated():
            async for found in obstore.list(self._clients.get().values, folder or None, chunk_size=1000):
                names += [entry["path"] for entry in found if entry["path"].startswith(prefix)]
                if self.sorted_pages and found[-1]["path"] > prefix and not found[-1]["path"].startswith(prefix):
                    break
        return Page(names, None)

    async def begin(self, name: str, marks: dict[str, str], size: int | None) -> Upload:
        writer = obstore.open_writer_async(
            self._clients.get().transfers,
            name,
            attributes=dict(marks),
            buffer_size=max(PART, -(-(size or 0) // MOST_PARTS)),
            max_concurrency=STREAMS,
        )
        return _WrittenUpload(self, name, writer, marks[WRITE_ID])

    async def ranges(self, name: str, head: Head, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        with _translated():
            answer = await obstore.get_async(
                self._clients.get().transfers,
                name,
                options={"if_match": head.version.token, "range": (start, stop)},
            )
            if answer.meta["e_tag"] != head.version.token:  # services that ignore If-Match say what they send
                raise Failure(Kind.REFUSED, "another version was sent")
            if answer.range != (start, stop):
                raise Failure(Kind.UNKNOWN, f"bytes {answer.range} were sent, not {(start, stop)}")
            async for chunk in answer.stream(min_chunk_size=BLOCK):
                yield bytes(chunk)


class _WrittenUpload:
    """obstore's own upload in parts, which sends them as it is given their content, and forgets none."""

    streams = 1
    resends = False

    def __init__(self, bucket: ObstoreBucket, name: str, writer: Any, write_id: str) -> None:
        self._bucket = bucket
        self._name = name
        self._writer = writer
        self._write_id = write_id
        self._closed = False

    async def send(self, number: int, start: int, data: bytes, last: bool) -> None:
        with _translated():
            await self._writer.write(data)

    async def commit(self) -> Version:
        if not self._closed:
            self._closed = True  # also where it fails: a writer is closed only once
            with _translated():
                await self._writer.close()
        head = await self._bucket.head(self._name)  # the writer does not tell what version it has made
        if head.write_id != self._write_id:
            raise Failure(Kind.REJECTED, "what was uploaded is not there, or was replaced at once")
        return head.version

    async def abort(self) -> None:
        if not self._closed:
            with _translated():
                await self._writer.__aexit__(Failure, None, None)  # there is no other way to abort a writer


@contextlib.contextmanager
def _translated(*, connecting: bool = False) -> Iterator[None]:
    """obstore's exceptions become Failures. Some of them are Python's own: FileNotFoundError, ValueError for a name."""
    try:
        yield
    except (BaseError, OSError) as error:
        failure = _failure_of(str(error))
        if connecting:
            failure.copies = 0
        raise failure from error
    except ValueError as error:
        raise Failure(Kind.BAD_NAME, str(error).partition("\n")[0][:200]) from error


def _failure_of(text: str) -> Failure:
    """What an error says, which obstore tells in words only. Each request was sent once."""
    status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
    if status is not None:
        failure = Failure.answered(int(status[1]), code[1] if code else "", message[1] if message else "")
    else:
        failure = Failure(Kind.UNKNOWN, text.partition("\n")[0].rpartition(" - ")[2][:200])
    failure.copies = 0 if status is None and _UNSENT.search(text) else 1
    return failure


def _version(tag: str | None) -> Version:
    if not tag:
        raise Failure(Kind.UNSUPPORTED, "the service sent no ETag")
    return Version(tag)
