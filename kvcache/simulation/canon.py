"""When two states of a small world are the same one: the names are other names, the clock shows another hour, or
the nodes have changed places."""

from __future__ import annotations

import enum
import hashlib
import marshal
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from kvcache.record import Record
from kvcache.simulation.smallworld import Node, State
from kvcache.view import Policy


def fingerprint(state: State) -> bytes:
    """Equal for states that differ only in names, in the hour, and in which node is which.

    Names are renamed in the order in which they are met; where that order depends on which of two equal nodes comes
    first, two such states may be taken for different ones, which costs time and hides nothing.
    """
    walk = _Walk(state)
    walk.all((state.asks, state.faults, state.pauses))
    walk.all((state.cell.record, state.cell.state, state.cell.by))
    for node in sorted(state.nodes, key=walk.rank):
        walk.one(node)
    walk.one(state.limbo)
    return hashlib.blake2b(marshal.dumps(walk.out, 2), digest_size=16).digest()


class _Walk:
    """One walk through a state, which writes down all that is in it."""

    def __init__(self, state: State) -> None:
        self.out: list[Any] = []
        self.names: dict[str, int] = {}
        self.met: dict[int, int] = {}  # records, by identity: most stand in a state more than once
        self.store_time, self.mono = state.store_time, state.mono

    def rank(self, node: Node) -> tuple[Any, ...]:
        """An order of the nodes that depends on no name."""
        step, held = node.step, node.held
        phase = "" if step is None else type(step.flight.phase).__name__ + type(step.effect).__name__
        return phase, self.shift(held.look_at), self.shift(held.as_of), self.shift(node.given), self.shift(node.due)

    def shift(self, moment: float) -> float:
        if moment > 1.5e9:
            return round(moment - self.store_time, 6)
        return round(moment - self.mono, 6) if moment > 5e8 else moment

    def all(self, things: tuple[Any, ...]) -> None:
        for thing in things:
            self.one(thing)

    def one(self, thing: Any) -> None:
        kind = type(thing)
        if kind is str:
            self.out.append(self.names.setdefault(thing, len(self.names)) if thing[:1] in _MARKS else thing)
        elif kind is float:
            self.out.append(self.shift(thing) if thing != math.inf else thing)
        elif thing is None or kind is int or kind is bool:
            self.out.append(thing)
        elif kind is tuple:
            self.out.append(len(thing))
            self.all(thing)
        elif kind is frozenset:
            self.out.append(len(thing))
            self.all(tuple(sorted(thing)))
        elif kind is Policy:
            self.one(thing.node)
        elif isinstance(thing, enum.Enum):
            self.out.append(thing.name)
        elif kind is Record and id(thing) in self.met:
            self.out.append(-1 - self.met[id(thing)])
        else:
            if kind is Record:
                self.met[id(thing)] = len(self.met)
            self.out.append(kind.__name__)
            self.all(_parts(kind)(thing))


_MARKS = frozenset("#@%!")
_PARTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {}


def _parts(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What takes a dataclass, or a named tuple, apart."""
    if kind not in _PARTS:
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else list(kind._fields)
        match names:
            case []:
                _PARTS[kind] = _nothing
            case [name]:
                _PARTS[kind] = lambda thing: (getattr(thing, name),)
            case _:
                _PARTS[kind] = attrgetter(*names)
    return _PARTS[kind]


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()
