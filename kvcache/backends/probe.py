"""Whether a bucket may be used at all, and whether the service behind it refuses the writes that it must refuse.

Many services that resemble S3 accept the condition of a write and ignore it. No list of vendors stays true, so the
service is asked, on throw-away keys. What a probe cannot see is a service that checks and then writes in two steps:
that shows only in a race.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from typing import Final

from kvcache.backends.bucket import Bucket
from kvcache.backends.failures import Failure, Kind
from kvcache.backends.objects import PROBE, ObjectStore
from kvcache.backends.streams import persistently
from kvcache.errors import Conflict, KVCacheError, StoreUnavailable, Unsupported
from kvcache.kvs import ABSENT, Condition, Version

log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
LITTER_SECONDS: Final = 86_400.0
"""Age after which the keys of a probe that never ended are removed."""


class Misused(Exception):
    """The bucket does not exist, or may not be used so; to be corrected by whoever wrote the URL. Says what and why."""


async def check_access(store: ObjectStore, bucket: Bucket, prefix: str) -> None:
    """Lists the bucket, which also tells a missing bucket from an empty one. Misused; StoreUnavailable."""
    try:
        page = await store.page_async(prefix + PROBE, None)
    except KVCacheError as error:
        raise _misuse(error, bucket) or error from error
    for name in page.names:
        with contextlib.suppress(Failure):
            head = await bucket.head(name)
            if head.modified is not None and head.modified < time.time() - LITTER_SECONDS:
                await bucket.remove(name)


async def check_writing(store: ObjectStore, bucket: Bucket, prefix: str) -> None:
    """Tries a write that must be refused, so that a missing right shows now and nothing is left. Misused;
    StoreUnavailable."""
    name = f"{prefix}{PROBE}{secrets.token_hex(8)}"
    try:
        written = await _lands(bucket, name, bucket.never)
    except Failure as failure:
        error = store.failed(failure, "", "write to the bucket", bucket.rights.write)
        raise _misuse(error, bucket) or error from failure
    if written:
        await _remove(bucket, name)


async def find_faults(store: ObjectStore, bucket: Bucket, prefix: str) -> list[str]:
    """What the service does with conditional writes that it must not do; empty: nothing. Misused; StoreUnavailable."""
    attempt = 0
    while True:
        attempt += 1
        key = PROBE + secrets.token_hex(8)
        try:
            return await _probe(store, bucket, prefix, key)
        except Failure as failure:
            error: KVCacheError = store.failed(failure, "", "probe the bucket", bucket.rights.write)
        except KVCacheError as failed:
            error = failed
        finally:
            for name in (prefix + key, prefix + key + "-absent"):
                await _remove(bucket, name)
        misuse = _misuse(error, bucket)
        if misuse is not None:
            raise misuse from error
        if isinstance(error, Unsupported):
            return [str(error)]
        if attempt == ATTEMPTS or not isinstance(error, StoreUnavailable):
            raise error


async def _probe(store: ObjectStore, bucket: Bucket, prefix: str, key: str) -> list[str]:
    faults = []
    first = await store.put_async(key, b"1", ABSENT)
    if await _lands(bucket, prefix + key, ABSENT):
        faults.append("created a key that existed")
        first = (await bucket.head(prefix + key)).version
    try:
        await store.put_async(key, b"2", first)
    except Conflict:
        faults.append("refused the current version")
    if await _lands(bucket, prefix + key, first):
        faults.append("replaced a version that was stale")
    if await _lands(bucket, f"{prefix}{key}-absent", first):
        faults.append("wrote to an absent key under a version")
    return faults


async def _lands(bucket: Bucket, name: str, condition: Condition) -> bool:
    """Whether a write that must be refused is carried out. Failure where the service gives no clear answer."""
    try:
        await persistently(lambda: bucket.put(name, secrets.token_bytes(8), condition, {}), ATTEMPTS)
    except Failure as failure:
        if failure.kind is Kind.REFUSED or (failure.kind is Kind.ABSENT and isinstance(condition, Version)):
            return False
        raise
    return True


async def _remove(bucket: Bucket, name: str) -> None:
    try:
        await persistently(lambda: bucket.remove(name), ATTEMPTS)
    except Failure as failure:
        if failure.kind is not Kind.ABSENT:
            log.warning("could not remove the probe's %s from bucket %s: %s", name, bucket.label, failure.detail)


_MISUSE: Final = frozenset({Kind.ABSENT, Kind.NO_BUCKET, Kind.DENIED, Kind.REJECTED})


def _misuse(error: KVCacheError, bucket: Bucket) -> Misused | None:
    """The user's mistake that an error shows; None where it shows none, but a store that does not answer for now."""
    failure = error.__cause__
    if not isinstance(failure, Failure) or failure.kind not in _MISUSE or failure.copies == 0:
        return None  # copies == 0: there were no credentials to send it with, and there may be later
    if failure.kind in (Kind.ABSENT, Kind.NO_BUCKET):
        return Misused(f"bucket: {bucket.label!r} does not exist ({failure.detail})")
    return Misused(f"bucket: {bucket.label!r} cannot be used: {failure.detail}; {error}")
