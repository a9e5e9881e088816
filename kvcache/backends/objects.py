"""A `Store` over a `Bucket`: what the object stores (S3, Google Cloud Storage, Azure Blob) share.

Retries within a deadline, conditional writes whose outcome is told truthfully (`reconcile`), and transfers with flat
memory (`uploads`, `downloads`). The methods `..._async` are the same operations for an asyncio driver, to be run on
fsspec's loop.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from kvcache.access import OnLoop
from kvcache.backends import downloads, uploads
from kvcache.backends.bucket import MAX_NAME_BYTES, WRITE_ID, Bucket, Head, Page
from kvcache.backends.failures import TRANSIENT, Failure, Kind, as_error
from kvcache.backends.reconcile import Verdict, judge
from kvcache.backends.wire import client_loop, counting_sends, wait_for
from kvcache.errors import AmbiguousWrite, Conflict, InvalidKey, KVCacheError
from kvcache.kvs import (
    ANYWAY,
    Capabilities,
    Condition,
    Progress,
    Source,
    Stat,
    Store,
    Stored,
    Version,
    check_key,
)

T = TypeVar("T")

PROBE: Final = ".kvcache-probe-"
"""Reserved: keys that begin so are throw-away keys of `probe`, and are not listed."""
ATTEMPTS: Final = 5
"""How often one request is sent, if the deadline allows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the operations on small values may take, in seconds. Transfers have a limit for each part instead."""

    total: float = 20.0
    """One operation, its retries and its read-back included."""

    @property
    def attempt(self) -> float:
        """One request."""
        return self.total / 2


class ObjectStore(Store):
    """See the module. `prefix` is empty or ends with `/`; `dice` draws from [0, 1)."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        url: str,
        prefix: str,
        capabilities: Capabilities,
        limits: Limits,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self._bucket = bucket
        self._prefix = prefix
        self._capabilities = capabilities
        self._limits = limits
        self._dice = dice
        self._counts_sends = False  # see `_copies`

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def close(self) -> None:
        self._bucket.close()

    # -- from any thread ----------------------------------------------------------------------------------------------

    def read_versioned(self, key: str) -> Stored:
        return wait_for(self.read_versioned_async(key))

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return wait_for(self.put_async(key, data, condition))

    def delete(self, key: str) -> None:
        wait_for(self.delete_async(key))

    def stat(self, key: str) -> Stat:
        return wait_for(self.stat_async(key))

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        return wait_for(self.upload_async(key, source, progress))

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        return wait_for(self.download_async(key, path, progress))

    def list(self, prefix: str = "") -> Iterator[str]:
        if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in prefix):
            return iter(())  # no key holds a control character, and not every service takes the question
        names = self._names(self._prefix + prefix)
        if not self._bucket.sorted_pages:
            names = iter(sorted(names))
        return (name[len(self._prefix) :] for name in names)

    def native_async(self) -> OnLoop:
        return OnLoop(client_loop, self.read_versioned_async, self.put_async)

    def _names(self, start: str) -> Iterator[str]:
        token: str | None = None
        while True:
            names, token = wait_for(self.page_async(start, token))
            yield from (name for name in names if self._is_value(name, start))
            if token is None:
                return

    def _is_value(self, name: str, start: str) -> bool:
        # SeaweedFS takes a//b for a/b. A name that ends with "/" is a folder that somebody's console made.
        return name.startswith(start) and not name.endswith("/") and not name.startswith(self._prefix + PROBE)

    # -- on fsspec's loop ---------------------------------------------------------------------------------------------

    async def read_versioned_async(self, key: str) -> Stored:
        name = self._name(key)
        return await self._persistently(lambda: self._bucket.get(name), key, "read", self._bucket.rights.read)

    async def stat_async(self, key: str) -> Stat:
        head = await self._head(key)
        return Stat(head.size, head.version, head.modified)

    async def delete_async(self, key: str) -> None:
        name = self._name(key)

        async def remove() -> None:
            try:
                await self._bucket.remove(name)
            except Failure as failure:
                if failure.kind is not Kind.ABSENT:
                    raise

        await self._persistently(remove, key, "delete", self._bucket.rights.delete, writing=True)

    async def page_async(self, start: str, token: str | None) -> Page:
        """One part of the names that start with `start`, the store's prefix included, and the token of the next."""
        return await self._persistently(
            lambda: self._bucket.page(start, token), "", "list the bucket", self._bucket.rights.list
        )

    async def put_async(self, key: str, data: bytes, condition: Condition) -> Version:
        return await self._put(key, data, condition, {})

    async def upload_async(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        name, write_id = self._name(key), secrets.token_hex(16)

        async def whole(data: bytes, marks: dict[str, str]) -> Version:
            return await self._put(key, data, ANYWAY, marks)

        async def landed() -> Version | None:
            head = await self._read_back(key, time.monotonic() + self._limits.total)
            return head.version if head is not None and head.write_id == write_id else None

        try:
            return await uploads.upload(
                self._bucket, name, source, progress, write_id=write_id, whole=whole, landed=landed
            )
        except Failure as failure:
            if failure.kind is Kind.ABSENT:  # the upload itself, which the service has forgotten each time
                failure.kind = Kind.UNKNOWN
            raise self.failed(failure, key, "upload", self._bucket.rights.write) from failure

    async def download_async(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        name = self._name(key)
        try:
            head = await downloads.download(self._bucket, name, lambda: self._head(key), path, progress)
        except Failure as failure:
            raise self.failed(failure, key, "download", self._bucket.rights.read) from failure
        return Stat(head.size, head.version, head.modified)

    # -- conditional writes -------------------------------------------------------------------------------------------

    async def _put(self, key: str, data: bytes, condition: Condition, marks: dict[str, str]) -> Version:
        """Writes, and tells the outcome truthfully whatever the network and the clients' hidden retries did.

        The one case that cannot be seen through: an intermediary (a gateway that repeats requests) duplicated our only
        copy, the first landed, somebody overwrote it, and the second copy's refusal came back. That is a Conflict.
        """
        name, write_id = self._name(key), secrets.token_hex(16)
        marks = {**marks, WRITE_ID: write_id}
        deadline = await self._deadline(key, "write", self._bucket.rights.write)
        all_refused = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._send(name, data, condition, marks, deadline)
            except Failure as failure:
                outcome = failure
            if outcome.may_have_landed:
                all_refused = False
            if all_refused and outcome.kind not in (Kind.REFUSED, Kind.BUSY, Kind.UNKNOWN):
                if outcome.kind is not Kind.THROTTLED or condition is not ANYWAY:
                    raise self.failed(outcome, key, "write", self._bucket.rights.write) from outcome
            elif outcome.copies != 0:
                found = await self._read_back(key, deadline)
                verdict = judge(write_id, condition, found, all_refused=all_refused)
                if verdict is Verdict.LANDED:
                    assert found is not None
                    return found.version
                if verdict is Verdict.LOST:
                    raise Conflict(key) from outcome
                if verdict is Verdict.UNKNOWABLE:
                    raise self.failed(outcome, key, "write", self._bucket.rights.write, in_doubt=True) from outcome
            pause = self._pause(attempt, outcome)
            if attempt == ATTEMPTS or time.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        if all_refused and outcome.kind is Kind.REFUSED:
            raise Conflict(key) from outcome
        raise self.failed(outcome, key, "write", self._bucket.rights.write, in_doubt=not all_refused) from outcome

    async def _send(
        self, name: str, data: bytes, condition: Condition, marks: dict[str, str], deadline: float
    ) -> Version:
        """One write. Failure."""
        try:
            return await self._timely(lambda: self._bucket.put(name, data, condition, marks), deadline)
        except Failure as failure:
            if failure.kind is Kind.ABSENT:  # S3, to If-Match on a key that is gone
                failure.kind = Kind.REFUSED if isinstance(condition, Version) else Kind.NO_BUCKET
            raise

    async def _read_back(self, key: str, deadline: float) -> Head | None:
        """What is under the key after a write that may have landed. AmbiguousWrite where that cannot be learnt."""
        name = self._name(key)

        async def look() -> Head | None:
            try:
                return await self._bucket.head(name)
            except Failure as failure:
                if failure.kind is Kind.ABSENT:
                    return None
                raise

        try:
            return await self._persistently(look, key, "read back", self._bucket.rights.read, deadline=deadline)
        except KVCacheError as error:
            raise AmbiguousWrite(f"{self.url}: the outcome of writing {key!r} is unknown: {error}") from error

    # -- single requests ----------------------------------------------------------------------------------------------

    async def _head(self, key: str) -> Head:
        name = self._name(key)
        return await self._persistently(lambda: self._bucket.head(name), key, "look up", self._bucket.rights.read)

    async def _persistently(
        self,
        request: Callable[[], Awaitable[T]],
        key: str,
        doing: str,
        right: str,
        *,
        writing: bool = False,
        deadline: float | None = None,
    ) -> T:
        """Sends a request that may be repeated, again if it fails in passing, until it succeeds or time is up."""
        if deadline is None:
            deadline = await self._deadline(key, doing, right)
        attempt, in_doubt = 0, False
        while True:
            attempt += 1
            try:
                return await self._timely(request, deadline)
            except Failure as failure:
                in_doubt = in_doubt or (writing and failure.may_have_landed)
                pause = self._pause(attempt, failure)
                late = attempt == ATTEMPTS or time.monotonic() + pause >= deadline
                if late or failure.kind not in TRANSIENT:
                    raise self.failed(failure, key, doing, right, in_doubt=in_doubt) from failure
            await asyncio.sleep(pause)

    async def _deadline(self, key: str, doing: str, right: str) -> float:
        """When an operation that begins now has to be over; the first one's client takes no time away from it."""
        try:
            await self._bucket.connect()
        except Failure as failure:
            raise self.failed(failure, key, doing, right) from failure
        return time.monotonic() + self._limits.total

    async def _timely(self, request: Callable[[], Awaitable[T]], deadline: float) -> T:
        """One request, within its time. A Failure of it says how many copies were really sent."""
        seconds = max(0.0, min(self._limits.attempt, deadline - time.monotonic()))
        with counting_sends() as sent:
            try:
                async with asyncio.timeout(seconds):
                    answer = await request()
            except TimeoutError as error:
                failure = Failure(Kind.UNKNOWN, f"no answer within {seconds:.3g} s")
                failure.copies = self._copies(len(sent))
                raise failure from error
            except Failure as failure:
                if failure.copies is None:
                    failure.copies = self._copies(len(sent))
                raise
        self._counts_sends = self._counts_sends or bool(sent)
        return answer

    def _copies(self, counted: int) -> int | None:
        # Zero means that no connection came about, or that a new version of the client has lost our hook: until a
        # request that succeeded has been counted, nobody can say.
        return counted if counted or self._counts_sends else None

    def _pause(self, attempt: int, failure: Failure) -> float:
        """Seconds before the next attempt: what the store asked for; else 50 ms, and then three times as long."""
        if failure.retry_after is not None:
            return failure.retry_after
        return 0.05 * 3.0 ** (attempt - 1) * (0.5 + self._dice() / 2)

    def failed(self, failure: Failure, key: str, doing: str, right: str, *, in_doubt: bool = False) -> KVCacheError:
        """The error for a failed request; to be raised from it."""
        return as_error(failure, where=self.url, key=key, doing=doing, right=right, in_doubt=in_doubt)

    def _name(self, key: str) -> str:
        """The object's full name. InvalidKey."""
        name = self._prefix + check_key(key)
        if len(name.encode()) > MAX_NAME_BYTES:
            raise InvalidKey(f"key and prefix are longer than {MAX_NAME_BYTES} bytes together: {key[:40]!r}...")
        return name
