"""What happened on this node, as frozen values: the loop tells it, metrics, history and `dewy status` listen.

Listeners are called in the thread of the tick (of a restart by signal: in another), so they must be quick and safe for
two threads. What they raise is logged.
Times in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Source: TypeAlias = Literal["upstream", "store", "local"]
"""Where an artifact came from: the registry, the shared store, or this node's own copy."""


@dataclass(frozen=True, slots=True)
class TickEnded:
    """One turn of the loop is over. `error` is one line, or empty."""

    duration: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Obtained:
    """An artifact lies on this node, checked."""

    key: str
    source: Source
    size: int
    duration: float


@dataclass(frozen=True, slots=True)
class Deployed:
    """A release is in place and, in server mode, serves. `previous` is the tag of the one before, or empty."""

    tag: str
    key: str
    previous: str
    release: str
    duration: float


@dataclass(frozen=True, slots=True)
class DeployFailed:
    """A deploy ended without a new release; what ran goes on."""

    tag: str
    key: str
    error: str
    duration: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A release was left for an earlier one. `to` is the tag that serves again, or empty if there was none."""

    tag: str
    to: str
    reason: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The application was started, or a new process of it took over."""

    tag: str
    reason: Literal["start", "deploy", "signal", "rollback", "operator"]
    """`operator`: of `dewy rollback` or `dewy pin`, noticed by a dewy that runs."""


Event: TypeAlias = TickEnded | Obtained | Deployed | DeployFailed | RolledBack | Restarted
Listener: TypeAlias = Callable[[Event], None]
