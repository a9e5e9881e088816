"""The checker: against orders found by brute force, known histories, and what it prints."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.conformance.history import judge
from kvcache.conformance.linearizability import (
    Operation,
    TooHard,
    as_text,
    is_linearizable,
    order_of,
    smallest_failure,
)


def op(who, kind, called, returned, value=None, expected=None, outcome="ok"):
    return Operation(who, kind, called, returned, outcome, value, expected)


def is_order(order) -> bool:
    """Whether an order explains every answer and never puts a call after a return that came first."""
    held = None
    for number, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[number + 1 :]):
            return False
        fits, held = operation.after(held)
        if not fits:
            return False
    return True


def by_brute_force(history) -> bool:
    """Every subset of the operations of unknown outcome, in every order."""
    certain = [operation for operation in history if operation.outcome != "unknown"]
    unknown = [operation for operation in history if operation.outcome == "unknown"]
    return any(
        is_order(order)
        for size in range(len(unknown) + 1)
        for some in itertools.combinations(unknown, size)
        for order in itertools.permutations([*certain, *some])
    )


@st.composite
def histories(draw, most=6):
    """Small ones that are wrong as often as right: few values, times that overlap."""
    values = ["a", "b", "c"]
    history = []
    for number in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["read", "write", "write_if", "delete"]))
        called = draw(st.integers(0, 12))
        outcomes = {"read": ["ok"], "write_if": ["ok", "conflict", "unknown"]}.get(kind, ["ok", "ok", "unknown"])
        outcome = draw(st.sampled_from(outcomes))
        returned = math.inf if outcome == "unknown" else called + draw(st.integers(1, 6)) + 0.5
        value = {
            "read": draw(st.sampled_from([None, *values])),
            "delete": None,
        }.get(kind, draw(st.sampled_from(values)))
        expected = draw(st.sampled_from([None, *values])) if kind == "write_if" else None
        history.append(op(f"c{number}", kind, float(called), returned, value, expected, outcome))
    return history


@settings(max_examples=400)
@given(histories())
def test_it_agrees_with_brute_force(history):
    order = order_of(history)
    assert (order is not None) == by_brute_force(history)
    if order is not None:
        assert is_order(order)
        assert all(operation in order for operation in history if operation.outcome != "unknown")


@settings(max_examples=150)
@given(histories(most=5))
def test_the_smallest_failure_fails_too(history):
    if is_linearizable(history):
        return
    part = smallest_failure(history)
    assert not by_brute_force(part)
    assert len(part) <= len(history)
    for operation in part:
        if operation.observes_only:
            assert by_brute_force([other for other in part if other is not operation]), "one more could be left out"


STALE_READ = [
    op("a", "write", 0, 1, "x"),
    op("b", "write", 2, 3, "y"),
    op("c", "read", 4, 5, "x"),
]
LOST_UPDATE = [
    op("a", "write", 0, 1, "x"),
    op("b", "write_if", 2, 5, "y", "x"),
    op("c", "write_if", 3, 4, "z", "x"),
]
TWO_CREATORS = [op("a", "write_if", 0, 3, "x"), op("b", "write_if", 1, 2, "y")]
BACK_AND_FORTH = [
    op("a", "write", 0, 10, "x"),
    op("b", "read", 1, 2, "x"),
    op("c", "read", 3, 4, None),
]
REFUSED_FOR_NOTHING = [op("a", "write", 0, 1, "x"), op("a", "write_if", 2, 3, "y", "x", outcome="conflict")]
DELETED_AND_THERE = [op("a", "write", 0, 1, "x"), op("a", "delete", 2, 3), op("b", "read", 4, 5, "x")]
NEVER_WRITTEN = [op("a", "read", 0, 1, "x")]
BAD = [
    STALE_READ,
    LOST_UPDATE,
    TWO_CREATORS,
    BACK_AND_FORTH,
    REFUSED_FOR_NOTHING,
    DELETED_AND_THERE,
    NEVER_WRITTEN,
]


@pytest.mark.parametrize("history", BAD)
def test_what_cannot_have_happened(history):
    assert not is_linearizable(history)
    assert smallest_failure(history)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [op("a", "read", 0, 1, None)],
        # a write that has not returned may be seen, and need not be
        [op("a", "write", 0, 10, "x"), op("b", "read", 1, 2, None), op("c", "read", 3, 4, "x")],
        # an answer was lost: it landed, late; or never
        [
            op("a", "write", 0, math.inf, "x", outcome="unknown"),
            op("b", "read", 1, 2, None),
            op("b", "read", 3, 4, "x"),
        ],
        [op("a", "write", 0, math.inf, "x", outcome="unknown"), op("b", "read", 1, 2, None)],
        # refused, since the other was first although it returned later
        [op("a", "write_if", 0, 9, "x"), op("b", "write_if", 1, 2, "y", outcome="conflict")],
        [op("a", "write", 0, 1, "x"), op("a", "delete", 2, 9), op("b", "write_if", 3, 4, "y")],
    ],
)
def test_what_can_have_happened(history):
    order = order_of(history)
    assert order is not None
    assert is_order(order)


def test_the_evidence_is_small_and_reads_well():
    noise = [op(f"n{n}", "read", 0.0001 * n, 0.0001 * n + 0.00005, None) for n in range(1, 9)]
    later = [op("later", "write", 50 + n, 51 + n, f"later {n}") for n in range(20)]
    part = smallest_failure([*noise, *[op("p", "write", 0.5, 0.6, "first")], *_moved(STALE_READ), *later])
    assert [operation.kind for operation in part] == ["write", "write", "read"]
    assert as_text(part).splitlines()[-1].split(" ms  ")[1] == "read -> x"
    assert "c " in as_text(part)


def _moved(history, by=1.0):
    return [Operation(o.who, o.kind, o.called + by, o.returned + by, o.outcome, o.value, o.expected) for o in history]


def test_a_write_whose_reply_does_not_matter_becomes_one_of_unknown_outcome():
    part = smallest_failure(BACK_AND_FORTH)
    assert [(operation.kind, operation.outcome) for operation in part] == [
        ("write", "unknown"),
        ("read", "ok"),
        ("read", "ok"),
    ]


def test_a_version_stands_for_one_value_and_a_value_for_one_version():
    conditional = [op("a", "write_if", 0, 1, "x")]
    assert judge(conditional, [("x", "1"), ("y", "2"), ("x", "1")]) == ""
    assert "stood for 'x' and for 'y'" in judge([], [("x", "1"), ("y", "1")])
    assert "under the versions '1' and '2'" in judge(conditional, [("x", "1"), ("x", "2")])
    assert judge([], [("x", "1"), ("x", "2")]) == ""


def test_the_evidence_counts():
    assert judge(LOST_UPDATE, []).startswith("3 of 3 operations on one key")
    assert judge(STALE_READ[:2], []) == ""


def test_a_long_history_is_quick_and_a_hard_one_is_given_up():
    def overlapping(clients, length):
        return [
            op(f"c{client}", "write", turn * clients + client, (turn + 1) * clients + client - 0.5, f"{client} {turn}")
            for turn in range(length)
            for client in range(clients)
        ]

    assert is_linearizable(overlapping(6, 200))
    hopeless = [*overlapping(30, 1), op("r", "read", 0, 100, "never")]
    with pytest.raises(TooHard):
        order_of(hopeless, most=5000)
