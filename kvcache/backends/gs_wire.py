"""What Google Cloud Storage answers, and what its clients raise, in the terms of the object stores."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import google.auth.exceptions
import requests
from gcsfs.retry import HttpError, NonRetryableError

from kvcache.backends.bucket import Digest
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.wire import http_date, pause_asked
from kvcache.kvs import Version


@contextlib.contextmanager
def translated(*, connecting: bool = False) -> Iterator[None]:
    """gcsfs's, google-auth's and aiohttp's exceptions become Failures. `connecting`: nothing is sent to the bucket."""
    try:
        yield
    except google.auth.exceptions.TransportError as error:
        failure = Failure.unanswered(error)
        failure.copies = 0
        raise failure from error
    except (google.auth.exceptions.GoogleAuthError, HttpError, NonRetryableError, ValueError) as error:
        failure = Failure(Kind.DENIED, f"no credentials: {error}")
        failure.copies = 0
        raise failure from error
    except (aiohttp.ClientError, requests.RequestException, TimeoutError, OSError) as error:
        failure = Failure.unanswered(error)
        if connecting:
            failure.copies = 0
        raise failure from error


async def failure_of(answer: aiohttp.ClientResponse) -> Failure:
    text = (await answer.read()).decode(errors="replace")
    reason, message = "", text
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # not Google's JSON
        error = json.loads(text)["error"]
        message = error["message"]
        reason = error["errors"][0]["reason"]
    if answer.status == 400 and "CRC32C" in message:
        reason = "BadDigest"  # damaged on its way, and not a request that is wrong
    date = http_date(answer.headers.get("Date"))
    failure = Failure.answered(
        answer.status,
        reason,
        message,
        retry_after=pause_asked(answer.headers.get("Retry-After"), date),
        store_time=date,
    )
    if failure.kind is Kind.ABSENT and "bucket does not exist" in message:
        failure.kind = Kind.NO_BUCKET
    return failure


async def json_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        facts = json.loads(await answer.read())
    except ValueError as error:
        raise Failure(Kind.UNKNOWN, "the answer is not JSON") from error
    if not isinstance(facts, dict):
        raise Failure(Kind.UNKNOWN, "the answer is not a JSON object")
    return facts


def generation_of(answer: aiohttp.ClientResponse) -> Version:
    generation = answer.headers.get("X-Goog-Generation")
    if not generation:
        raise Failure(Kind.UNSUPPORTED, "the service sent no generation")
    return Version(generation)


def version_of(facts: Mapping[str, Any]) -> Version:
    generation = facts.get("generation")
    if not generation:
        raise Failure(Kind.UNSUPPORTED, "the service sent no generation")
    return Version(str(generation))


def crc32c_of(facts: Mapping[str, Any]) -> Digest | None:
    text = facts.get("crc32c")
    if not text:
        return None
    try:
        return Digest("crc32c", base64.b64decode(text, validate=True).hex())
    except ValueError:
        return None
