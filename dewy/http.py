"""HTTP for registries: a few promises on top of urllib3, which are the same for every call.

- Every call has a time-out to connect, one for each silence of the server, and an end: its deadline.
- Nothing is sent twice. Who wants another try makes another call, and knows what it costs.
- Redirects are followed for GET and HEAD alone, never from https to http; a credential stays with the origin (scheme,
  host and port) that it was given for, and once a redirect has left it, it does not come back.
- Proxies and CA files come from the environment that is passed in. A loopback address is never proxied, as in Go.
- Whatever goes wrong below HTTP is one error, `CallFailed`, in one line that holds no query (signatures live there), no
  header and no password.

An answer of any status is an answer; what a status means, the caller knows.
"""

from __future__ import annotations

import contextlib
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from dewy.errors import ConfigError
from dewy.transport import Pools, reason
from kvcache import UpstreamError

CONNECT_WITHIN: Final = 10.0
"""Seconds for one TCP and TLS handshake."""
SILENT_AT_MOST: Final = 30.0
"""Seconds in which a server has to send all of its headers, and then each next piece of the body."""
IDLE_AT_MOST: Final = 15.0
"""Seconds after which a kept connection is not used again: servers, proxies and NAT end idle ones later than that."""
MAX_BODY: Final = 32 * 2**20
"""Bytes of a body that is read into memory."""
MAX_REDIRECTS: Final = 5
CHUNK: Final = 256 * 1024

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class CallFailed(UpstreamError):
    """No answer, or only a part of one. It may pass by itself; whether the server acted on the request is unknown."""


class TimedOut(CallFailed):
    """No answer, or not all of it, in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `url` is where it came from after redirects; `headers` ignore case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Stream:
    """An answer whose body is still to come."""

    def __init__(self, response: BaseHTTPResponse, url: str, deadline: float, clock: Callable[[], float]) -> None:
        self.status: Final = response.status
        self.headers: Final[Mapping[str, str]] = response.headers
        self.url: Final = url
        self._response = response
        self._deadline = deadline
        self._clock = clock

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes over the wire. CallFailed where it does not come whole."""
        while True:
            if self._clock() >= self._deadline:
                raise TimedOut(f"{shown(self.url)}: the answer did not end in time")
            try:
                # One read of the socket at most, so that a server which drips is noticed at the deadline.
                piece = self._response.read1(CHUNK, decode_content=False)
            except (HTTPError, HTTPException, OSError) as error:
                raise _failed(self.url, error) from error
            if not piece:
                return
            yield piece

    def text(self, limit: int) -> bytes:
        """The whole body, unpacked. CallFailed, also where it has more than `limit` bytes.

        It is unpacked here rather than by urllib3, which reads on until something comes out: a body that drips would
        keep it past any deadline.
        """
        whole = bytearray()
        for piece in _unpacked(self.chunks(), self.headers.get("content-encoding") or "identity", self.url):
            whole += piece
            if len(whole) > limit:
                raise CallFailed(f"{shown(self.url)}: an answer of more than {limit} bytes")
        return bytes(whole)


