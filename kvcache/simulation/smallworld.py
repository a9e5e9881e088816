"""A few nodes, one store and one upstream as ONE value, and every move that an adversary can make on it.

The nodes run the real `kvcache.protocol`. A state is never changed: a move makes the next state from it, or raises
`Violation`. Names that begin with a mark (nonces `#`, processes `@`, answers `%`, ghosts `!`) and times (see the
origins below) are told apart by their looks, so that `kvcache.simulation.canon` can rename and shift them wherever
they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from kvcache import events as ev
from kvcache import protocol
from kvcache.clock import Now
from kvcache.kvs import ANYWAY, Condition, Version
from kvcache.phases import Claiming, Publishing, Renewing, Step
from kvcache.record import Record
from kvcache.simulation.monitors import (
    Cell,
    Garbage,
    Made,
    Sent,
    judge_give,
    judge_load,
    judge_wait,
    judge_write,
)
from kvcache.view import NOTHING, Held, Policy, hit

MARKS = frozenset("#@%!")
"""What names begin with: of nonces, processes, answers, and ghosts."""
STORE_ORIGIN = 2e9
"""Store time when the world begins: every float above 1.5e9 is store time."""
MONO_ORIGIN = 1e9
"""The monotonic clocks when the world begins: every float between 5e8 and 1.5e9 is on one of them."""

POLICY = Policy(ttl=60.0, lease=30.0, load_timeout=300.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the adversary may go: calls that set off a flight, faults, and leaps of time, each in all.

    A failing upstream is one fault, as is a crash. `leaps` in seconds are what a pause may last besides "until the
    next timer"; `chance` is every draw of every node.
    """

    policy: Policy = POLICY
    nodes: int = 2
    asks: int = 3
    faults: int = 1
    pauses: int = 2
    leaps: tuple[float, ...] = (31.0, 70.0)
    chance: float = 0.5


@dataclass(frozen=True, slots=True)
class Contents(Version):
    """A version that is nothing but the contents: equal bytes, equal versions, as with ETags."""

    record: Record | Garbage


@dataclass(frozen=True, slots=True)
class Node:
    """One process. A flight takes `held` along; `given` is when the newest answer given to a caller was made.

    Ghosts, which only the monitors see: `seen` is the state of the store that it read, or wrote, last; `write` names
    its last write, `claim` the claim it is making or holds, and `won` says that this claim landed.
    """

    policy: Policy
    held: Held = NOTHING
    step: Step | None = None
    due: float = 0.0
    delivered: bool = False
    given: float = 0.0
    seen: str = ""
    write: str = ""
    claim: str = ""
    won: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The whole world. `limbo`: writes still on their way from clients that gave up. `names`: how many were given."""

    time: float
    cell: Cell
    nodes: tuple[Node, ...]
    limbo: tuple[Sent, ...]
    asks: int
    faults: int
    pauses: int
    names: int = 0

    @property
    def store_time(self) -> float:
        return STORE_ORIGIN + self.time

    @property
    def mono(self) -> float:
        return MONO_ORIGIN + self.time


class Move(NamedTuple):
    """One move. `who` is a node's number, or that of a write in limbo."""

    what: str
    who: int = -1
    how: str = ""

    def __str__(self) -> str:
        who = f" node {self.who}" if self.what in ("ask", "go", "load", "crash") else ""
        return f"{self.what}{who}{': ' if self.how else ''}{self.how}"


WRITE_FAULTS = ("reply lost", "request lost", "delayed", "duplicated", "throttled")
SPOILT = ("garbage", "deleted")


def start(bounds: Bounds) -> State:
    nodes = tuple(Node(replace(bounds.policy, node=f"@{i}")) for i in range(bounds.nodes))
    return State(0.0, Cell(None, "!0"), nodes, (), bounds.asks, bounds.faults, bounds.pauses, bounds.nodes + 1)


def fresh(mark: str, state: State) -> str:
    """A name that was never given before."""
    return f"{mark}{state.names}"


