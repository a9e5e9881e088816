"""A message, and a way to send one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, Protocol

TIMEOUT = 10.0
"""Seconds for one silence of a service that messages are sent through."""


class Weight(enum.Enum):
    """How much a message matters; `quiet` keeps NEWS back."""

    NEWS = "news"
    IMPORTANT = "important"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class HookRun:
    """How an operator's hook went. `exit_code` is None where it was not left to end; `duration` in seconds."""

    when: Literal["before", "after"]
    command: str
    exit_code: int | None
    stdout: str
    stderr: str
    duration: float
    succeeded: bool

    @property
    def title(self) -> str:
        """As Dewy v2 names it."""
        return f"{self.when.capitalize()} Deploy Hook"


@dataclass(frozen=True, slots=True)
class Message:
    """What people are told."""

    text: str
    weight: Weight = Weight.NEWS
    event: str = ""
    """What it is about, in the same words on every node that has the same to tell."""
    not_before: float = 0.0
    """Seconds since the Unix epoch: whoever told of the event earlier told of another occurrence of it."""
    hook: HookRun | None = None


class NotSent(Exception):
    """A message did not go out; one line, without secrets.

    `again`: another try can help, after `pause` seconds where the service says so.
    """

    def __init__(self, why: str, *, again: bool = True, pause: float | None = None) -> None:
        super().__init__(why)
        self.again = again
        self.pause = pause


class Channel(Protocol):
    """A way to reach people. Used by one thread at a time."""

    name: str
    """For logs, and the same on all nodes that reach the same people; no secret in it."""
    failure: str
    """What the log says where a message could not be sent."""
    quiet: bool
    """Whether it is spared ordinary news."""

    def send(self, message: Message) -> None:
        """Sends it, or raises NotSent. Bounded in time."""

    def close(self) -> None:
        """Gives back connections."""