class Client:
    """Makes calls. Safe to use from any number of threads.

    ConfigError: the environment names a CA file that cannot be read, or a proxy that cannot be used.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        connect_within: float = CONNECT_WITHIN,
        silent_at_most: float = SILENT_AT_MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = Pools(env, trust(env))
        self._connect_within = connect_within
        self._silent_at_most = silent_at_most
        self._clock = clock
        self._used_at = clock()
        self._user_agent = user_agent()

    def call(
        self,
        method: str,
        url: str,
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        credential: str | None = None,
        limit: int = MAX_BODY,
    ) -> Answer:
        """The whole answer. `deadline` is on the monotonic clock; `credential` becomes the Authorization header.

        CallFailed, also for a body beyond `limit` bytes.
        """
        asked = {"Accept-Encoding": "gzip", **(headers or {})}
        with self.stream(method, url, deadline=deadline, headers=asked, body=body, credential=credential) as answer:
            return Answer(answer.status, answer.headers, answer.text(limit), answer.url)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        credential: str | None = None,
    ) -> Iterator[Stream]:
        """The answer with its body still to be read, inside the `with`. CallFailed."""
        sent = {"Accept-Encoding": "identity", "User-Agent": self._user_agent, **(headers or {})}
        response, at = self._follow(method, url, sent, body, credential, deadline)
        try:
            yield Stream(response, at, deadline, self._clock)
        finally:
            # A connection whose answer was read to its end is back in its pool by now; any other is closed.
            response.close()
            self._used_at = self._clock()

    def close(self) -> None:
        """Gives back all connections. Closing twice is not an error."""
        self._pools.close()

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        credential: str | None,
        deadline: float,
    ) -> tuple[BaseHTTPResponse, str]:
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**headers, "Authorization": credential} if credential else headers
            response = self._send(method, url, sent, body, deadline)
            location = response.headers.get("Location")
            if method not in ("GET", "HEAD") or response.status not in _REDIRECTS or not location:
                return response, url
            response.close()
            try:
                target = urljoin(url, location)
                leaves = origin(target) != origin(url)
            except ValueError as error:
                raise CallFailed(f"{shown(url)}: redirected to what is no URL") from error
            if target.partition(":")[0] not in ("https", urlsplit(url).scheme):
                raise CallFailed(f"{shown(url)}: redirected to {shown(target)}, which is not followed")
            if leaves:
                credential = None
            url = target
        raise CallFailed(f"{shown(url)}: redirected more than {MAX_REDIRECTS} times")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> BaseHTTPResponse:
        now = self._clock()
        left = deadline - now
        if left <= 0:
            raise TimedOut(f"{shown(url)}: no time left to ask")
        if now - self._used_at > IDLE_AT_MOST:
            self._pools.drop_idle()
        try:
            return self._pools.for_url(url).request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(self._connect_within, left), read=min(self._silent_at_most, left)),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, HTTPException, OSError, ValueError) as error:  # ValueError: a host that no DNS can name
            raise _failed(url, error) from error


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL. ValueError."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def shown(url: str) -> str:
    """A URL fit for logs and errors: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def trust(env: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to believe: the system's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR. ConfigError."""
    file, directory = env.get("SSL_CERT_FILE") or None, env.get("SSL_CERT_DIR") or None
    try:
        return ssl.create_default_context(cafile=file, capath=directory)
    except OSError as error:  # ssl.SSLError is one
        named = f"SSL_CERT_FILE: {file!r}" if file else f"SSL_CERT_DIR: {directory!r}"
        raise ConfigError(f"{named}: expected readable certificates in PEM form ({error.strerror})") from error


def user_agent() -> str:
    try:
        return f"dewy/{version('kvcache-dewy')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "dewy"


def _unpacked(pieces: Iterator[bytes], encoding: str, url: str) -> Iterator[bytes]:
    if encoding.lower() == "identity":
        yield from pieces
        return
    broken = CallFailed(f"{shown(url)}: an answer in a broken encoding")
    if encoding.lower() not in ("gzip", "x-gzip"):
        raise broken
    unpack, empty = zlib.decompressobj(wbits=31), True
    try:
        for piece in pieces:
            empty = False
            while piece and not unpack.eof:  # what follows the end is read, for the connection's sake, and forgotten
                yield unpack.decompress(piece, CHUNK)  # a little may become much: no more than a chunk at a time
                piece = unpack.unconsumed_tail
    except zlib.error as error:
        raise broken from error
    if not (empty or unpack.eof):
        raise broken


def _failed(url: str, error: Exception) -> CallFailed:
    late, why = reason(error)
    return (TimedOut if late else CallFailed)(f"{shown(url)}: {why}")
