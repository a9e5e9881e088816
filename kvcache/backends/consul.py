"""`consul://`: Consul's KV store. A version is the pair's ModifyIndex; reads are consistent.

What is sent and what the answers mean is in `consul_wire.py`; this module sends it, again where that is safe.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from typing import Final

from kvcache.backends.consul_http import CAUGHT, ConsulHTTP, Reply
from kvcache.backends.consul_wire import (
    INLINE_BYTES,
    PART_BYTES,
    Pair,
    Refused,
    flags,
    is_denied,
    is_stale,
    judge,
    parse_names,
    parse_pair,
    parse_rollback,
    parse_written,
    write_body,
)
from kvcache.backends.parted import PartedStore
from kvcache.backends.parts import Entry, Placed, Shelf
from kvcache.backends.resend import Sender
from kvcache.clock import SYSTEM, Clock
from kvcache.errors import AmbiguousWrite, Conflict, NotFound, StoreUnavailable
from kvcache.kvs import ANYWAY, Capabilities, Condition, Store, Version
from kvcache.url import StoreURL

PORT: Final = 8500
DEFAULT_TIMEOUT: Final = 5.0
"""Seconds for one request, sent again where that helps; one sending may take half of it."""
DEFAULT_MAX_VALUE: Final = 64 * 1024 * 1024
"""Consul's servers hold all values in memory, and in the snapshots of their log."""
LONGEST_WAIT: Final = 300.0
"""Seconds of one blocking query; Consul allows twice as many."""
SHORTEST_WAIT: Final = 0.1
"""Seconds between two blocking queries for one key, should they come back at once again and again."""
PARAMETERS: Final = frozenset({"dc", "scheme", "ca", "cert", "cert-key", "timeout", "max-value"})


def open(url: StoreURL) -> Store:
    """The store that a URL names. The token is read from CONSUL_HTTP_TOKEN now. InvalidURL."""
    url.reject_unknown(PARAMETERS)
    if url.user or url.password:
        raise url.invalid("user", "", "no user or password: the token goes into CONSUL_HTTP_TOKEN")
    if {".", ".."}.intersection(url.segments):
        raise url.invalid("prefix", url.path, "a path without . and .. segments")
    scheme = url.take_choice("scheme", ("http", "https"), "http")
    timeout = url.take_duration("timeout", DEFAULT_TIMEOUT)
    if timeout <= 0:
        raise url.invalid("timeout", url.params["timeout"], "a duration above zero, such as 5s")
    host = f"[{url.host}]" if ":" in url.host else url.host or "localhost"
    http = ConsulHTTP(
        f"{scheme}://{host}:{url.port or PORT}",
        os.environ.get("CONSUL_HTTP_TOKEN"),
        timeout / 2,
        _tls(url, scheme),
    )
    prefix = "".join(f"{segment}/" for segment in url.segments)
    shelf = ConsulShelf(http, url.redacted, prefix, url.take_text("dc", None), timeout)
    capabilities = Capabilities(
        conditional_write=True,
        store_time=True,
        time_resolution=1.0,
        watch=True,
        max_value_bytes=url.take_size("max-value", DEFAULT_MAX_VALUE),
    )
    return PartedStore(shelf, capabilities)


def _tls(url: StoreURL, scheme: str) -> ssl.SSLContext | None:
    """Verifies the server's certificate and name, always; there is no way to turn it off."""
    ca, cert, key = (url.take_text(name, None) for name in ("ca", "cert", "cert-key"))
    if scheme != "https":
        for name, path in (("ca", ca), ("cert", cert), ("cert-key", key)):
            if path:
                raise url.invalid(name, path, "scheme=https beside it: http does not encrypt")
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise url.invalid("ca", ca or "", f"the path of a PEM file ({error})") from error
    if cert:
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            raise url.invalid(
                "cert", cert, f"the path of a PEM file, its key there or in cert-key ({error})"
            ) from error
    return context


