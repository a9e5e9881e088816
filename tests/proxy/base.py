"""What both proxies share: a loop in a thread of its own, the listener, outages, the plan, the journal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, NoReturn, Self, TypeVar

from tests.proxy.faults import Fault, Plan, Seen
from tests.proxy.journal import Entry, Journal
from tests.proxy.streams import HEAD_LIMIT, Severed, Stream
from tests.servers.ports import HOST, Port, reserve

T = TypeVar("T")


class Proxy(ABC):
    """Stands on a loopback port of its own in front of the server on `upstream`, another loopback port.

    Everything public may be called from any thread. An error of the proxy itself (a bug, not a fault of the plan)
    ends in `close()`, so that a test cannot pass on it.
    """

    def __init__(self, upstream: int, plan: Sequence[Fault] = (), seed: int = 0) -> None:
        self.upstream = upstream
        self._plan = Plan(plan, seed)
        self._journal = Journal()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._reserved: Port | None = None
        # The rest belongs to the loop.
        self._server: asyncio.Server | None = None
        self._clients: set[Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._down_by_hand = True
        self._outages = 0
        self._numbers = itertools.count(1)
        self._errors: list[BaseException] = []

    @abstractmethod
    async def _serve(self, client: Stream, number: int) -> None:
        """Carries one connection of a client to its end. May raise OSError where a peer goes away."""

    # -- plan and journal ------------------------------------------------------------------------------------------

    @property
    def plan(self) -> tuple[Fault, ...]:
        """The faults in force. Setting them starts their counts anew, with seed 0; see `follow`."""
        return self._plan.faults

    @plan.setter
    def plan(self, faults: Sequence[Fault]) -> None:
        self.follow(faults)

    def follow(self, faults: Sequence[Fault], seed: int = 0) -> None:
        """From the next request on, these faults, drawn from `seed`."""
        self._plan = Plan(faults, seed)

    @property
    def journal(self) -> list[Entry]:
        """What has happened so far, oldest first.

        A client may have its answer a moment before its entry is over: `wait_idle` first where that matters.
        """
        return self._journal.entries()

    def history(self) -> str:
        """The journal as text, one request a line."""
        return "\n".join(map(str, self.journal))

    def forget(self) -> None:
        """Empties the journal."""
        self._journal.clear()

    def wait_idle(self, timeout: float = 30.0) -> None:
        """Returns when nothing is under way any more: also what was delayed has landed. TimeoutError."""
        if not self._journal.wait_idle(timeout):
            raise TimeoutError(f"still under way after {timeout} s:\n{self.history()}")

    # -- outages ---------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Resets every connection and refuses new ones, until `up`."""
        self._do(self._hand(down=True))

    def up(self) -> None:
        """Takes connections again, on the same port."""
        self._do(self._hand(down=False))

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Down inside, up again afterwards."""
        self.down()
        try:
            yield
        finally:
            self.up()

    async def _hand(self, down: bool) -> None:
        self._down_by_hand = down
        await self._settle()

    async def _settle(self) -> None:
        """Listens, unless someone wants us down."""
        if not self._down_by_hand and not self._outages:
            if self._server is None:
                self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=HEAD_LIMIT)
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        for client in list(self._clients):
            client.sever(reset=True)

    async def _end_outage(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._outages -= 1
        await self._settle()

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        """Stays the same over outages."""
        if self._reserved is None:
            raise RuntimeError("the proxy has not been started")
        return self._reserved.number

    def start(self) -> Self:
        """Listens."""
        self._reserved = reserve()
        self._thread.start()
        self.up()
        return self

    def close(self) -> None:
        """Ends every connection. Raises what went wrong in the proxy itself, if anything did."""
        if self._reserved is None:
            return
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.release()
        self._reserved = None
        if self._errors:
            raise RuntimeError(f"the proxy failed; its history:\n{self.history()}") from self._errors[0]

    async def _shut(self) -> None:
        await self._hand(down=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside the loop -------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.spawn(self._connection(Stream(reader, writer), next(self._numbers)))

    async def _connection(self, client: Stream, number: int) -> None:
        self._clients.add(client)
        try:
            await self._serve(client, number)
        except Severed as end:
            client.sever(end.reset)
        except OSError:
            pass  # the client went away, as clients do
        finally:
            self._clients.discard(client)
            client.sever(reset=False)

    # -- for the parts of a proxy; all of it inside the loop -------------------------------------------------------

    def begin(self, connection: int, seen: Seen, condition: str = "", show: str | None = None) -> Entry:
        """Asks the plan and begins a journal entry, whose `action` says what is to happen."""
        action = self._plan.pick(seen)
        return self._journal.open(connection, seen.method, show or seen.target, condition, action)

    def begin_copy(self, original: Entry) -> Entry:
        """An entry for a copy of a request that is on its way by itself; no fault happens to it."""
        copy = self._journal.open(original.connection, original.method, original.target, original.condition, None)
        copy.note = f"copy of #{original.number}"
        return copy

    def finish(self, entry: Entry) -> None:
        """Nothing happens to this request any more."""
        self._journal.close(entry)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` beside everything else; `close` cancels it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def suffer_outage(self, seconds: float) -> NoReturn:
        """Carries out an `Outage`. Severed."""
        self._outages += 1
        await self._settle()
        self.spawn(self._end_outage(seconds))
        raise Severed(reset=True)

    async def keep_silent(self, client: Stream) -> NoReturn:
        """Says nothing until the client gives up. Severed."""
        await client.wait_gone()
        raise Severed(reset=False)
