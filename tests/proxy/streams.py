"""One TCP connection in asyncio: nothing buffered on our side, and the two ways of ending it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

BLOCK = 64 * 1024
HEAD_LIMIT = 256 * 1024
"""Bytes that the head of a message may have."""

LINGER = 5.0
"""Seconds that a peer has to finish sending once it has its answer."""


class Severed(Exception):
    """The plan says that the connection ends here: `reset` by RST, else in an orderly way."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Stream:
    """A connection. Async context manager: leaving it closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        # drain() then returns only when the kernel has everything: memory stays flat, and what was sent before
        # a reset really left.
        writer.transport.set_write_buffer_limits(high=0)

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        """OSError."""
        return cls(*await asyncio.open_connection(host, port, limit=HEAD_LIMIT))

    async def send(self, data: bytes) -> None:
        """OSError once the peer is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_gone(self) -> None:
        """Returns when the peer has closed; what it still sends is thrown away."""
        with contextlib.suppress(OSError):
            while await self.reader.read(BLOCK):
                pass

    async def finish(self) -> None:
        """Ends the connection so that what was sent arrives, even where the peer is still sending to us.

        Closing at once would reset it then, and the reset may overtake the answer.
        """
        with contextlib.suppress(OSError, TimeoutError):
            self._writer.write_eof()
            await asyncio.wait_for(self.wait_gone(), LINGER)

    def sever(self, reset: bool) -> None:
        """Ends the connection at once. Twice is not an error."""
        transport = self._writer.transport
        if reset and not transport.is_closing():
            raw = transport.get_extra_info("socket")
            # Lingering for zero seconds makes the kernel send RST in place of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sever(reset=False)
