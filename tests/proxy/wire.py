"""HTTP/1.1 messages on a `Stream`: heads as they came, bodies as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.proxy.streams import BLOCK, Stream

Headers = list[tuple[str, str]]
HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "expect", "transfer-encoding", "te", "upgrade"})


class Malformed(Exception):
    """Not HTTP/1.1."""


class Ended(ConnectionError):
    """The peer went away in the middle of a message."""


@dataclass
class Head:
    """A start line and headers. `first`: method, target, version; or version, status, reason."""

    first: tuple[str, str, str]
    headers: Headers

    def get(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def has_token(self, name: str, token: str) -> bool:
        """Whether a comma-separated header names `token`, in any case."""
        return any(token == part.strip().lower() for part in (self.get(name) or "").split(","))

    def end_to_end(self) -> Headers:
        """The headers that are meant for the other end, not for this connection."""
        return [(key, value) for key, value in self.headers if key.lower() not in HOP_BY_HOP]


@dataclass
class Body:
    """Bytes to come. `length` where the head names it; None where it does not: chunked, or until the end."""

    blocks: AsyncIterator[bytes]
    length: int | None
    trailers: Headers = field(default_factory=list)
    """Filled when the blocks of a chunked body have all been read."""


def encode(first: tuple[str, str, str], headers: Headers) -> bytes:
    """The bytes of a head."""
    lines = [" ".join(first).rstrip(), *(f"{key}: {value}" for key, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def read_head(stream: Stream) -> Head | None:
    """The next head, or None where the connection ends before its first byte. Ended, Malformed."""
    try:
        raw = await stream.reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial.strip():
            return None
        raise Ended("inside a head") from error
    except asyncio.LimitOverrunError as error:
        raise Malformed("a head that is too long") from error
    first, *lines = raw.decode("latin-1").strip("\r\n").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2:
        raise Malformed(f"not HTTP: {first[:80]!r}")
    headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    return Head((parts[0], parts[1], parts[2] if len(parts) > 2 else ""), headers)


def body_of(
    stream: Stream,
    head: Head,
    *,
    empty: bool = False,
    until_end: bool = False,
    first_read: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Body | None:
    """The body that belongs to `head`, or None where it has none.

    `empty`: it has none whatever it says (an answer to HEAD, 204, 304). `until_end`: without a length it lasts to the
    end of the connection (an answer). `first_read` runs before the first byte is asked for (100 Continue).
    """
    length = head.get("content-length")
    if empty:
        return None
    if head.has_token("transfer-encoding", "chunked"):
        trailers: Headers = []
        return Body(_prefaced(_chunks(stream, trailers), first_read), None, trailers)
    if length is not None:
        return Body(_prefaced(_counted(stream, int(length)), first_read), int(length)) if int(length) else None
    return Body(_prefaced(_rest(stream), first_read), None) if until_end else None


async def _prefaced(
    blocks: AsyncIterator[bytes], first_read: Callable[[], Coroutine[Any, Any, None]] | None
) -> AsyncIterator[bytes]:
    if first_read is not None:
        await first_read()
    async for block in blocks:
        yield block


async def _counted(stream: Stream, length: int) -> AsyncIterator[bytes]:
    left = length
    while left:
        block = await stream.reader.read(min(left, BLOCK))
        if not block:
            raise Ended(f"{left} bytes before the end of a body")
        left -= len(block)
        yield block


async def _rest(stream: Stream) -> AsyncIterator[bytes]:
    while block := await stream.reader.read(BLOCK):
        yield block


async def _chunks(stream: Stream, trailers: Headers) -> AsyncIterator[bytes]:
    while size := int((await _line(stream)).split(";")[0], 16):
        async for block in _counted(stream, size):
            yield block
        if await _line(stream):
            raise Malformed("a chunk that is longer than it says")
    while line := await _line(stream):
        key, _, value = line.partition(":")
        trailers.append((key, value.strip()))


async def _line(stream: Stream) -> str:
    try:
        return (await stream.reader.readuntil(b"\r\n"))[:-2].decode("latin-1")
    except asyncio.IncompleteReadError as error:
        raise Ended("inside a chunked body") from error


def framing(body: Body | None) -> Headers:
    """The header that says how long `body` is, where the head does not say it already."""
    return [("Transfer-Encoding", "chunked")] if body is not None and body.length is None else []


async def send_body(stream: Stream, body: Body) -> None:
    """Sends `body` as `framing` announced it."""
    async for block in body.blocks:
        if block:
            await stream.send(block if body.length is not None else b"%x\r\n%b\r\n" % (len(block), block))
    if body.length is None:
        await stream.send(b"0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in body.trailers).encode("latin-1") + b"\r\n")


async def drain(body: Body | None) -> int:
    """Reads `body` to its end and throws it away; returns how many bytes it had."""
    size = 0
    if body is not None:
        async for block in body.blocks:
            size += len(block)
    return size
