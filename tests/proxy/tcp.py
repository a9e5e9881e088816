"""The raw TCP proxy, for Redis: blocks of bytes, as the client sends them, stand for requests."""

from __future__ import annotations

import asyncio

from tests.proxy.base import Proxy
from tests.proxy.faults import DelayReply, DelayRequest, DropReply, DropRequest, Outage, Seen
from tests.proxy.journal import Entry
from tests.proxy.streams import BLOCK, Severed, Stream
from tests.servers.ports import HOST

SHOWN = 60
"""Characters of a block that the journal keeps."""


class TcpProxy(Proxy):
    """Understands DropRequest, DropReply, DelayRequest, DelayReply and Outage; others are refused when they are due.

    A small command arrives in one block, so `path=r"EVALSHA"` selects those that run a script; a bare `SET` would also
    select the CLIENT SETINFO with which redis-py introduces itself, `\\r\\nSET\\r` would not. DropReply waits for the
    server's answer, so the command has been carried out.
    """

    async def _serve(self, client: Stream, number: int) -> None:
        async with await Stream.connect(HOST, self.upstream) as server:
            await _Connection(self, client, server, number).run()


class _Connection:
    """One client and its connection to the server."""

    def __init__(self, proxy: TcpProxy, client: Stream, server: Stream, number: int) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._number = number
        # Both directions run in one loop. Entries that are not over; and those of them that the server has.
        self._open: list[Entry] = []
        self._asked: list[Entry] = []
        self._silent = False

    async def run(self) -> None:
        """Severed, OSError."""
        directions = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        except Severed as end:
            for entry in self._open:
                entry.note = entry.note or str(end)
            raise
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for entry in self._open:
                self._proxy.finish(entry)

    async def _requests(self) -> None:
        while block := await self._client.reader.read(BLOCK):
            if self._silent:
                continue
            text = block.decode("latin-1")
            entry = self._proxy.begin(self._number, Seen("", text), show=repr(text[:SHOWN])[1:-1])
            entry.sent = len(block)
            self._open.append(entry)
            match entry.action:
                case Outage(seconds):
                    await self._proxy.suffer_outage(seconds)
                case DropRequest(silent):
                    if silent:
                        await self._proxy.keep_silent(self._client)
                    raise Severed(reset=False)
                case DelayRequest(seconds):
                    await asyncio.sleep(seconds)
                case None | DropReply() | DelayReply():
                    pass
                case other:
                    raise ValueError(f"not for TCP: {other}")
            self._asked.append(entry)
            await self._server.send(block)

    async def _replies(self) -> None:
        while block := await self._server.reader.read(BLOCK):
            # A large command comes in many blocks, and is answered after the last: this answers all there are.
            answered, self._asked = self._asked, []
            match next((entry.action for entry in answered if entry.action), None):
                case DropReply(silent, reset, after):
                    await self._client.send(block[:after])
                    if not silent:
                        raise Severed(reset)
                    self._silent = True
                    await asyncio.Future()  # until `_requests` sees the client go
                case DelayReply(seconds):
                    await asyncio.sleep(seconds)
            await self._client.send(block)
            for entry in answered:
                self._open.remove(entry)
                self._proxy.finish(entry)