def moves(state: State, bounds: Bounds) -> Iterator[Move]:
    """Every move that is possible in `state`."""
    for who, node in enumerate(state.nodes):
        if node.step is None:
            if state.asks and state.mono >= node.held.look_at:
                yield Move("ask", who)
        else:
            yield from _steps(state, who, node.step, node.due)
        if state.faults and (node.step is not None or node.held is not NOTHING):
            yield Move("crash", who)
    for index in range(len(state.limbo)):
        yield Move("arrives late", index)
    if state.faults:
        for how in SPOILT:
            yield Move("store", how=how)
    if state.pauses:
        if _next_due(state) is not None:
            yield Move("pause", how="until the next timer")
        for leap in bounds.leaps:
            yield Move("pause", how=f"{leap:g} s")


def _steps(state: State, who: int, step: Step, due: float) -> Iterator[Move]:
    match step.effect:
        case ev.Read():
            yield Move("go", who)
            if state.faults:
                yield Move("go", who, "store down")
        case ev.Write():
            yield Move("go", who)
            if state.faults:
                yield from (Move("go", who, fault) for fault in WRITE_FAULTS)
        case ev.StartLoad() | ev.AwaitLoad():
            if state.mono >= due:
                yield Move("go", who)
                return  # what comes after the time to wait is looked at after the time-out has been
            yield Move("load", who, "ok")
            if state.faults:
                yield Move("load", who, "fails")
        case ev.Wait():
            if state.mono >= due:
                yield Move("go", who)


def _next_due(state: State) -> float | None:
    timers = [node.due - MONO_ORIGIN for node in state.nodes if node.step is not None]
    return min((due for due in timers if due > state.time), default=None)


def make(state: State, move: Move, bounds: Bounds) -> State:
    """The state after `move`. Violation where the protocol breaks an invariant in it."""
    match move:
        case Move("ask", who):
            node = state.nodes[who]
            step = protocol.begin("key", node.policy, node.held)
            after = _on(replace(state, asks=state.asks - 1), who, replace(node, held=NOTHING, delivered=False), step)
        case Move("go", who, how):
            after = _go(_charge(state, how), who, how, bounds)
        case Move("load", who, how):
            after = _load(state, who, how, bounds)
        case Move("crash", who):
            dead = replace(bounds.policy, node=fresh("@", state))
            after = _with(_charge(state, "crash"), who, Node(dead))
            after = replace(after, names=state.names + 1)
        case Move("arrives late", index):
            rest = state.limbo[:index] + state.limbo[index + 1 :]
            after, _ = _land(replace(state, limbo=rest), state.limbo[index])
        case Move("store", _, how):
            record = Garbage(fresh("#", state)) if how == "garbage" else None
            cell = Cell(record, fresh("!", state))
            after = replace(_charge(state, how), cell=cell, names=state.names + 1)
        case Move("pause", _, how):
            due = _next_due(state) if how.startswith("until") else state.time + float(how.split()[0])
            assert due is not None, "a pause until the next timer needs a timer"
            after = replace(state, time=due, pauses=state.pauses - 1)
        case _:
            raise ValueError(f"no such move: {move}")
    return _asked_everywhere(after)


def _charge(state: State, how: str) -> State:
    return replace(state, faults=state.faults - 1) if how else state


def _with(state: State, who: int, node: Node) -> State:
    return replace(state, nodes=(*state.nodes[:who], node, *state.nodes[who + 1 :]))


def _asked_everywhere(state: State) -> State:
    """Somebody asks on every node for what costs no request: the answer in hand, also while a flight is under way."""
    for who, node in enumerate(state.nodes):
        if node.step is None:
            outcome = hit(node.policy, node.held, state.mono)
        else:
            now = Now(state.store_time, state.mono, 0.0, "")
            outcome = protocol.meanwhile(node.step.flight, now)
        if isinstance(outcome, ev.Give):
            given = judge_give(node.given, outcome, state.store_time, node.policy)
            state = _with(state, who, replace(node, given=given)) if given != node.given else state
    return state


def _load(state: State, who: int, how: str, bounds: Bounds) -> State:
    if how == "fails":
        return _advance(_charge(state, how), who, ev.LoadFailed("upstream", "503"), bounds)
    made = Made(fresh("%", state), state.store_time)
    return _advance(replace(state, names=state.names + 1), who, ev.LoadDone(made, made.name), bounds)


