"""What the supervisor is told, and what it tells: frozen nouns, no behaviour. `dewy.lifecycle` decides over them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Launch:
    """What a worker is started from."""

    command: tuple[str, ...]
    """The program, searched for in the `PATH` of `env` where it has no slash, and its arguments."""
    cwd: str | None = None
    """Its working directory, entered anew at every start, so that a link in it is followed then; None: dewy's own."""
    env: Mapping[str, str] | None = field(default=None, repr=False)  # it may hold secrets
    """Its whole environment, before the variables of the sockets are added; None: dewy's own."""

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("a worker needs a command")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new worker that is asked whether it is up yet."""

    pid: int
    generation: int
    age: float
    """Seconds since it was started."""


Readiness: TypeAlias = Callable[[Candidate], "str | None"]
"""Is this worker up? None: yes. A text: not yet, because of that; it is asked again until the time-out, and the last
text explains the failure. An exception counts as a text. It runs in a thread of its own and may block.

Beware of a request to the handed-down port: old and new worker accept on the same socket, and the kernel takes
connections for it before either does. So a connection proves nothing, and an answer may be the old worker's unless it
names its generation or process.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How patient the supervisor is. All times in seconds."""

    settle: float = 1.0
    """A new worker counts as up when it has lived this long, unless `ready` says it better."""
    ready: Readiness | None = None
    ready_timeout: float = 30.0
    """A worker that `ready` has not found up by then has failed."""
    ready_interval: float = 0.1
    """Between two questions to `ready`."""
    overlap: float = 0.0
    """Time that a new worker that is up serves beside the old one before that is told to finish; if it dies by then,
    the old one serves on."""
    drain: float = 30.0
    """From SIGTERM to SIGKILL for a worker that served."""
    drain_failed: float = 5.0
    """The same for one that did not come up, or for the children that a crashed one left behind."""
    backoff_base: float = 0.5
    """Longest wait after the first crash; doubled by each further one."""
    backoff_cap: float = 60.0
    """Longest wait of all."""
    well_after: float = 60.0
    """A worker that has run this long runs well: its crashes are forgotten."""
    orphan_grace: float = 5.0
    """From SIGTERM to SIGKILL for workers of a dewy that was killed itself. Its successor needs their ports."""
    reap_orphans: bool = False
    """Also collect children that this program never started, as process 1 of a container has to. Linux."""

    def __post_init__(self) -> None:
        times = {name: value for name in self.__slots__ if isinstance(value := getattr(self, name), float | int)}
        for name, value in times.items():
            if value < 0:
                raise ValueError(f"{name}: {value}: at least 0")
        if self.backoff_base <= 0 or self.ready_interval <= 0:
            raise ValueError("backoff_base and ready_interval: more than 0, or a restart would be a tight loop")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What runs at one moment."""

    running: bool = False
    """Whether a worker that came up is alive."""
    generation: int = 0
    """Of the serving worker; 0: none serves. Counts every start that was tried, from 1."""
    pid: int | None = None
    """Of the serving worker, which leads the process group and session of that number."""
    since: float | None = None
    """When the serving worker was started, in seconds since the Unix epoch."""
    crashes: int = 0
    """In a row; forgotten when a worker runs well, or a restart succeeds."""
    retry_in: float | None = None
    """Seconds until a crashed worker is started again; None: nothing waits for that."""
    starting: int | None = None
    """Process id of the worker that is on its way up."""
    draining: tuple[int, ...] = ()
    """Process ids of workers that have been told to finish."""
    stopping: bool = False


# ---- What observers are told ----


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker executes its command; whether it comes up is seen later."""

    pid: int
    generation: int


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """It is up, `after` seconds, and is from now on the one that serves."""

    pid: int
    generation: int
    after: float


@dataclass(frozen=True, slots=True)
class WorkerRefused:
    """It did not come up. The one that served before still does, if there was one.

    `pid` is None where not even the command could be executed. `retry_in`: seconds until the next try, or None where
    none is due.
    """

    pid: int | None
    generation: int
    reason: str
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerCrashed:
    """The serving worker ended unasked, `crashes` times in a row by now. `retry_in` as in WorkerRefused."""

    pid: int
    generation: int
    how: str
    ran_for: float
    crashes: int
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerRecovered:
    """After `crashes` in a row a worker now runs well; they are forgotten."""

    pid: int
    generation: int
    crashes: int


@dataclass(frozen=True, slots=True)
class WorkerFinishing:
    """It served, and was told to finish: its successor is up, or dewy stops. It has `drain` seconds."""

    pid: int
    generation: int
    drain: float


@dataclass(frozen=True, slots=True)
class WorkerKilled:
    """It, or a child of it, was still there `after` seconds after it had been told to finish: SIGKILL."""

    pid: int
    generation: int
    after: float


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker that was told to finish is gone, with all children in its group, after so many seconds."""

    pid: int
    generation: int
    how: str
    after: float


Event: TypeAlias = (
    WorkerStarted
    | WorkerUp
    | WorkerRefused
    | WorkerCrashed
    | WorkerRecovered
    | WorkerFinishing
    | WorkerKilled
    | WorkerGone
)
Observer: TypeAlias = Callable[[Event], None]

_UNNAMED: Final = "signal {}"


def how_it_ended(status: int) -> str:
    """An exit status, negative for a signal, in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # real-time signals have no name
        name = _UNNAMED.format(-status)
    return f"killed by {name}"
