"""The nouns of `dewy.lifecycle`: what happened, what to do about it, and what is. Frozen, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from dewy.supervision import Event, Launch

# ---- What happened ----


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants a new worker; from `launch`, or from what the last good one was started from."""

    request: int
    launch: Launch | None = None


@dataclass(frozen=True, slots=True)
class StopAsked:
    """All is to end; workers get `drain` seconds, or what the settings say."""

    drain: float | None = None


@dataclass(frozen=True, slots=True)
class Spawned:
    """The candidate executes its command. `started_at` in seconds since the Unix epoch, for people."""

    pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The candidate's command could not be executed; `host`: for want of something that is no part of it."""

    reason: str
    host: bool = False


@dataclass(frozen=True, slots=True)
class Probed:
    """The readiness check has looked at a candidate: it is up, or what is missing."""

    pid: int
    missing: str | None


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's first process has ended; `children`: others of its group live on."""

    pid: int
    status: int
    children: bool


@dataclass(frozen=True, slots=True)
class GroupGone:
    """The last process of a worker's group has ended."""

    pid: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Happening: TypeAlias = Asked | StopAsked | Spawned | SpawnFailed | Probed | Exited | GroupGone | Tick


# ---- What to do about it ----


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a candidate and report `Spawned` or `SpawnFailed` before anything else."""

    launch: Launch
    generation: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Ask all processes of the worker's group to finish (SIGTERM)."""

    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill all processes of the worker's group (SIGKILL)."""

    pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell who asked: a worker came up, or why not. `host` as in `SpawnFailed`."""

    request: int
    failure: str | None
    host: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the observer."""

    event: Event


Effect: TypeAlias = Spawn | Finish | Kill | Answer | Tell


# ---- What is ----


class Phase(Enum):
    """How far the whole has come."""

    IDLE = "idle"
    """No worker has come up yet, so none is to be kept up."""
    RUNNING = "running"
    """One has come up: from now on there is to be one, always."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    """Nothing lives any more, and nothing will be started."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process group. Times are monotonic, in seconds."""

    pid: int
    generation: int
    launch: Launch
    since: float
    started_at: float
    """In seconds since the Unix epoch, for people."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker that was told to finish, and has not, or not with all of its children."""

    worker: Worker
    told_at: float
    kill_at: float
    """When it is killed; once it was, when nobody waits for it any longer."""
    status: int | None = None
    """How its first process ended; None: it lives."""
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Coming:
    """A worker on its way up. `worker` is None only between `Spawn` and its report."""

    generation: int
    launch: Launch
    requests: tuple[Asked, ...]
    """Who asked for it; nobody, where it replaces a crashed one."""
    worker: Worker | None = None
    due: float | None = None
    """When it is up by having lived so long, or, with a readiness check, when it has failed."""
    missing: str = ""
    ready: bool = False
    """Found up by the readiness check, and now serving beside the old one until `due`."""


@dataclass(frozen=True, slots=True)
class State:
    """All that decisions rest on."""

    launch: Launch
    """What the last worker that came up was started from; before that, what the first will be."""
    phase: Phase = Phase.IDLE
    serving: Worker | None = None
    coming: Coming | None = None
    leaving: tuple[Leaving, ...] = ()
    waiting: tuple[Asked, ...] = ()
    crashes: int = 0
    retry_at: float | None = None
    generation: int = 0
    """Of the latest start that was tried."""
