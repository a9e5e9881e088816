"""What is news: everything the first time, and of failures in a row as many as it takes to be noticed.

Failures are told twice in full, a third time with the word that no more follow, and then only logged. When it works
again people hear of that too. Nothing that happens meanwhile is lost, but what is tried over and over is told once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from dewy.log import Log
from dewy.notify.message import HookRun, Message, Weight

TOLD_FAILURES: Final = 3
"""Failures in a row that people are told of."""
MOST_COUNTED: Final = 1000
ORDINARY: Final = frozenset({"Dewy start notification", "Download notification", "Shutdown notification"})
"""Kinds of news that `quiet` keeps back; any other matters."""
RECOVERY: Final = "Recovery notification"

_VARYING: Final = re.compile(r"0x[0-9a-f]+|\b\d+(\.\d+)? ?(ns|us|µs|ms|s|m|h)\b|\bpid \d+", re.IGNORECASE)
Deliver: TypeAlias = Callable[[Message], None]


@dataclass(slots=True)
class Topics:
    """Remembers what was last told about each topic, and since when: so the same words later are news again.

    Pure: the caller passes the time in.
    """

    _states: dict[str, tuple[str, float, float]] = field(default_factory=dict)

    def enter(self, topic: str, state: str, now: float) -> float:
        """The topic is in this state as of `now`. Returns when the state before began: whoever told of this state
        earlier than that spoke of another occurrence of it."""
        last, since, before = self._states.get(topic, ("", 0.0, 0.0))
        if last != state:
            before, since = since, now
        self._states[topic] = (state, since, before)
        return before


class Notices:
    """Tells the log, and people through `deliver`, and counts failures in a row. For any number of threads.

    `now` gives seconds since the Unix epoch. `deliver` must not block. `hide` takes secrets out of a text that leaves
    this host.
    """

    def __init__(
        self,
        log: Log,
        deliver: Deliver | None = None,
        *,
        hide: Callable[[str], str] = lambda text: text,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._deliver = deliver
        self._hide = hide
        self._now = now
        self._lock = threading.Lock()  # the tick fails while a signal is told: guards what follows
        self._failures = 0
        self._repeated: set[str] = set()
        """Ordinary news told since it began to fail."""
        self._topics = Topics()

    def tell(self, kind: str, message: str) -> None:
        """One piece of news: `kind` names it in the log, `message` is for people."""
        self._log.info(kind, message=message)
        weight = Weight.NEWS if kind in ORDINARY else Weight.IMPORTANT
        with self._lock:
            if not self._is_new(message, weight):
                return
            not_before = self._topics.enter(kind, message, self._now())
        self._send(Message(message, weight, f"{kind}|{message}", not_before))

    def hook(self, run: HookRun) -> None:
        """A hook of the operator's has run."""
        weight = Weight.NEWS if run.succeeded else Weight.FAILURE
        outcome = "succeeded" if run.succeeded else "failed"
        text = f"{run.title} {outcome}"
        with self._lock:
            if not self._is_new(f"{text}|{run.command}", weight):
                return
            not_before = self._topics.enter(run.title, outcome, self._now())
        self._send(Message(text, weight, f"{text}|{run.command}|{run.exit_code}", not_before, run))

    def failed(self, error: str) -> None:
        """A tick failed."""
        with self._lock:
            count = self._failures = min(self._failures + 1, MOST_COUNTED)
            if count == 1:
                self._repeated.clear()
            not_before = self._topics.enter(RECOVERY, "failing", self._now())
        self._log.error("Error count", count=count, error=error)
        if count > TOLD_FAILURES:
            return
        text = f"Error occurred (count: {count}): {error}"
        if count == TOLD_FAILURES:
            text = f"No more error notifications will be sent until it works again. {text}"
        # Nodes that fail alike differ in moments and numbers of processes.
        event = f"failure|{count}|{_VARYING.sub('#', error)}"
        self._send(Message(text, Weight.FAILURE, event, not_before))

    def worked(self) -> None:
        """A tick did not fail."""
        with self._lock:
            count, self._failures = self._failures, 0
            not_before = self._topics.enter(RECOVERY, "works", self._now())
        if not count:
            return
        self._log.info("Error count reset", **{"from": count, "to": 0})
        times = "1 error" if count == 1 else f"{count} errors"
        self._send(Message(f"Works again after {times}", Weight.IMPORTANT, "recovery", not_before))

    def _is_new(self, what: str, weight: Weight) -> bool:
        """Whether to tell it: while it fails, each try would bring the same ordinary news. Caller holds the lock."""
        if not self._failures or weight is Weight.IMPORTANT:
            return True
        new = what not in self._repeated
        self._repeated.add(what)
        return new

    def _send(self, message: Message) -> None:
        if self._deliver is None:
            return
        if (run := message.hook) is not None:
            run = replace(
                run, command=self._hide(run.command), stdout=self._hide(run.stdout), stderr=self._hide(run.stderr)
            )
        self._deliver(replace(message, text=self._hide(message.text), hook=run))
