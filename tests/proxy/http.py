"""The HTTP/1.1 proxy: relays requests and answers as streams, and does to them what the plan says."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from tests.proxy import wire
from tests.proxy.base import Proxy
from tests.proxy.faults import Answer, DelayReply, DelayRequest, DropReply, DropRequest, Duplicate, Outage, Seen
from tests.proxy.journal import Entry
from tests.proxy.streams import BLOCK, Severed, Stream
from tests.proxy.tamper import end_of, tamper
from tests.servers.ports import HOST

SPOOL = 1024 * 1024
"""Bytes of a request that are kept in memory where it has to be kept at all; the rest goes to a file."""
CONDITIONS = ("if-match", "if-none-match", "x-goog-if-generation-match")


class HttpProxy(Proxy):
    """Every request goes to the server on a connection of its own, so that a connection which the server closes while
    idle never looks like a fault. The `Host` header stays as the client sent it: signatures hold.
    """

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def _serve(self, client: Stream, number: int) -> None:
        while (head := await wire.read_head(client)) is not None:
            method, target, version = head.first
            headers = {key.lower(): value for key, value in head.headers}
            conditions = " ".join(f"{name}={headers[name]}" for name in CONDITIONS if name in headers)
            entry = self.begin(number, Seen(method, target, headers), conditions)
            try:
                keep = await _Exchange(self, client, head, entry).run()
            except Severed as end:
                entry.note = entry.note or str(end)
                raise
            except OSError as error:
                # The server refused or broke off, or the client did: either way the client's connection is over.
                entry.note = entry.note or f"{type(error).__name__}: {error}"
                raise Severed(reset=True) from error
            finally:
                self.finish(entry)
            if not keep or version == "HTTP/1.0" or head.has_token("connection", "close"):
                await client.finish()
                return


class _Exchange:
    """One request and its answer."""

    def __init__(self, proxy: HttpProxy, client: Stream, head: wire.Head, entry: Entry) -> None:
        self._proxy = proxy
        self._client = client
        self._head = head
        self._entry = entry

    async def run(self) -> bool:
        """Returns whether the client's connection can be used again. Severed, OSError."""
        first_read = self._say_continue if self._head.has_token("expect", "100-continue") else None
        body = wire.body_of(self._client, self._head, first_read=first_read)
        match self._entry.action:
            case Outage(seconds):
                await self._proxy.suffer_outage(seconds)
            case DropRequest(silent):
                self._entry.sent = await wire.drain(body)
                await self._hang_up(silent, reset=False)
            case Answer(applied=False) as answer:
                self._entry.sent = await wire.drain(body)
                await self._tell(answer)
                return True
            case DelayRequest(seconds):
                copies = await _Copies.of(body)
                await asyncio.sleep(seconds)
                return await self._forward(copies.body())
            case Duplicate("second", after):
                copies = await _Copies.of(body)
                await self._forward_unheard(copies.body(), self._entry)
                await asyncio.sleep(after)
                return await self._forward(copies.body())
            case Duplicate("first", after):
                copies = await _Copies.of(body)
                try:
                    return await self._forward(copies.body())
                finally:
                    # Beside everything else: what the client does next must be able to overtake it.
                    self._proxy.spawn(self._arrive_late(copies, self._proxy.begin_copy(self._entry), after))
        return await self._forward(body)

    async def _arrive_late(self, copies: _Copies, entry: Entry, after: float) -> None:
        try:
            await asyncio.sleep(after)
            await self._forward_unheard(copies.body(), entry)
        except OSError as error:
            entry.note += f"; {type(error).__name__}: {error}"
        finally:
            self._proxy.finish(entry)

    async def _forward_unheard(self, body: wire.Body | None, entry: Entry) -> None:
        """Has the server carry the request out, and throws its answer away. OSError."""
        async with await Stream.connect(HOST, self._proxy.upstream) as server:
            reply, _ = await self._send(server, body, entry)
            await wire.drain(self._body_of(server, reply))

    async def _forward(self, body: wire.Body | None) -> bool:
        action = self._entry.action
        async with await Stream.connect(HOST, self._proxy.upstream) as server:
            try:
                reply, whole = await self._send(server, tamper(body, action, "request"), self._entry)
                if body is None and (end := end_of(action, "request")):
                    raise end
            except Severed as end:
                server.sever(end.reset)
                raise
            content = self._body_of(server, reply)
            match action:
                case DropReply(silent, reset):
                    await wire.drain(content)
                    await self._hang_up(silent, reset)
                case Answer() as answer:
                    await wire.drain(content)
                    await self._tell(answer, close=not whole)
                    return whole
                case DelayReply(seconds):
                    await asyncio.sleep(seconds)
            await self._relay(reply, content, close=not whole)
            return whole

    async def _send(self, server: Stream, body: wire.Body | None, entry: Entry) -> tuple[wire.Head, bool]:
        """Sends the request; returns the head of the answer, and whether the request was sent to its end before.

        A server may answer (and hang up) without reading a body that it refuses. Severed, OSError.
        """
        headers = _framed(self._head, body)
        await server.send(wire.encode(self._head.first, [*headers, ("Connection", "close")]))
        pump = asyncio.ensure_future(_pump(server, body, entry))
        answer = asyncio.ensure_future(_read_reply(server))
        try:
            await asyncio.wait({pump, answer}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done() and isinstance(pump.exception(), Severed):
                await pump
            reply = await answer
            entry.upstream.append(int(reply.first[1]))
            # An answer to the last byte may overtake the task that sent that byte.
            await asyncio.wait({pump}, timeout=1)
            return reply, pump.done() and pump.exception() is None
        finally:
            await _cancel(pump, answer)

    def _body_of(self, server: Stream, reply: wire.Head) -> wire.Body | None:
        bodiless = self._head.first[0] == "HEAD" or reply.first[1] in ("204", "304")
        return wire.body_of(server, reply, empty=bodiless, until_end=True)

    async def _relay(self, reply: wire.Head, content: wire.Body | None, close: bool) -> None:
        tampered = tamper(content, self._entry.action, "reply")
        headers = _framed(reply, tampered) + ([("Connection", "close")] if close else [])
        self._entry.answered = int(reply.first[1])
        await self._client.send(wire.encode(("HTTP/1.1", *reply.first[1:]), headers))
        if tampered is not None:
            await wire.send_body(self._client, tampered)
        elif end := end_of(self._entry.action, "reply"):
            raise end

    async def _tell(self, answer: Answer, close: bool = False) -> None:
        headers = [*answer.headers.items(), *([("Connection", "close")] if close else [])]
        bodiless = answer.status in (204, 304)
        if not bodiless:
            headers.append(("Content-Length", str(len(answer.body))))
        body = b"" if bodiless or self._head.first[0] == "HEAD" else answer.body
        self._entry.answered = answer.status
        await self._client.send(wire.encode(("HTTP/1.1", str(answer.status), "Fault"), headers) + body)

    async def _say_continue(self) -> None:
        await self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _hang_up(self, silent: bool, reset: bool) -> None:
        if silent:
            await self._proxy.keep_silent(self._client)
        raise Severed(reset)


class _Copies:
    """A request's body that can be sent any number of times."""

    def __init__(self, body: wire.Body | None) -> None:
        self._body = body
        self._file = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115 - lives as long as this object

    @classmethod
    async def of(cls, body: wire.Body | None) -> _Copies:
        """Reads `body` to its end."""
        copies = cls(body)
        if body is not None:
            async for block in body.blocks:
                copies._file.write(block)
        return copies

    def body(self) -> wire.Body | None:
        """One more to send; one after the other."""
        return self._body and wire.Body(self._blocks(), self._body.length, self._body.trailers)

    async def _blocks(self) -> AsyncIterator[bytes]:
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            yield block


async def _pump(server: Stream, body: wire.Body | None, entry: Entry) -> None:
    """Sends the body. Severed: the plan, or the client, ended it; OSError: the server did."""
    if body is not None:
        body.blocks = _counted(body.blocks, entry)
        await wire.send_body(server, body)


async def _counted(blocks: AsyncIterator[bytes], entry: Entry) -> AsyncIterator[bytes]:
    entry.sent = 0
    try:
        async for block in blocks:
            entry.sent += len(block)
            yield block
    except OSError as error:
        entry.note = f"the client went away: {error}"
        raise Severed(reset=True) from error


async def _read_reply(server: Stream) -> wire.Head:
    while (reply := await wire.read_head(server)) is not None:
        if not reply.first[1].startswith("1"):  # 100 Continue: we have told the client ourselves
            return reply
    raise wire.Ended("the server hung up without an answer")


def _framed(head: wire.Head, body: wire.Body | None) -> wire.Headers:
    """The headers of `head` for a message whose body is `body`."""
    headers = head.end_to_end() + wire.framing(body)
    if body is None or body.length is None:
        return headers
    return [(key, str(body.length) if key.lower() == "content-length" else value) for key, value in headers]


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
