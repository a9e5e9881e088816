"""What can go wrong between a client and a server, as data; and which request it happens to. No I/O here.

A plan is a list of faults. Every request is shown to all of them, and the first that takes it acts:

    Fault(DropReply(), method="PUT", path=r"/registry/")            every PUT below /registry/
    Fault(Answer(503), nth=range(1, 4))                             the first three requests
    Fault(DelayReply(2.0), probability=0.2)                         one in five, drawn from the proxy's seed
    Fault(ResetBody(after=100_000, where="request"), times=1)       once
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Where: TypeAlias = Literal["request", "reply"]


# -- what happens -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DropRequest:
    """The server never sees it. The client finds its connection closed; `silent`: or open, with no answer ever."""

    silent: bool = False


@dataclass(frozen=True, slots=True)
class DropReply:
    """The server carries it out, the client gets no answer: closed, reset, or (`silent`) open without a word.

    `after`: so many bytes of the answer still arrive (TCP only; over HTTP see CutBody and ResetBody).
    """

    silent: bool = False
    reset: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True)
class DelayRequest:
    """It reaches the server `seconds` later, even where the client has given up meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class DelayReply:
    """The server carries it out at once; its answer sets out `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The server gets it twice. The client gets the `answer` to the first or the second copy.

    With `after`, the second copy arrives so many seconds after the answer to the first.
    """

    answer: Literal["first", "second"] = "second"
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers in the server's place; `applied`: after the server has carried the request out."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    applied: bool = False


@dataclass(frozen=True, slots=True)
class SlowBody:
    """The body trickles: `block` bytes, then `pause` seconds, and so on."""

    pause: float
    block: int = 1024
    where: Where = "reply"


@dataclass(frozen=True, slots=True)
class CutBody:
    """The body ends after `after` bytes, and so does the connection, in an orderly way.

    `seamless`: the length that the head names is shortened to match, so that only a digest can tell.
    """

    after: int
    where: Where = "reply"
    seamless: bool = False


@dataclass(frozen=True, slots=True)
class ResetBody:
    """The connection is reset (RST) after `after` bytes of the body; both sides see it."""

    after: int
    where: Where = "reply"


@dataclass(frozen=True, slots=True)
class Corrupt:
    """The byte at offset `at` arrives with its bits turned over."""

    at: int = 0
    where: Where = "reply"


@dataclass(frozen=True, slots=True)
class Outage:
    """The request is dropped, every connection is reset, and new ones are refused for `seconds`."""

    seconds: float


Action: TypeAlias = (
    DropRequest
    | DropReply
    | DelayRequest
    | DelayReply
    | Duplicate
    | Answer
    | SlowBody
    | CutBody
    | ResetBody
    | Corrupt
    | Outage
)


# -- to which request -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What a fault is asked about: an HTTP request, or a block of bytes of a TCP client.

    For TCP, `method` is empty and `target` holds the block decoded as latin-1.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`action` happens to the requests that all of the conditions hold for.

    `method`: a regular expression for the whole method. `path`: one found anywhere in the target (path and query; for
    TCP in the bytes that the client sent). `when`: any other predicate. `nth`: which of the requests that these three
    select, counted from 1. `probability`: of each of these, drawn from the plan's seed. `times`: how often at most.
    """

    action: Action
    method: str = ".*"
    path: str = ""
    when: Callable[[Seen], bool] | None = None
    nth: int | Container[int] | None = None
    probability: float = 1.0
    times: int | None = None

    def selects(self, seen: Seen) -> bool:
        """Whether method, path and predicate fit."""
        return (
            re.fullmatch(self.method, seen.method) is not None
            and re.search(self.path, seen.target, re.DOTALL) is not None
            and (self.when is None or self.when(seen))
        )


class Plan:
    """Faults, and how far each has got. The same seed and the same requests give the same faults.

    Not thread-safe: it belongs to the proxy's loop.
    """

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self.faults = tuple(faults)
        self._seed = seed
        self._selected = [0] * len(self.faults)
        self._acted = [0] * len(self.faults)

    def pick(self, seen: Seen) -> Action | None:
        """What happens to this request; each call counts as a request."""
        picked = None
        for index, fault in enumerate(self.faults):
            if not fault.selects(seen):
                continue
            # Counted even where an earlier fault acts, so that what one fault does never shifts another's count.
            self._selected[index] += 1
            if picked is None and self._is_due(index, fault):
                self._acted[index] += 1
                picked = fault.action
        return picked

    def _is_due(self, index: int, fault: Fault) -> bool:
        count = self._selected[index]
        if fault.times is not None and self._acted[index] >= fault.times:
            return False
        if fault.nth is not None and not (count == fault.nth if isinstance(fault.nth, int) else count in fault.nth):
            return False
        # One draw per fault and count, from a generator of its own: no draw depends on how many there were before.
        return random.Random(f"{self._seed}/{index}/{count}").random() < fault.probability