class ConsulShelf(Shelf):
    """One KV pair a value, one a part. `prefix` (empty, or ending in a slash) stands before every name."""

    inline_bytes = INLINE_BYTES
    part_bytes = PART_BYTES

    def __init__(
        self, http: ConsulHTTP, url: str, prefix: str, dc: str | None, timeout: float, clock: Clock = SYSTEM
    ) -> None:
        self.url = url
        self._http = http
        self._prefix = prefix
        self._dc: dict[str, str | int] = {"dc": dc} if dc else {}
        self._clock = clock
        self._sender = Sender(url, CAUGHT, judge, timeout, clock)

    # -- one name -----------------------------------------------------------------------------------------------------

    def fetch(self, name: str) -> Entry:
        pair, reply = self._sender.ask(lambda: self._read(name))
        if pair is None:
            raise NotFound(name, store_time=reply.store_time)
        return pair.entry(reply.store_time)

    def head(self, name: str) -> Entry:
        return self.fetch(name)

    def _read(self, name: str, hold: float = 0.0, **params: str | int) -> tuple[Pair | None, Reply]:
        reply = self._get(name, hold, **params)
        return parse_pair(reply.body) if reply.status == 200 else None, reply

    def place(self, name: str, data: bytes, condition: Condition, *, manifest: bool) -> Placed:
        if isinstance(condition, Version) and not condition.token.isdigit():
            raise Conflict(name)  # a version of another store
        mark = flags(self._clock.nonce(), manifest=manifest)
        body = write_body(self._prefix + name, data, mark, condition)
        try:
            # A write without a condition is not sent twice: what was sent first could arrive last, and undo the write
            # of somebody who came in between.
            answer = self._sender.send(lambda: self._transact(body), again=condition is not ANYWAY, writes=True)
        except AmbiguousWrite:
            if condition is ANYWAY and (landed := self._landed(name, mark)):
                return landed
            raise
        if isinstance(answer.value, Placed):
            return answer.value
        return self._rolled_back(name, mark, condition, answer.value, maybe_twice=answer.maybe_twice)

    def _transact(self, body: bytes) -> Placed | str:
        """Where it went through, or why it was rolled back."""
        reply = self._http.request("PUT", "/v1/txn", self._dc, body=body, accept=(200, 409))
        if reply.status == 200:
            return Placed(str(parse_written(reply.body)), reply.store_time)
        reason = parse_rollback(reply.body)
        if is_denied(reason):
            raise Refused(403, reason)
        return reason

    def _rolled_back(self, name: str, mark: int, condition: Condition, reason: str, *, maybe_twice: bool) -> Placed:
        """What to make of a refusal, which may be that of a second copy of a write that went through."""
        if not maybe_twice and is_stale(reason):
            raise Conflict(name)
        pair, reply = self._sender.ask(lambda: self._read(name))
        if pair is not None and pair.flags == mark:
            return Placed(str(pair.index), reply.store_time)
        if _holds(condition, pair):
            raise StoreUnavailable(f"{self.url}: {name}: {reason}")
        if maybe_twice:
            # It may have landed at the first sending and have been replaced since. Nobody can tell any more.
            raise AmbiguousWrite(f"{self.url}: {name}: an answer was lost, and another version stands there now")
        raise Conflict(name)

    def _landed(self, name: str, mark: int) -> Placed | None:
        try:
            pair, reply = self._sender.ask(lambda: self._read(name))
        except StoreUnavailable:
            return None
        return Placed(str(pair.index), reply.store_time) if pair is not None and pair.flags == mark else None

    def remove(self, name: str, version: str | None = None) -> None:
        query = self._dc if version is None else {**self._dc, "cas": version}
        try:
            # Without a version not sent twice, for the same reason: somebody may have created the key anew.
            self._sender.send(
                lambda: self._http.request("DELETE", self._path(name), query), again=version is not None, writes=True
            )
        except AmbiguousWrite:
            if version is not None or not self._is_absent(name):
                raise

    def _is_absent(self, name: str) -> bool:
        try:
            return self._sender.ask(lambda: self._read(name))[0] is None
        except StoreUnavailable:
            return False

    # -- parts --------------------------------------------------------------------------------------------------------

    def put_part(self, name: str, data: bytes) -> None:
        self._sender.ask(lambda: self._http.request("PUT", self._path(name), self._dc, body=data))

    def get_part(self, name: str) -> bytes | None:
        reply = self._sender.ask(lambda: self._get(name, raw=1))
        return reply.body if reply.status == 200 else None

    def drop_part(self, name: str) -> None:
        self._sender.ask(lambda: self._http.request("DELETE", self._path(name), self._dc))

    def names(self, prefix: str) -> Iterator[str]:
        # A last segment of dots may begin a key's, but Consul's web server would take it for a direction.
        asked = prefix.rstrip(".") if prefix.rpartition("/")[2] in (".", "..") else prefix
        reply = self._sender.ask(lambda: self._get(asked, keys=1))
        for name in sorted(parse_names(reply.body)) if reply.status == 200 else ():
            own = name.removeprefix(self._prefix)
            if own.startswith(prefix):
                yield own

    # -- change -------------------------------------------------------------------------------------------------------

    def wait(self, name: str, version: str | None, timeout: float) -> bool:
        deadline = self._clock.monotonic() + timeout
        index = int(version) if version else 0
        # A blocking query ends up to a seventeenth early, or Consul's own jitter would make it late.
        while (left := deadline - (began := self._clock.monotonic())) > timeout / 16:
            try:
                pair, reply = self._hold(name, index, min(left, LONGEST_WAIT))
            except CAUGHT:  # the agent is restarting, say; a plain read tries for longer
                pair, reply = self._sender.ask(lambda: self._read(name))
            if (str(pair.index) if pair else None) != version:
                return True
            # It only said "something may have changed"; and the index goes backwards when the servers are restored.
            index = reply.index if reply.index >= index else 0
            time.sleep(max(0.0, began + min(left, SHORTEST_WAIT) - self._clock.monotonic()))
        return False

    def _hold(self, name: str, index: int, seconds: float) -> tuple[Pair | None, Reply]:
        """A blocking query: answered when the index exceeds `index` (0: at once), or `seconds` are over."""
        if index == 0:
            return self._read(name)
        # Consul adds up to a sixteenth to what it is asked to wait.
        return self._read(name, hold=seconds, index=index, wait=f"{max(1, int(seconds * 1000 * 16 / 17))}ms")

    def close(self) -> None:
        self._http.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _get(self, name: str, hold: float = 0.0, **params: str | int) -> Reply:
        """A read that the leader answers after it has made sure that it is the leader still. 404 is an answer."""
        query = {"consistent": 1, **self._dc, **params}
        return self._http.request("GET", self._path(name), query, accept=(200, 404), hold=hold)

    def _path(self, name: str) -> str:
        return f"/v1/kv/{self._prefix}{name}"


def _holds(condition: Condition, pair: Pair | None) -> bool:
    if isinstance(condition, Version):
        return pair is not None and str(pair.index) == condition.token
    return condition is ANYWAY or pair is None
