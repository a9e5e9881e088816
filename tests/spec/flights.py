"""Plays the stories of `spec/vectors/flights.json`: one node, one key, and what came of every effect, in order.

python -m tests.spec.flights     writes what follows of each step anew; look at the difference before you believe it
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.codec import decode, encode
from kvcache.kvs import ABSENT, Version
from kvcache.phases import Step
from kvcache.protocol import advance, begin, meanwhile
from kvcache.record import Answer
from kvcache.view import NOTHING, Policy, hit

FILE = Path(__file__).parents[2] / "spec" / "vectors" / "flights.json"
STORE_TIME, MONOTONIC = 1777593600.0, 1000.0
"""When every story begins."""
KEY = "key"


class Node:
    """A node that has just started, and plays one story."""

    def __init__(self, story: dict[str, Any]) -> None:
        self.policy = Policy(**story["policy"], node="host-a:42")
        self.held = NOTHING
        self.step: Step | None = None
        self.writes: list[bytes] = []

    def play(self, move: dict[str, Any]) -> dict[str, Any]:
        """What follows of one step of the story."""
        at = move["at"]
        store = STORE_TIME + at + move.get("skew", 0.0)
        now = Now(store, MONOTONIC + at, move.get("chance", 0.5), move.get("nonce", ""))
        if "ask" in move:
            outcome = hit(self.policy, self.held, now.mono)
            if outcome is not None:
                return {"deliver": _outcome(outcome)}
            self.step = begin(KEY, self.policy, self.held)
        elif "meanwhile" in move:
            assert self.step is not None
            outcome = meanwhile(self.step.flight, now)
            return {"deliver": None if outcome is None else _outcome(outcome)}
        else:
            assert self.step is not None
            self.step = advance(self.step.flight, self._input(move["came"], now), now)
        return self._told(self.step)

    def _input(self, came: dict[str, Any], now: Now) -> ev.Input:
        match came:
            case {"found": text, "version": version}:
                data = self.writes[int(text[1:]) - 1] if text.startswith("@") else text.encode()
                return ev.Found(decode(data), Version(version))
            case {"unreadable": why, "version": version}:
                return ev.Unreadable(Version(version), why)
            case {"missing": _}:
                return ev.Missing()
            case {"read failed": why}:
                return ev.ReadFailed(why)
            case {"landed": version}:
                return ev.Landed(Version(version))
            case {"refused": _}:
                return ev.Refused()
            case {"throttled": pause}:
                return ev.Throttled(pause)
            case {"unknown": why}:
                return ev.Unknown(why)
            case {"unwritable": why}:
                return ev.Unwritable(why)
            case {"loaded": value, **rest}:
                return ev.LoadDone(value, **rest)
            case {"unchanged": _}:
                return ev.LoadUnchanged()
            case {"load failed": kind, **rest}:
                return ev.LoadFailed(kind, **rest)
            case {"elapsed": _}:
                return ev.Elapsed()
            case {"recalled": value, "age": age}:
                return ev.Recalled(Answer(value, now.store - age), age)
            case {"recalled": None}:
                return ev.Recalled(None)
        raise ValueError(came)

    def _told(self, step: Step) -> dict[str, Any]:
        found: dict[str, Any] = {"effect": self._effect(step.effect)}
        if step.told:
            found["told"] = [[type(event).__name__, _fields(event)] for event in step.told]
        if step.deliver is not None:
            found["deliver"] = _outcome(step.deliver)
        if isinstance(step.effect, ev.Stop):
            self.held = step.flight.held
            found["look_at"] = _round(self.held.look_at - MONOTONIC)
        return found

    def _effect(self, effect: ev.Effect) -> dict[str, Any]:
        match effect:
            case ev.Read():
                return {"read": True}
            case ev.Write(record, match_):
                self.writes.append(encode(record))
                return {"write": encode(record).decode(), "on": None if match_ is ABSENT else match_.token}
            case ev.StartLoad(previous, deadline, until):
                before = None if previous is None else {"value": previous.value, "validator": previous.validator}
                return {
                    "load": before,
                    "deadline": _round(deadline - MONOTONIC),
                    "until": _round(until - MONOTONIC),
                }
            case ev.AwaitLoad(until):
                return {"await": _round(until - MONOTONIC)}
            case ev.Wait(seconds, limit, version):
                token = None if version is None else version.token
                return {"wait": _round(seconds), "limit": None if limit is None else _round(limit), "version": token}
            case ev.Recall():
                return {"recall": True}
            case ev.Stop():
                return {"stop": True}
        raise ValueError(effect)


def _outcome(outcome: ev.Outcome) -> dict[str, Any]:
    if isinstance(outcome, ev.Give):
        beside = {"extra": outcome.answer.extra} if outcome.answer.extra is not None else {}
        age = _round(outcome.age)
        return {
            "give": outcome.answer.value, "age": age, "state": outcome.state, "refreshed": outcome.refreshed, **beside
        }  # fmt: skip
    return {"fail": outcome.kind, **{name: _round(it) for name, it in asdict(outcome).items() if name != "kind"}}


def _fields(event: ev.Event) -> dict[str, Any]:
    return {name: _round(it) for name, it in asdict(event).items()}


def _round(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def stories() -> list[dict[str, Any]]:
    """As the file has them."""
    return json.loads(FILE.read_text())["flights"]  # type: ignore[no-any-return]  # JSON


def main() -> None:
    whole = json.loads(FILE.read_text())
    for story in whole["flights"]:
        node = Node(story)
        for move in story["steps"]:
            move["then"] = node.play(move)
    write(whole)


def write(whole: dict[str, Any]) -> None:
    """One step a line."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    told = []
    for story in whole["flights"]:
        steps = ",\n      ".join(line(move) for move in story["steps"])
        told.append(
            f'    {{"name": {line(story["name"])}, "policy": {line(story["policy"])}, "steps": [\n      {steps}]}}'
        )
    body = ",\n".join(told)
    FILE.write_text(f'{{\n  "about": {line(whole["about"])},\n  "flights": [\n{body}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
