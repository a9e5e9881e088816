"""A relay before a store's server that loses requests and replies, so that the promises are examined under faults.

It knows nothing of what it hands on: a block of bytes from the client stands for a request. A *request* is lost when
the connection is closed before the block was handed on; a *reply* when it is closed as soon as the server's answer
comes. So whatever was lost has either been carried out or never will be: no request arrives late, which would set an
unconditional write over its successor, and no store could help that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from kvcache.errors import InvalidURL
from kvcache.url import StoreURL, parse_store_url

HOST: Final = "127.0.0.1"
BLOCK: Final = 64 * 1024
SHARE: Final = 0.03
"""Of the blocks that a client sends: so many are lost, or their replies are."""

Lost = Literal["request", "reply", ""]


class Relay:
    """Listens on a loopback port of its own and hands on to `host`:`port`. A context manager.

    Nothing is lost until `storm` is called: what opens a store may be no part of the examination.
    """

    def __init__(self, host: str, port: int, seed: int, share: float = SHARE) -> None:
        self._far = (host, port)
        self._draw = random.Random(f"relay/{seed}")
        self._share = share
        self._storm = threading.Event()
        self.lost: Counter[str] = Counter()
        """How many requests, and how many replies. Exact once the relay is closed."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvcache-relay", daemon=True)

    def storm(self) -> None:
        """From now on requests and replies are lost."""
        self._storm.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- on the loop ------------------------------------------------------------------------------------------------

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accepted, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side closes, or the dice say so."""
        far_reader, far_writer = await asyncio.open_connection(*self._far)
        doomed = False  # the next reply is lost

        async def requests() -> None:
            nonlocal doomed
            while block := await reader.read(BLOCK):
                lost = self._fate()
                if lost == "request" and not doomed:
                    self.lost["requests"] += 1
                    return
                doomed = doomed or lost == "reply"
                far_writer.write(block)
                await far_writer.drain()

        async def replies() -> None:
            while block := await far_reader.read(BLOCK):
                if doomed:
                    self.lost["replies"] += 1
                    return
                writer.write(block)
                await writer.drain()

        both = [asyncio.ensure_future(requests()), asyncio.ensure_future(replies())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            far_writer.close()

    def _fate(self) -> Lost:
        if not self._storm.is_set():
            return ""
        draw = self._draw.random()
        return "" if draw >= self._share else "request" if draw < self._share / 2 else "reply"


def relayed(url: str, seed: int) -> Relay:
    """A relay, not yet open, to the server of a store's URL. InvalidURL where it can stand before none."""
    parsed = parse_store_url(url)
    host, port = _server(parsed)
    return Relay(host, port, seed)


def through(url: str, port: int) -> str:
    """The store's URL by way of the relay on `port`."""
    parts = urlsplit(url)
    if parse_store_url(url).scheme in _AUTHORITY:
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{HOST}:{port}"))
    query = [part for part in parts.query.split("&") if part and not part.startswith("endpoint=")]
    query.append(f"endpoint={quote(f'http://{HOST}:{port}', safe=':/')}")
    return urlunsplit(parts._replace(query="&".join(query)))


_AUTHORITY: Final = {"redis": 6379, "consul": 8500}
"""Schemes that name their server in the authority, and its usual port."""
_FORM: Final = "a store on one server without TLS: redis://, consul://, or s3:// and gs:// with endpoint=http://..."


def _server(url: StoreURL) -> tuple[str, int]:
    if url.scheme in _AUTHORITY:
        if url.params.get("cluster") or url.params.get("scheme") == "https":
            raise InvalidURL(f"{url.redacted}: --through-faults: expected {_FORM}")
        return url.host or HOST, url.port or _AUTHORITY[url.scheme]
    endpoint = urlsplit(url.params.get("endpoint", ""))
    if url.scheme not in ("s3", "gs") or endpoint.scheme != "http" or not endpoint.hostname:
        raise InvalidURL(f"{url.redacted}: --through-faults: expected {_FORM}")
    return endpoint.hostname, endpoint.port or 80
