"""Is a recorded history of one register one that could have come about one operation at a time?

A history is linearizable if every operation can be given one instant between its call and its return, so that all of
them, carried out in that order, answer what they did answer. The search is that of Wing and Gong (1993), with Lowe's
(2017) memory of the configurations that led nowhere: which operations are done, and what the register then holds.

Pure: histories come from `kvcache.conformance.history`, or from a file.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

Kind = Literal["read", "write", "write_if", "delete"]
Outcome = Literal["ok", "conflict", "unknown"]
Held: TypeAlias = str | None
"""What the register holds: a label that is unique to the write that wrote it, or None for nothing."""

MOST_CONFIGURATIONS: Final = 200_000


class TooHard(Exception):
    """The search was given up after `MOST_CONFIGURATIONS`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as its caller saw it.

    `called` and `returned` are seconds on one monotonic clock of the host; an operation of unknown outcome may take
    effect at any time after its call, or never, and has returned at infinity.
    """

    who: str
    kind: Kind
    called: float
    returned: float
    outcome: Outcome = "ok"
    value: Held = None
    """Written by write and write_if, found by read."""
    expected: Held = None
    """Of write_if: what the version named stood for; None: that there be nothing."""

    @property
    def observes_only(self) -> bool:
        """Whether the register is the same after it, by its own account."""
        return self.kind == "read" or self.outcome == "conflict"

    def after(self, held: Held) -> tuple[bool, Held]:
        """(whether its answer fits a register that holds `held`, what that holds after it)."""
        if self.kind == "read":
            return self.value == held, held
        if self.kind == "delete":
            return True, None
        if self.kind == "write":
            return True, self.value
        if self.outcome == "conflict":
            return self.expected != held, held
        return self.expected == held, self.value

    def __str__(self) -> str:
        doing: str = self.kind
        if self.kind == "write":
            doing = f"write {self.value}"
        elif self.kind == "write_if":
            doing = f"write {self.value} if it holds {self.expected or 'nothing'}"
        if self.kind == "read":
            return f"read -> {self.value or 'nothing'}"
        return f"{doing} -> {'?' if self.outcome == 'unknown' else self.outcome}"


History: TypeAlias = Sequence[Operation]


def order_of(history: History, most: int = MOST_CONFIGURATIONS) -> list[Operation] | None:
    """An order in which the history could have come about, from an empty register; None if there is none. TooHard."""
    return _search(history, most)[0]


def _search(history: History, most: int) -> tuple[list[Operation] | None, int]:
    """(the order, or None; how many configurations were tried)."""
    operations = sorted(history, key=lambda operation: operation.called)
    due = sum(1 << number for number, operation in enumerate(operations) if operation.outcome != "unknown")
    seen: set[tuple[int, Held]] = {(0, None)}
    path: list[Operation] = []
    # Depth first, without recursion: each level is what is left to try after the operations in `path`.
    levels = [_steps(operations, 0, None)]
    if not due:
        return [], 0
    while levels:
        step = next(levels[-1], None)
        if step is None:
            levels.pop()
            if path:
                path.pop()
            continue
        operation, done, held = step
        if (done, held) in seen:
            continue
        if len(seen) >= most:
            raise TooHard(f"no order found in {most} configurations of {len(operations)} operations")
        seen.add((done, held))
        path.append(operation)
        if done & due == due:
            return path, len(seen)
        levels.append(_steps(operations, done, held))
    return None, len(seen)


def _steps(operations: list[Operation], done: int, held: Held) -> Iterator[tuple[Operation, int, Held]]:
    """Each operation that can be the next one: called before any of those that are left has returned."""
    first_return = math.inf
    for number, operation in enumerate(operations):
        if operation.called > first_return:
            return
        if done >> number & 1:
            continue
        first_return = min(first_return, operation.returned)
        fits, then = operation.after(held)
        if fits:
            yield operation, done | 1 << number, then


def is_linearizable(history: History) -> bool:
    """Whether there is such an order. TooHard."""
    return order_of(history) is not None


# -- the evidence -----------------------------------------------------------------------------------------------------


def smallest_failure(history: History) -> list[Operation]:
    """A part of a history that is not linearizable, which is not linearizable either, and has nothing to spare.

    Only what is sound is left out, so that the part proves what the whole proves: the end of the history; operations
    that only observe; that a write returned (it then has an unknown outcome); and writes of unknown outcome that
    nothing observes. Where the search for orders gets too long, more is left in than need be.
    """
    search = _Search()
    part = _shortest_prefix(sorted(history, key=lambda operation: operation.called), search)
    size = len(part)
    while size:  # in large pieces first: each that can be left out makes the next search shorter
        for start in range(len(part) - size, -1, -size):
            piece = part[start : start + size]
            less = [operation for operation in part if operation not in piece or not operation.observes_only]
            if len(less) < len(part) and search.fails(less):
                part = less
        size //= 2
    for operation in list(part):
        if not operation.observes_only and operation.outcome != "unknown":
            less = [_pending(other) if other is operation else other for other in part]
            if search.fails(less):
                part = [other for other in less if not _is_irrelevant(other, less)]
    # That a write returned can have been what made an observation needed.
    for operation in [operation for operation in part if operation.observes_only]:
        less = [other for other in part if other is not operation]
        if search.fails(less):
            part = less
    while irrelevant := [operation for operation in part if _is_irrelevant(operation, part)]:
        part = [operation for operation in part if operation not in irrelevant]
    return part


@dataclass
class _Search:
    """What the search for the smallest part may still cost."""

    left: int = MOST_CONFIGURATIONS
    most: int = 10_000
    """Of one of its searches: a part that takes more to judge is no evidence to show."""

    def fails(self, history: History) -> bool:
        """Whether the history is known not to be linearizable."""
        most = min(self.most, self.left)
        try:
            found, tried = _search(history, most)
        except TooHard:
            found, tried = [], most
        self.left -= tried
        return found is None


def _shortest_prefix(history: list[Operation], search: _Search) -> list[Operation]:
    """Up to the first return after which no order is possible; what has not returned by then is pending.

    Each prefix of a history that is linearizable is so too, which allows to halve.
    """
    ends = sorted({operation.returned for operation in history if operation.returned < math.inf})
    first = bisect_left(ends, True, key=lambda end: search.fails(_prefix(history, end)))
    return _prefix(history, ends[first]) if first < len(ends) else history


def _prefix(history: list[Operation], end: float) -> list[Operation]:
    begun = [operation for operation in history if operation.called < end]
    return [
        operation if operation.returned <= end else _pending(operation)
        for operation in begun
        if operation.returned <= end or not operation.observes_only
    ]


def _pending(write: Operation) -> Operation:
    return replace(write, outcome="unknown", returned=math.inf)


def _is_irrelevant(operation: Operation, history: list[Operation]) -> bool:
    """Whether a write of unknown outcome can explain nothing: its value is not seen, and no refusal is to explain."""
    if operation.outcome != "unknown" or any(other.outcome == "conflict" for other in history):
        return False
    if operation.kind == "delete":
        return not any(
            (other.kind == "read" and other.value is None) or (other.kind == "write_if" and other.expected is None)
            for other in history
        )
    return not any(
        (other.kind == "read" and other.value == operation.value)
        or (other.kind == "write_if" and other.expected == operation.value)
        for other in history
    )


def as_text(history: History) -> str:
    """The history, a line for each operation in the order of the calls, times in ms since the first."""
    operations = sorted(history, key=lambda operation: operation.called)
    zero = operations[0].called if operations else 0.0
    width = max((len(operation.who) for operation in operations), default=0)
    return "\n".join(
        f"{operation.who:<{width}}  {_ms(operation.called - zero)} .. {_ms(operation.returned - zero)} ms  {operation}"
        for operation in operations
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:9.3f}" if seconds < math.inf else f"{'?':>9}"
