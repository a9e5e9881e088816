"""I6 and I8: from wherever the world has got to, one node alone gets an answer and leaves a good record."""

from __future__ import annotations

from dataclasses import replace

from kvcache import events as ev
from kvcache.record import Record
from kvcache.simulation.monitors import Violation
from kvcache.simulation.smallworld import MONO_ORIGIN, Bounds, Move, Node, State, make
from kvcache.view import NOTHING

POLLS = 6.0
"""Seconds that a follower's last poll, and the pause asked for by a throttling store, may add."""


def judge_recovery(state: State, bounds: Bounds) -> float:
    """Each node in turn goes on alone: the others are dead, and nothing is on its way any more.

    Returns the seconds that the slowest of them needed until its callers had a fresh answer and a good record stood.
    """
    return max(_alone(state, who, bounds) for who in range(len(state.nodes)))


def _alone(state: State, who: int, bounds: Bounds) -> float:
    nodes = tuple(node if i == who else Node(bounds.policy) for i, node in enumerate(state.nodes))
    began = state.time
    state = replace(state, nodes=nodes, limbo=(), faults=0, pauses=0)
    limit = _held_up(state, bounds) + POLLS
    while not _recovered(state, who, bounds):
        state = _next(state, who, bounds)
        if state.time - began > limit:
            raise Violation(f"I6/I8: node {who} alone has no good answer after {state.time - began:g} s")
    return state.time - began


def _next(state: State, who: int, bounds: Bounds) -> State:
    """The only thing that node `who` can do; where that is to wait, the time for it has passed."""
    node = state.nodes[who]
    if node.step is None:
        time = max(state.time, min(node.held.look_at, state.mono + bounds.policy.ttl) - MONO_ORIGIN)
        return make(replace(state, time=time, asks=1), Move("ask", who), bounds)
    if isinstance(node.step.effect, ev.Wait):
        return make(replace(state, time=max(state.time, node.due - MONO_ORIGIN)), Move("go", who), bounds)
    if isinstance(node.step.effect, ev.StartLoad | ev.AwaitLoad) and state.mono < node.due:
        return make(state, Move("load", who, "ok"), bounds)
    return make(state, Move("go", who), bounds)


def _recovered(state: State, who: int, bounds: Bounds) -> bool:
    record, node = state.cell.record, state.nodes[who]
    if not isinstance(record, Record) or record.answer is None or record.lock is not None or node.step is not None:
        return False
    return node.held.answer is not None and state.store_time - node.held.as_of < bounds.policy.ttl


def _held_up(state: State, bounds: Bounds) -> float:
    """How long the node may have to wait: for a dead leader's lease, a back-off, and its own next look."""
    policy, record = bounds.policy, state.cell.record
    longest = policy.ttl + policy.spread  # what is in hand may be fresh, and is not looked after before that
    if isinstance(record, Record):
        longest += policy.lease if record.lock is not None else 0.0
        longest += max(0.0, record.failure.retry_at - state.store_time) if record.failure is not None else 0.0
    own = max((node.held.look_at - state.mono for node in state.nodes if node.held is not NOTHING), default=0.0)
    return longest + max(own, 0.0)
