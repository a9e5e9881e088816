"""`redis://` and `rediss://`: Redis and Valkey, one server, a cluster or behind Sentinel.

What is sent and what the answers mean is in `redis_wire.py`; this module sends it, again where that is safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, TryAgainError

from kvcache.backends.parted import PartedStore
from kvcache.backends.parts import ORPHAN_AGE, Entry, Placed, Shelf
from kvcache.backends.redis_async import RedisAccess
from kvcache.backends.redis_client import Client, Settings, understand
from kvcache.backends.redis_watch import Channels, Ear
from kvcache.backends.redis_wire import (
    READ,
    REMOVE,
    WRITE,
    Argument,
    Script,
    glob_escaped,
    judge,
    parse_read,
    parse_write,
    server_time,
    write_arguments,
)
from kvcache.backends.resend import Sender
from kvcache.clock import SYSTEM, Clock
from kvcache.errors import AmbiguousWrite, Conflict, NotFound, StoreUnavailable
from kvcache.kvs import ANYWAY, Capabilities, Condition, Store
from kvcache.url import StoreURL

SCAN_COUNT: Final = 1000


def open(url: StoreURL) -> Store:
    """The store that a URL names. Nothing is sent before the first request. InvalidURL."""
    settings = understand(url)
    capabilities = Capabilities(
        conditional_write=True,
        store_time=True,
        watch=True,
        max_value_bytes=settings.max_value,
        expires_after=settings.expire,
    )
    shelf = RedisShelf(settings, url.redacted)
    return PartedStore(shelf, capabilities, asynchronous=lambda store: RedisAccess(store, shelf, shelf.listen))


class RedisShelf(Shelf):
    """One hash a value, one string a part. `prefix` stands before every name as it is written."""

    # A script copies what it handles a few times while the server does nothing else: 512 KiB take it some 3 ms.
    inline_bytes = 512 * 1024
    part_bytes = 1024 * 1024

    def __init__(self, settings: Settings, url: str, clock: Clock = SYSTEM) -> None:
        self.url = url
        self._settings = settings
        self._clock = clock
        self._client: Client | None = None
        self._opening = threading.Lock()  # one client, though many threads send the first request
        self._channels = Channels(lambda: self._connected().pubsub())
        caught = (RedisError, RedisClusterException, OSError)
        self._sender = Sender(url, caught, judge, settings.timeout, clock)

    # -- one name -----------------------------------------------------------------------------------------------------

    def fetch(self, name: str) -> Entry:
        return self._read(name, "whole")

    def head(self, name: str) -> Entry:
        return self._read(name, "head")

    def _read(self, name: str, extent: str) -> Entry:
        reply = self._sender.ask(self._script(READ, name, extent))
        if (entry := parse_read(reply)) is None:
            raise NotFound(name, store_time=server_time(reply))
        return entry

    def place(self, name: str, data: bytes, condition: Condition, *, manifest: bool) -> Placed:
        version = self._clock.nonce()
        arguments = write_arguments(
            condition, version, data, manifest=manifest, expire_ms=self._expire_ms(0), channel=self._channel(name)
        )
        try:
            # The script knows its own version again. A write without a condition is not sent twice all the same: what
            # was sent first could arrive last, and undo the write of somebody who came in between.
            answer = self._sender.send(
                self._script(WRITE, name, *arguments), again=condition is not ANYWAY, writes=True
            )
        except AmbiguousWrite:
            if condition is ANYWAY and (landed := self._landed(name, version)):
                return landed
            raise
        if placed := parse_write(answer.value, version):
            return placed
        if answer.maybe_twice:
            # It may have landed at the first sending and have been replaced since. Nobody can tell any more.
            raise AmbiguousWrite(f"{self.url}: {name}: an answer was lost, and another version stands there now")
        raise Conflict(name)

    def _landed(self, name: str, version: str) -> Placed | None:
        try:
            entry = self.head(name)
        except (NotFound, StoreUnavailable):
            return None
        return Placed(version, entry.store_time) if entry.version == version else None

    def remove(self, name: str, version: str | None = None) -> None:
        request = self._script(REMOVE, name, version or "", self._channel(name))
        try:
            # Without a version not sent twice, for the same reason: somebody may have created the key anew.
            self._sender.send(request, again=version is not None, writes=True)
        except AmbiguousWrite:
            if version is not None or not self._is_absent(name):
                raise

    def _is_absent(self, name: str) -> bool:
        try:
            self.head(name)
        except NotFound:
            return True
        except StoreUnavailable:
            pass
        return False

    # -- parts --------------------------------------------------------------------------------------------------------

    def put_part(self, name: str, data: bytes) -> None:
        # It has to outlive the manifest, which expires later by as long as the upload takes.
        expire = self._expire_ms(ORPHAN_AGE)
        self._command("SET", self._key(name), data, *(("PX", expire) if expire else ()))

    def get_part(self, name: str) -> bytes | None:
        data: bytes | None = self._command("GET", self._key(name))
        return data

    def drop_part(self, name: str) -> None:
        self._command("UNLINK", self._key(name))

    def names(self, prefix: str) -> Iterator[str]:
        whole = self._settings.prefix + prefix
        pattern = glob_escaped(whole) + "*"
        keys = self._sender.ask(lambda: sorted(set(self._connected().scan_iter(match=pattern, count=SCAN_COUNT))))
        skip = len(self._settings.prefix)
        for key in keys:
            try:
                yield key.decode()[skip:]
            except UnicodeDecodeError:
                continue  # not ours: no key of kvcache has such a name

    # -- change -------------------------------------------------------------------------------------------------------

    def listen(self, name: str, ring: Callable[[], None] | None = None) -> AbstractContextManager[Ear]:
        """An ear that rings when a change is published, and when the subscription begins or ends."""
        return self._channels.listen(self._channel(name), ring)

    def wait(self, name: str, version: str | None, timeout: float) -> bool:
        deadline = self._clock.monotonic() + timeout
        with self.listen(name) as ear:
            while (left := deadline - self._clock.monotonic()) > 0:
                ear.wait(min(left, ear.patience))
                if self.version_of(name) != version:
                    return True
        return False

    def close(self) -> None:
        self._channels.close()
        with self._opening:
            if self._client is not None:
                self._client.close()

    # -- sending ------------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> bytes:
        return (self._settings.prefix + name).encode()

    def _channel(self, name: str) -> bytes:
        # Channels, unlike keys, are not divided into databases.
        return b"kvcache:%d:%s" % (self._settings.database, self._key(name))

    def _expire_ms(self, more: float) -> int:
        return 0 if self._settings.expire is None else max(1, round((self._settings.expire + more) * 1000))

    def _script(self, script: Script, name: str, *arguments: Argument) -> Callable[[], Any]:
        key = self._key(name)

        def run() -> Any:
            client = self._connected()
            try:
                return client.execute_command(*script.by_sha(key, *arguments))
            except NoScriptError:  # a new server, or one that forgot; it has not run anything
                return client.execute_command(*script.by_text(key, *arguments))
            except ReadOnlyError:  # no primary any more: the next try has to look for the new one
                self._disconnect()
                raise

        return lambda: self._asked(run)

    def _command(self, *command: Argument) -> Any:
        return self._sender.ask(lambda: self._asked(lambda: self._connected().execute_command(*command)))

    @staticmethod
    def _asked(request: Callable[[], Any]) -> Any:
        """redis-py 8.1 follows ASK only to a node that it knows, and it knows those that serve slots already.

        To one that is just joining the cluster it fails with an AttributeError on None, having sent nothing there. When
        the slot has arrived it will be told MOVED, which it does follow.
        """
        try:
            return request()
        except AttributeError as error:
            if error.obj is None and error.name == "redis_connection":
                raise TryAgainError("the slot is on its way to a node that is new in the cluster") from error
            raise

    def _connected(self) -> Client:
        with self._opening:
            if self._client is None:
                self._client = self._settings.connect()
            return self._client

    def _disconnect(self) -> None:
        """Throws the connections away: they lead to a server that is no primary any more."""
        with self._opening:
            if self._client is not None:
                self._client.close()
