"""Every interleaving of small worlds, with the real protocol; and the same with a protocol that was broken."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from kvcache import events as ev
from kvcache import protocol, view
from kvcache.kvs import ANYWAY
from kvcache.simulation import smallworld
from kvcache.simulation.canon import Canon
from kvcache.simulation.explorer import explore
from kvcache.simulation.smallworld import POLICY, Bounds, Contents, Move, make, start

QUICK = Bounds(asks=2, faults=1, pauses=1)
WORLDS = {
    "no fault, three nodes": Bounds(nodes=3, asks=3, faults=0, pauses=1),
    "no fault, two pauses": Bounds(asks=2, faults=0, pauses=2),
    "one fault": QUICK,
    "one fault, max-stale": Bounds(replace(POLICY, max_stale=0.0), asks=2, faults=1, pauses=1, leaps=(70.0,)),
    "one fault, in the background": Bounds(replace(POLICY, background=True), asks=2, faults=1, pauses=1, leaps=(61.0,)),
}
SLOW = ("no fault, three nodes", "no fault, two pauses", "one fault, in the background")
LONG = pytest.mark.soak
LARGER = {
    "two nodes, two faults": Bounds(asks=2, faults=2, pauses=1),
    "two nodes, one fault, two pauses": Bounds(asks=3, faults=1, pauses=2),
    "three nodes, one fault": Bounds(nodes=3, asks=3, faults=1, pauses=1, leaps=(31.0,)),
    "refresh ahead": Bounds(replace(POLICY, refresh_ahead=0.5), asks=3, faults=1, pauses=2, leaps=(31.0, 50.0)),
}


explored = functools.cache(explore)


@pytest.mark.parametrize(
    "bounds", [pytest.param(bounds, id=name, marks=LONG if name in SLOW else []) for name, bounds in WORLDS.items()]
)
def test_no_interleaving_breaks_an_invariant(bounds):
    found = explored(bounds)
    print(found)
    assert not found.violation, str(found)
    assert found.complete
    assert found.states > 1000


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("bounds", LARGER.values(), ids=LARGER.keys())
def test_no_interleaving_breaks_an_invariant_in_larger_worlds(bounds):
    found = explore(bounds, states=300_000, recover_every=500)
    print(found)
    assert not found.violation, str(found)
    assert found.states > 100_000


def test_every_kind_of_move_is_made():
    found = explored(QUICK)
    faults = {f"go {fault}" for fault in (*smallworld.WRITE_FAULTS, "store down")}
    spoilt = {f"store {how}" for how in smallworld.SPOILT}
    pauses = {"pause until the next timer", "pause 31 s", "pause 70 s"}
    assert set(found.moves) == faults | spoilt | pauses | {
        "ask",
        "go",
        "load ok",
        "load fails",
        "crash",
        "arrives late",
    }


def test_the_count_is_always_the_same():
    """Names, hours and the order of sets leave no mark on a state's fingerprint."""
    first, second = (explore(Bounds(asks=2, faults=0, pauses=1), recover_every=0) for _ in range(2))
    assert (first.states, first.transitions) == (second.states, second.transitions)


def test_states_that_differ_in_names_and_places_are_the_same():
    bounds, fingerprint = Bounds(), Canon().fingerprint
    root = start(bounds)
    one, other = (make(make(root, Move("ask", who), bounds), Move("go", who), bounds) for who in (0, 1))
    assert fingerprint(one) == fingerprint(other)
    later = make(replace(root, time=1e4), Move("ask", 0), bounds)
    assert fingerprint(make(later, Move("go", 0), bounds)) == fingerprint(one)
    assert fingerprint(one) != fingerprint(make(one, Move("go", 0), bounds))
    assert fingerprint(one) != fingerprint(replace(one, faults=0))


# -- the protocol, broken --------------------------------------------------------------------------------------------


def publish_without_condition(monkeypatch):
    send = protocol._send

    def broken(flight, publishing):
        step = send(flight, publishing)
        return step._replace(effect=replace(step.effect, match=ANYWAY))

    monkeypatch.setattr(protocol, "_send", broken)


