"""When two states of a small world are the same one: the names are other names, the clock shows another hour, or
the nodes have changed places."""

from __future__ import annotations

import enum
import hashlib
import marshal
import math
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

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
        else:
            self.out.append(kind.__name__)
            self.all(_parts(kind)(thing))


_MARKS = frozenset("#@%!")
_PARTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {}


def _parts(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """The fields of a dataclass, or of a named tuple, as a tuple."""
    known = _PARTS.get(kind)
    if known is None:
        names = kind._fields if issubclass(kind, tuple) else [field.name for field in fields(kind)]
        get = attrgetter(*names) if names else None
        if get is None:
            known = _nothing
        else:
            known = get if len(names) > 1 else (lambda thing: (get(thing),))
        _PARTS[kind] = known
    return known


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()
