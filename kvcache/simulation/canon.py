"""When two states of a small world are the same one: the names are other names, the clock shows another hour, or
the nodes have changed places."""

from __future__ import annotations

import enum
import hashlib
import marshal
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from kvcache.record import Record
from kvcache.simulation.smallworld import MARKS, State
from kvcache.view import Policy

NAME, STORE_TIME, MONO_TIME = "a name", "store time", "a monotonic clock's time"
"""What stands in the place of those that were taken out."""
Form = tuple[bytes, tuple[float, ...], tuple[float, ...]]


class Shape(NamedTuple):
    """One part of a state, with its names and its times taken out of it."""

    rest: bytes
    names: tuple[str, ...]
    store_times: tuple[float, ...]
    mono_times: tuple[float, ...]

    def form(self, state: State) -> Form:
        """What is left of it when no name counts and times are distances from now."""
        ages = tuple([round(at - state.store_time, 6) for at in self.store_times])
        return self.rest, ages, tuple([round(at - state.mono, 6) for at in self.mono_times])


class Canon:
    """Fingerprints of states. Most parts of a state are parts of its predecessor, so their shapes are remembered."""

    def __init__(self) -> None:
        self._shapes: dict[int, tuple[Any, Shape]] = {}  # by identity; the part is kept, so that its id stays its own

    def fingerprint(self, state: State) -> bytes:
        """Equal for states that differ only in names, in the hour, and in which node is which.

        Names are renamed in the order in which they are met; where that depends on which of two like nodes comes
        first, such states may be taken for different ones, which costs time and hides nothing.
        """
        nodes = [(shape.form(state), shape.names) for shape in map(self._shape, state.nodes)]
        nodes.sort(key=lambda node: node[0])
        others = [(shape.form(state), shape.names) for shape in map(self._shape, (state.cell, *state.limbo))]
        names: dict[str, int] = {}
        out: list[Any] = [state.asks, state.faults, state.pauses]
        for form, named in (*others, *nodes):
            out.append(form)
            out.append([names.setdefault(name, len(names)) for name in named])
        return hashlib.blake2b(marshal.dumps(out, 2), digest_size=16).digest()

    def _shape(self, part: Any) -> Shape:
        known = self._shapes.get(id(part))
        if known is None:
            if len(self._shapes) > 50_000:
                self._shapes.clear()
            known = self._shapes[id(part)] = part, _Walk().shape(part)
        return known[1]


class _Walk:
    """One walk through a part of a state, which sorts what is in it."""

    def __init__(self) -> None:
        self.rest: list[Any] = []
        self.names: list[str] = []
        self.store_times: list[float] = []
        self.mono_times: list[float] = []
        self.met: dict[int, int] = {}  # records, by identity: most are met more than once

    def shape(self, part: Any) -> Shape:
        self.one(part)
        rest = marshal.dumps(self.rest, 2)
        return Shape(rest, tuple(self.names), tuple(self.store_times), tuple(self.mono_times))

    def all(self, things: tuple[Any, ...]) -> None:
        for thing in things:
            self.one(thing)

    def one(self, thing: Any) -> None:
        kind = type(thing)
        if kind is str:
            if thing[:1] in MARKS:
                self.names.append(thing)
                thing = NAME
            self.rest.append(thing)
        elif kind is float:
            if thing > 1.5e9:
                self.store_times.append(thing)
                thing = STORE_TIME
            elif thing > 5e8:
                self.mono_times.append(thing)
                thing = MONO_TIME
            self.rest.append(thing)
        elif thing is None or kind is int or kind is bool:
            self.rest.append(thing)
        elif kind is tuple:
            self.rest.append(len(thing))
            self.all(thing)
        elif kind is frozenset:
            self.rest.append(len(thing))
            self.all(tuple(sorted(thing)))
        elif kind is Policy:
            self.one(thing.node)
        elif isinstance(thing, enum.Enum):
            self.rest.append(thing.name)
        elif kind is Record and id(thing) in self.met:
            self.rest.append(-1 - self.met[id(thing)])
        else:
            if kind is Record:
                self.met[id(thing)] = len(self.met)
            self.rest.append(kind.__name__)
            self.all(_parts(kind)(thing))


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