def _go(state: State, who: int, how: str, bounds: Bounds) -> State:
    node = state.nodes[who]
    assert node.step is not None, "only a node with a flight goes on"
    match node.step.effect:
        case ev.Read():
            if how:
                return _advance(state, who, ev.ReadFailed(how), bounds)
            state = _with(state, who, replace(node, seen=state.cell.state))
            return _advance(state, who, read(state.cell), bounds)
        case ev.Write(record, match):
            sent = Sent(record, match, node.policy.node, node.write, node.seen, node.claim)
            state, came = _write(state, sent, how)
            if isinstance(came, ev.Landed):
                state = _with(state, who, replace(state.nodes[who], seen=state.cell.state))
            return _advance(state, who, came, bounds)
        case _:
            return _advance(state, who, ev.Elapsed(), bounds)


# -- the store -----------------------------------------------------------------------------------------------------


def version(cell: Cell) -> Version | None:
    return None if cell.record is None else Contents("", cell.record)


def read(cell: Cell) -> ev.Found | ev.Missing | ev.Unreadable:
    """What a read of the store says."""
    match cell.record:
        case None:
            return ev.Missing()
        case Garbage():
            return ev.Unreadable(Contents("", cell.record), "garbage")
        case record:
            return ev.Found(record, Contents("", record))


def _write(state: State, sent: Sent, how: str) -> tuple[State, ev.Input]:
    match how:
        case "reply lost":
            return _land(state, sent)[0], ev.Unknown(how)
        case "request lost":
            return state, ev.Unknown(how)
        case "delayed":
            return replace(state, limbo=(*state.limbo, sent)), ev.Unknown(how)
        case "duplicated":  # the client library sends it again, and hears of the second one only
            return _land(_land(state, sent)[0], sent)
        case "throttled":
            return state, ev.Throttled()
        case _:
            return _land(state, sent)


def _land(state: State, sent: Sent) -> tuple[State, ev.Landed | ev.Refused]:
    """The write arrives at the store."""
    if not _holds(sent.match, state.cell):
        return state, ev.Refused()
    judge_write(state.cell, sent, state.store_time, state.nodes[0].policy)
    cell = Cell(sent.record, sent.name, sent.by)
    state = replace(state, cell=cell)
    for who, node in enumerate(state.nodes):
        if node.claim == sent.claim and node.policy.node == sent.by:
            state = _with(state, who, replace(node, won=True))
    return state, ev.Landed(Contents("", sent.record))


def _holds(match: Condition, cell: Cell) -> bool:
    if isinstance(match, Version):
        return version(cell) == match
    return match is ANYWAY or cell.record is None


# -- the nodes -----------------------------------------------------------------------------------------------------


def _advance(state: State, who: int, came: ev.Input, bounds: Bounds) -> State:
    node = state.nodes[who]
    assert node.step is not None, "only a node with a flight goes on"
    now = Now(state.store_time, state.mono, bounds.chance, fresh("#", state))
    step = protocol.advance(node.step.flight, came, now)
    return _on(replace(state, names=state.names + 1), who, node, step)


def _on(state: State, who: int, node: Node, step: Step) -> State:
    """`node` after `step`: what it delivers is judged, and so is what it wants done."""
    if isinstance(step.deliver, ev.Give) and not node.delivered:
        node = replace(node, given=judge_give(node.given, step.deliver, state.store_time, node.policy))
    node = replace(
        node, delivered=node.delivered or step.deliver is not None, step=step._replace(told=(), deliver=None)
    )
    match step.effect:
        case ev.Stop():
            node = Node(node.policy, step.flight.held, given=node.given)
        case ev.Write():
            phase = step.flight.phase
            assert isinstance(phase, Claiming | Renewing | Publishing), "nobody else writes"
            if isinstance(phase, Renewing) or phase.sent == 1:  # else it is sent again
                name = fresh("!", state)
                node = replace(node, write=name)
                if isinstance(phase, Claiming):
                    node = replace(node, claim=name, won=False)
                state = replace(state, names=state.names + 1)
        case ev.StartLoad(_, _, until):
            judge_load(step.flight, won=node.won)
            node = replace(node, due=until)
        case ev.AwaitLoad(until):
            node = replace(node, due=until)
        case ev.Wait(seconds, _, _):
            if not node.delivered:
                judge_wait(step.flight.held, state.store_time, node.policy)
            node = replace(node, due=state.mono + seconds)
        case ev.Recall():
            now = Now(state.store_time, state.mono, 0.0, fresh("#", state))
            again = protocol.advance(step.flight, ev.Recalled(None), now)
            return _on(replace(state, names=state.names + 1), who, node, again)
        case ev.Read():
            pass
    return _with(state, who, node)
