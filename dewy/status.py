"""What `dewy status` tells: read from the node's directory, and, with `--cache`, from the shared store.

It works whether dewy runs or not, and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from dewy.deadline import Bounded
from dewy.deployed import tag_of
from dewy.errors import DewyError
from dewy.live import read_live
from dewy.release import Release, Releases
from dewy.state import State, StateFile
from kvcache import KVCacheError, NotFound, format_duration, open_store

STORE_WITHIN: Final = 10.0
"""Seconds for a look at the shared store."""


def gather(root: Path, cache: str = "") -> dict[str, Any]:
    """All facts of the node in `root`. Times in seconds since the epoch. DewyError: no dewy was ever there."""
    file, releases = StateFile(root), Releases(root)
    live, state, pid = read_live(file.directory), file.read(), file.pid()
    current = releases.deployed()
    if live is None and current is None and pid is None:
        raise DewyError(f"{releases.root}: no dewy has worked in this directory")
    told = live if live is not None else {}
    its_own = told if pid is not None and told.get("pid") == pid else {}  # else an earlier dewy's words
    facts: dict[str, Any] = {
        "directory": str(releases.root),
        "running": pid is not None,
        "pid": pid,
        "mode": told.get("mode"),
        "registry": told.get("registry"),
        "deployed": _release(current, current, state) if current is not None else None,
        "application": its_own.get("application"),
        "known": told.get("known"),
        "last_tick": told.get("tick"),
        "next_poll_at": its_own.get("next_poll_at"),
        "pin": state.pin,
        "rejected": [
            {"tag": one.artifact.tag, "key": one.artifact.key, "why": one.why, "at": one.at} for one in state.rejected
        ],
        "releases": [_release(one, current, state) for one in releases.all()],
        "shared": None,
    }
    if cache and told.get("record"):
        facts["shared"] = _shared(cache, told["record"])
    return facts


def what_is_missing(facts: dict[str, Any]) -> str | None:
    """Why a node is not well, as its health check sees it; None: it is. An old release that serves is well."""
    if not facts["running"]:
        return "dewy does not run here"
    if facts["deployed"] is None:
        return "nothing is deployed yet"
    if facts["mode"] == "server" and not (facts["application"] or {}).get("running"):
        return "the application does not run"
    return None


def _release(release: Release, current: Release | None, state: State) -> dict[str, Any]:
    info = release.info
    return {
        "tag": tag_of(release),
        "key": info.key if info is not None else None,
        "digest": info.digest if info is not None else None,
        "path": str(release.path),
        "made_at": release.made.timestamp() if release.made is not None else None,
        "current": current is not None and release.id == current.id,
        "good": release.id in state.good,
    }


def _shared(cache: str, key: str) -> dict[str, Any]:
    """The record that a fleet shares: its age, who holds its lock, and how the upstream failed, if it did."""
    try:
        return Bounded().call("cache store", lambda: _look(cache, key), STORE_WITHIN)
    except NotFound:
        return {"key": key, "error": "no record yet"}
    except (KVCacheError, DewyError) as error:
        return {"key": key, "error": str(error)}


def _look(cache: str, key: str) -> dict[str, Any]:
    with open_store(cache) as store:
        stored = store.read_versioned(key)
    now = stored.store_time if stored.store_time is not None else time.time()
    try:
        record = {name.lower(): value for name, value in json.loads(stored.data).items()}
        ours = record.get("kvcache") or {}
        fetched, locked, failure = _moment(record["fetched_at"]), _moment(record["locked_at"]), ours.get("failure")
        facts: dict[str, Any] = {"key": key, "age": now - fetched if fetched is not None else None, "lock": None}
        if locked is not None:
            lease = ours.get("lease")
            left = max(0.0, locked + float(lease) - now) if lease is not None else None
            facts["lock"] = {"by": record.get("locked_by"), "age": now - locked, "left": left}
        facts["failure"] = failure if isinstance(failure, dict) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return {"key": key, "error": "not readable; the next refresh replaces it"}
    return facts


def _moment(text: str) -> float | None:
    """None: no time at all, which Go writes as its year 1."""
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    cut = f"{head}{dot}{rest[: min(digits, 6)]}{rest[digits:]}" if dot else text
    moment = datetime.fromisoformat(cut)
    return None if moment.year == 1 else moment.timestamp()


# -- for people --------------------------------------------------------------------------------------------------------


def as_text(facts: dict[str, Any], now: float) -> str:
    """The same, a line for each thing that an operator asks about."""
    return "\n".join(f"{name:<12} {words}" for name, words in _lines(facts, lambda at: _ago(at, now), now))


def _lines(facts: dict[str, Any], ago: Callable[[float | None], str], now: float) -> list[tuple[str, str]]:
    deployed, application, known = facts["deployed"], facts["application"], facts["known"]
    tick, shared = facts["last_tick"] or {}, facts["shared"]
    lines = [("dewy", f"runs, pid {facts['pid']}, {facts['mode'] or ''}" if facts["running"] else "does not run here")]
    if deployed is not None:
        lines.append(("deployed", f"{deployed['tag']}, unpacked {ago(deployed['made_at'])}, {deployed['path']}"))
    else:
        lines.append(("deployed", "nothing"))
    if application is not None:
        lines.append(("application", _application(application, ago)))
    if known is not None:
        lines.append(("newest", f"{known['tag']}, as known {ago(known['fetched_at'])} ({known['state']})"))
    if facts["next_poll_at"] is not None:
        lines.append(("next poll", f"in {_duration(facts['next_poll_at'] - now)}"))
    if tick.get("reason"):
        lines.append(("last poll", tick["reason"]))
    lines += [("problem", text) for text in (tick.get("problem"), tick.get("unanswered"), tick.get("missing")) if text]
    if facts["pin"] is not None:
        lines.append(("pinned", f"{facts['pin']}; dewy unpin lifts that"))
    lines += [("rejected", f"{one['tag']}, {ago(one['at'])}: {one['why']}") for one in facts["rejected"]]
    if shared is not None:
        lines.append(("shared", _shared_words(shared)))
    return lines


def _application(application: dict[str, Any], ago: Callable[[float | None], str]) -> str:
    if not application["running"]:
        retry = application["retry_in"]
        when = f"; tried again within {_duration(retry)}" if retry is not None else ""
        return f"{application['tag']} is down after {application['crashes']} crash(es) in a row{when}"
    words = f"{application['tag']} serves, pid {application['pid']}, generation {application['generation']}"
    crashes = f", {application['crashes']} crash(es) in a row before" if application["crashes"] else ""
    return f"{words}, started {ago(application['since'])}{crashes}"


def _shared_words(shared: dict[str, Any]) -> str:
    if "error" in shared:
        return f"{shared['key']}: {shared['error']}"
    age, lock, failure = shared["age"], shared["lock"], shared["failure"]
    words = [f"answer {_duration(age)} old" if age is not None else "no answer yet"]
    if lock is None:
        words.append("lock free")
    else:
        left = f", {_duration(lock['left'])} left of its lease" if lock["left"] is not None else ""
        words.append(f"lock held by {lock['by']} for {_duration(lock['age'])}{left}")
    if failure is not None:
        words.append(f"upstream failed {failure.get('count')} time(s): {failure.get('message')}")
    return ", ".join(words)


def _ago(at: float | None, now: float) -> str:
    return "at an unknown time" if at is None else f"{_duration(now - at)} ago"


def _duration(seconds: float) -> str:
    return format_duration(round(max(0.0, seconds)))
