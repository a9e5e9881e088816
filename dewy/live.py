"""What a running dewy tells about itself, in `releases/.dewy/status.json`: written after every tick, never read by it.

It is no state: who stops dewy in the middle of a tick finds the words of the tick before. `dewy status` reads it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from dewy.answers import Heard
from dewy.config import Config
from dewy.log import Log
from dewy.plan import Artifact, Reason
from dewy.state import write_whole
from dewy.supervision import Snapshot
from kvcache import redact

NAME: Final = "status.json"


class LiveFile:
    """The file of one run. For the thread of the tick."""

    def __init__(self, directory: Path, config: Config, log: Log, hide: Callable[[str], str]) -> None:
        self._path = directory / NAME
        self._hide = hide
        self._log = log
        self._problem = ""
        self._facts: dict[str, Any] = {
            "format": 1,
            "pid": os.getpid(),
            "mode": config.mode,
            "registry": redact(config.registry),
            "interval": config.interval,
            "started_at": time.time(),
            "known": None,
            "record": None,
        }
        self._waiting = ""
        self._tick: dict[str, Any] = {}

    def tick_began(self) -> None:
        """A tick has begun."""
        self._tick = {"at": time.time()}
        self._waiting = ""

    def heard(self, heard: Heard, record: str | None) -> None:
        """What the registry announces. `record`: the key under which the fleet shares it; None: it does not."""
        self._facts["record"] = record
        if heard.announced is not None:
            announced = heard.announced
            published = announced.created_at.timestamp() if announced.created_at is not None else None
            known = {"tag": announced.tag, "key": announced.key, "published_at": published, "slot": announced.slot}
            known |= {"state": heard.state, "fetched_at": time.time() - heard.age}
            self._facts["known"] = known
        self._tick["missing"] = heard.missing.why if heard.missing is not None else None
        self._tick["unanswered"] = self._hide(heard.failure) if heard.failure is not None else None

    def waiting(self, reason: Reason) -> None:
        """Why nothing is done."""
        if reason is not Reason.NOT_ASKED:
            self._waiting = reason.value

    def write(self, *, problem: str, running: Artifact | None, snapshot: Snapshot | None, next_in: float) -> None:
        """Writes it all down. A disk that takes no writes is told once."""
        now = time.time()
        application = None
        if running is not None and snapshot is not None:
            application = {"tag": running.tag, "key": running.key, **asdict(snapshot)}
        self._tick |= {
            "took": now - self._tick["at"],
            "problem": self._hide(problem) or None,
            "reason": self._waiting or None,
        }
        self._facts |= {"tick": self._tick, "next_poll_at": now + next_in, "application": application}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._facts, ensure_ascii=False, indent=1) + "\n", durable=False)
        except OSError as error:
            self._cannot(f"{self._path}: {error.strerror or error}")
        else:
            self._problem = ""

    def line(self) -> str:
        """The same in a few words, for `systemctl status`."""
        application = self._facts.get("application")
        known = self._facts["known"]
        words = []
        if application is not None:
            words.append(f"{application['tag']} serves" if application["running"] else f"{application['tag']} is down")
        if known is not None:
            words.append(f"newest is {known['tag']}")
        if self._waiting:
            words.append(self._waiting)
        return "; ".join(words) or "waiting for a first release"

    def _cannot(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.warn("cannot write the status for dewy status", error=problem)


def read_live(directory: Path) -> dict[str, Any] | None:
    """What a dewy last told; None: none ever did, or something else is there."""
    try:
        value = json.loads((directory / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("format") == 1 else None
