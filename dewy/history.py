"""What has happened on a node, one line a deed in `releases/.dewy/history.jsonl`: for `dewy history`.

    {"at": 1764032461.2, "what": "deployed", "tag": "v1.2.0", "previous": "v1.1.0", ...}

Bounded: the older half goes when there are too many. Whoever cannot write a line (a full disk) goes on without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from dewy.events import Deployed, DeployFailed, Event, Restarted, RolledBack
from dewy.lockfile import open_lock, try_lock
from dewy.state import write_whole

NAME: Final = "history.jsonl"
MOST_LINES: Final = 2000
_LONGEST_TEXT: Final = 500


class History:
    """The history in one directory. Any number of these, in any number of processes and threads.

    `now` in seconds since the epoch; `hide` takes secrets out of texts.
    """

    def __init__(self, directory: Path, now: Callable[[], float] = time.time, hide: Callable[[str], str] = str) -> None:
        self._path = directory / NAME
        self._now = now
        self._hide = hide

    def __call__(self, event: Event) -> None:
        """A listener of the loop's events."""
        match event:
            case Deployed(tag, key, previous, release, duration):
                self.add("deployed", tag=tag, key=key, previous=previous, release=release, duration=duration)
            case DeployFailed(tag, key, error, duration):
                self.add("failed", tag=tag, key=key, error=error, duration=duration)
            case RolledBack(tag, to, reason):
                self.add("rolled back", tag=tag, to=to, reason=reason)
            case Restarted(tag, reason) if reason in ("signal", "start"):
                self.add("started" if reason == "start" else "restarted", tag=tag, reason=reason)
            case _:
                pass

    def add(self, what: str, **facts: Any) -> None:
        """One more line. Harmless where it cannot be written."""
        short = {
            name: self._hide(value)[:_LONGEST_TEXT] if isinstance(value, str) else value
            for name, value in facts.items()
        }
        line = json.dumps({"at": round(self._now(), 3), "what": what, **short}, ensure_ascii=False)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open_lock(self._path.with_name(".history.lock")) as fd:
                # Nobody holds it for longer than a few writes; who is stopped then costs others nothing.
                locked = try_lock(fd)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                if locked:
                    self._bound()

    def read(self) -> list[dict[str, Any]]:
        """All lines, oldest first; one that was torn by a crash is left out. OSError."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        deeds = []
        for line in lines:
            with suppress(ValueError):
                deed = json.loads(line)
                if isinstance(deed, dict) and "at" in deed and "what" in deed:
                    deeds.append(deed)
        return deeds

    def _bound(self) -> None:
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if len(lines) > MOST_LINES:
            write_whole(self._path, "".join(lines[-MOST_LINES // 2 :]))


def as_text(deed: dict[str, Any]) -> str:
    """One line for a person."""
    at = datetime.fromtimestamp(deed["at"]).astimezone().isoformat(sep=" ", timespec="seconds")
    tag = deed.get("tag") or ""
    match deed["what"]:
        case "deployed":
            more = f"{tag}" + (f" (before: {deed['previous']})" if deed.get("previous") else "")
            more += f" in {deed['duration']:.1f} s" if "duration" in deed else ""
        case "failed":
            more = f"{tag}: {deed.get('error')}"
        case "rolled back":
            more = f"from {tag} to {deed.get('to') or 'nothing'}: {deed.get('reason')}"
        case _:
            more = tag
    return f"{at}  {deed['what']:<12} {more}".rstrip()
