"""What passes between a caller, its load function and the cache."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
State: TypeAlias = Literal["fresh", "stale", "stale-on-error"]


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """What a load may return in place of a bare value.

    `validator`: JSON that lets the next load, on whatever node, ask the upstream "has it changed?" (an ETag, say).
    `extra`: JSON that travels beside the value. A foreign writer (Dewy v2) that rewrites the record drops both.
    """

    value: T
    validator: Any = None
    extra: Any = None


class NotModified(enum.Enum):
    """The type of `NOT_MODIFIED`, for annotations."""

    NOT_MODIFIED = "not modified"


NOT_MODIFIED: Final = NotModified.NOT_MODIFIED
"""Returned by a load: the previous answer still holds, and is fresh again."""


@dataclass(frozen=True, slots=True)
class LoadContext:
    """Handed to the load.

    `previous`, `validator` and `extra` are those of the last answer, whichever node fetched it; None without one.
    `deadline` is on the clock of `time.monotonic()`: whatever comes later is thrown away.
    """

    previous: Any
    validator: Any
    extra: Any
    deadline: float


Load: TypeAlias = Callable[[LoadContext], Loaded[Any] | NotModified | Any]
AsyncLoad: TypeAlias = Callable[[LoadContext], Awaitable[Loaded[Any] | NotModified | Any] | Any]


class Result(NamedTuple):
    """An answer. `value` is shared by all callers in the process: treat it as read-only.

    `age`: seconds since the upstream gave it, on the store's clock. `state`: `fresh` is younger than the ttl,
    `stale` older and being refreshed (or due to be), `stale-on-error` older because the upstream or the store
    failed. `refreshed`: this call fetched it from the upstream. `extra`: see `Loaded`.
    """

    value: Any
    age: float
    state: State
    refreshed: bool = False
    extra: Any = None
