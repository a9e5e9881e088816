"""Every interleaving of a small world, breadth first: the first violation found has the shortest trace there is.

    python -m kvcache.simulation.explorer --nodes 2 --faults 2

States that differ only in names, in the hour, or in which node is which are visited once.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from kvcache.simulation.canon import Canon
from kvcache.simulation.monitors import Violation
from kvcache.simulation.recovery import judge_recovery
from kvcache.simulation.smallworld import Bounds, Move, State, make, moves, start
from kvcache.view import Policy


@dataclass(slots=True)
class Found:
    """What an exploration found. `complete`: every state within the bounds was visited.

    `moves` counts the moves made by kind, `recovered` the states from which the recovery of one node was tried.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    recovered: int = 0
    complete: bool = False
    violation: str = ""
    trace: list[str] = field(default_factory=list)
    moves: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        whole = "all states" if self.complete else "not all states"
        lines = [
            f"{self.states} states, {self.transitions} transitions, depth {self.depth} ({whole} within the bounds),"
            f" {self.recovered} recoveries"
        ]
        if self.violation:
            lines += [f"{self.violation}, after {len(self.trace)} moves:", *self.trace]
        return "\n".join(lines)


def explore(bounds: Bounds, *, depth: int = 1000, states: int = 10**9, recover_every: int = 50) -> Found:
    """Visits all states that at most `depth` moves lead to, up to `states` of them, or up to the first violation.

    From every `recover_every`-th state one node goes on undisturbed, and has to put things right (I6, I8); 0: none.
    """
    found = Found()
    fingerprint = Canon().fingerprint
    root = start(bounds)
    seen: dict[bytes, tuple[bytes, Move] | None] = {fingerprint(root): None}
    queue: deque[tuple[State, bytes, int]] = deque([(root, fingerprint(root), 0)])
    while queue:
        state, name, found.depth = queue.popleft()
        if found.depth >= depth or len(seen) >= states:
            found.states = len(seen)
            return found
        for move in moves(state, bounds):
            found.transitions += 1
            found.moves[_kind(move)] += 1
            try:
                after = make(state, move, bounds)
                known = fingerprint(after)
                if known in seen:
                    continue
                seen[known] = (name, move)
                if recover_every and len(seen) % recover_every == 0:
                    found.recovered += 1
                    judge_recovery(after, bounds)
            except Violation as violation:
                found.states = len(seen)
                found.violation = str(violation)
                found.trace = _told([*_way_to(seen, name), move], bounds)
                return found
            queue.append((after, known, found.depth + 1))
    found.states, found.complete = len(seen), True
    return found


def _kind(move: Move) -> str:
    return f"{move.what} {move.how}".strip()


def _way_to(seen: dict[bytes, tuple[bytes, Move] | None], name: bytes) -> list[Move]:
    way: list[Move] = []
    while (last := seen[name]) is not None:
        name, move = last
        way.append(move)
    return way[::-1]


def _told(way: list[Move], bounds: Bounds) -> list[str]:
    """Each move with what the node did in it; the way is gone once more."""
    state, lines = start(bounds), []
    for number, move in enumerate(way, 1):
        said = f"{number:3d}. {state.time:8.3f} s  {move}"
        if move.what in ("go", "load"):
            step = state.nodes[move.who].step
            assert step is not None, "a node that goes on has a flight"
            said += f"  ({type(step.flight.phase).__name__}: {type(step.effect).__name__})"
        lines.append(said)
        if number < len(way):
            state = make(state, move, bounds)
    return lines


def main() -> None:
    """The command: explores within the bounds given and says what was found."""
    parser = argparse.ArgumentParser(description="Every interleaving of the refresh protocol in a small world.")
    defaults = Bounds()
    for name in ("nodes", "asks", "faults", "pauses"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument("--max-stale", type=float, default=None)
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--states", type=int, default=10**9)
    given = parser.parse_args()
    policy = Policy(ttl=60.0, max_stale=given.max_stale, lease=30.0, load_timeout=300.0)
    bounds = Bounds(policy, given.nodes, given.asks, given.faults, given.pauses)
    began = time.monotonic()
    found = explore(bounds, depth=given.depth, states=given.states)
    print(found)  # noqa: T201 - a command's output
    print(f"{time.monotonic() - began:.1f} s")  # noqa: T201 - a command's output
    raise SystemExit(1 if found.violation else 0)


if __name__ == "__main__":
    main()