def renew_without_condition(monkeypatch):
    renew = protocol._renew

    def broken(flight, loading, now):
        step = renew(flight, loading, now)
        return step._replace(effect=replace(step.effect, match=ANYWAY)) if isinstance(step.effect, ev.Write) else step

    monkeypatch.setattr(protocol, "_renew", broken)


def take_a_refused_claim_for_won(monkeypatch):
    claimed = protocol._claimed

    def broken(flight, claiming, came, now):
        came = ev.Landed(Contents("", claiming.record)) if isinstance(came, ev.Refused) else came
        return claimed(flight, claiming, came, now)

    monkeypatch.setattr(protocol, "_claimed", broken)


def take_an_unknown_claim_for_won(monkeypatch):
    claimed = protocol._claimed

    def broken(flight, claiming, came, now):
        came = ev.Landed(Contents("", claiming.record)) if isinstance(came, ev.Unknown) else came
        return claimed(flight, claiming, came, now)

    monkeypatch.setattr(protocol, "_claimed", broken)


def no_nonce(monkeypatch):
    named = smallworld.fresh
    monkeypatch.setattr(smallworld, "fresh", lambda mark, state: "#" if mark == "#" else named(mark, state))


def ignore_the_lease(monkeypatch):
    monkeypatch.setattr(view, "lock_left", lambda *_: 0.0)


def drop_the_back_off(monkeypatch):
    monkeypatch.setattr(view, "backoff_left", lambda *_: 0.0)


def believe_in_any_age(monkeypatch):
    monkeypatch.setattr(view.Held, "usable", lambda held, policy, age: held.answer is not None)


def take_the_older_answer(monkeypatch):
    def broken(policy, held, record, *rest):
        return view.absorb(policy, held if record.answer is None else view.NOTHING, record, *rest)

    monkeypatch.setattr(protocol, "absorb", broken)


def never_take_over(monkeypatch):
    monkeypatch.setattr(view, "lock_left", lambda policy, held, lock, now: 1.0 if lock else 0.0)


def give_up_on_garbage(monkeypatch):
    looked = protocol._looked

    def broken(flight, came, now):
        came = ev.ReadFailed("garbage") if isinstance(came, ev.Unreadable) else came
        return looked(flight, came, now)

    monkeypatch.setattr(protocol, "_looked", broken)


BROKEN = [
    (publish_without_condition, QUICK, "I2", 12),
    (renew_without_condition, QUICK, "I1/I2", 12),
    (take_a_refused_claim_for_won, replace(QUICK, faults=0, pauses=0), "I1", 6),
    (take_an_unknown_claim_for_won, replace(QUICK, asks=1, pauses=0), "I1", 3),
    (no_nonce, replace(QUICK, faults=0, pauses=0), "I1", 7),
    (ignore_the_lease, replace(QUICK, faults=0, pauses=0), "I5", 6),
    (drop_the_back_off, replace(QUICK, pauses=0), "I5", 8),
    (believe_in_any_age, replace(QUICK, policy=replace(POLICY, max_stale=0.0)), "I7", 12),
    (take_the_older_answer, Bounds(nodes=1, asks=3, faults=2, pauses=2, leaps=(70.0,)), "I3", 13),
    (never_take_over, replace(QUICK, pauses=0), "I6/I8", 8),
    (give_up_on_garbage, replace(QUICK, asks=1, pauses=0), "I6/I8", 8),
]


@pytest.mark.parametrize(
    ("broken", "bounds", "invariant", "longest"),
    [pytest.param(*b, id=b[0].__name__, marks=LONG if b[0] is take_the_older_answer else []) for b in BROKEN],
)
def test_a_broken_protocol_is_found_broken(monkeypatch, broken, bounds, invariant, longest):
    broken(monkeypatch)
    found = explore(bounds, recover_every=1 if invariant == "I6/I8" else 0)
    print(found)
    assert found.violation.startswith(invariant + ":"), str(found)
    assert len(found.trace) <= longest
