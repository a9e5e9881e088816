"""The fleet in virtual time: what the protocol promises holds, and where it is broken the monitors say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache import events as ev
from kvcache.phases import Flight, Looking, Pausing, Step
from kvcache.protocol import advance, begin
from kvcache.record import Record
from kvcache.simulation.faults import Workload, parse_faults
from kvcache.simulation.report import Outcome, as_json, summed_up
from kvcache.simulation.simulate import DEWY_V2, OURS, Algorithm, Simulation

SMALL = Workload(nodes=25, hours=0.5, seed=1)
ALL_FAULTS = (
    "upstream-down=0.3, upstream-slow=40@200-400, rate-limit=4@300-700, store-down=0.5@100-200, store-slow=0.1,"
    "store-writes=1, lost=0.05, crash=20, pause=20, crash-leader@300, pause-leader@600"
)


def played(workload: Workload, faults: str = "", algorithm: Algorithm = OURS) -> Outcome:
    run = Simulation(workload, parse_faults(faults), algorithm)
    run.run()
    return summed_up(run)


def broken(outcome: Outcome) -> set[str]:
    return {bound.rule for bound in outcome.bounds if not bound.holds}


# -- the bounds hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        "",
        "upstream-down@600-1200",
        "rate-limit=5@300-1500",
        "crash-leader@300,crash-leader@900",
        "pause-leader@300,pause-leader@900",
        "store-down@600-900",
        "store-down=0.3@600-900",
        "store-slow=3@600-900",
        "store-writes=1",
        "lost=0.05",
        "crash=20",
        "pause=20",
        "upstream-slow=100@600-900,crash=20",
    ],
)
@pytest.mark.parametrize("max_stale", [None, 90.0])
def test_the_bounds_hold(faults: str, max_stale: float | None) -> None:
    outcome = played(replace(SMALL, max_stale=max_stale), faults)
    assert outcome.holds, (outcome.bounds, outcome.facts["examples of violations"])


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.9]), st.sampled_from([0.0, 1.0]))
@settings(max_examples=8, deadline=None)
def test_the_bounds_hold_whatever_the_seed(seed: int, refresh_ahead: float, resolution: float) -> None:
    workload = replace(
        SMALL, nodes=20, hours=0.2, seed=seed, refresh_ahead=refresh_ahead, date_resolution=resolution, clock_offset=1e5
    )
    outcome = played(workload, "crash=10,pause=10,upstream-down=0.2,store-slow=0.5,lost=0.02")
    assert outcome.holds, (outcome.bounds, outcome.facts["examples of violations"])


def test_a_healthy_fleet_of_any_size_calls_once_per_ttl() -> None:
    for nodes in (1, 10, 100):
        outcome = played(replace(SMALL, nodes=nodes))
        assert outcome.holds
        assert 25 <= len(outcome.ledger.calls) <= 30


def test_an_outage_costs_one_call_per_back_off() -> None:
    outcome = played(SMALL, "upstream-down@600-1200")
    assert 5 <= len(outcome.ledger.failed_calls) <= 10
    assert outcome.ledger.without_answer == 0


def test_a_rate_limit_is_met_with_one_call() -> None:
    assert len(played(SMALL, "rate-limit=5@300-1500").ledger.failed_calls) == 1


def test_a_dead_leader_is_replaced_within_lease_and_poll() -> None:
    outcome = played(SMALL, "crash-leader@300,crash-leader@900")
    assert len(outcome.ledger.replaced_in) == 2
    assert len(outcome.ledger.takeovers) == 2


def test_without_the_store_a_node_that_has_an_answer_goes_on_with_it() -> None:
    outcome = played(SMALL, "store-down@600-900")
    assert outcome.ledger.without_answer == 0
    assert all(call.shared for call in outcome.ledger.calls)


def test_without_the_store_and_with_nothing_usable_each_node_calls_once_per_ttl() -> None:
    workload = replace(SMALL, max_stale=90.0)
    alone = [call for call in played(workload, "store-down@600-900").ledger.calls if not call.shared]
    for number in range(workload.nodes):
        times = [call.started for call in alone if call.node.startswith(f"host-{number}:")]
        assert times
        assert all(b - a > workload.ttl * 0.999 for a, b in pairwise(times))


# -- the monitors can fail: broken variants ------------------------------------------------------------------------


def reading(change: Callable[[Record], Record]) -> Algorithm:
    """The real protocol, but `change` is done to every record it reads."""

    def misled(flight: Flight, came: ev.Input, now: object) -> Step:
        if isinstance(came, ev.Found) and isinstance(flight.phase, Looking):
            came = replace(came, record=change(came.record))
        return advance(flight, came, now)  # type: ignore[arg-type]

    return replace(OURS, advance=misled)


def long_locked(record: Record) -> Record:
    return record if record.lock is None else replace(record, lock=replace(record.lock, lease=300.0))


def believing(**numbers: float | None) -> Algorithm:
    """The real protocol, with another policy than the workload says."""
    return replace(OURS, begin=lambda key, policy, held: begin(key, replace(policy, **numbers), held))


def waiting(flight: Flight, came: ev.Input, now: object) -> Step:
    if isinstance(came, ev.Found) and isinstance(flight.phase, Looking) and not flight.waited:
        return Step(replace(flight, phase=Pausing(), waited=1.0), ev.Wait(1.0, 1.0, None))
    return advance(flight, came, now)  # type: ignore[arg-type]


def remembering_the_first() -> Algorithm:
    first: list[ev.Give] = []

    def stuck(flight: Flight, came: ev.Input, now: object) -> Step:
        step = advance(flight, came, now)  # type: ignore[arg-type]
        if isinstance(step.deliver, ev.Give) and not step.deliver.refreshed:
            first.append(step.deliver)
            return step._replace(deliver=first[0])
        return step

    return replace(OURS, advance=stuck)


@pytest.mark.parametrize(
    ("rule", "algorithm", "faults", "max_stale"),
    [
        ("I1", OURS, "store-careless,store-slow=1", None),
        ("I2", OURS, "store-careless,store-slow=1", None),
        ("I3", remembering_the_first(), "", None),
        ("I4", replace(OURS, advance=waiting), "", None),
        ("I5", reading(lambda record: replace(record, lock=None)), "upstream-slow=20", None),
        ("I5", reading(lambda record: replace(record, failure=None)), "upstream-down@600-1200", None),
        ("I5", believing(ttl=20.0), "", None),
        (
            "I6",
            reading(long_locked),
            "crash-leader@300",
            None,
        ),
        ("I7", believing(max_stale=None), "upstream-down@600-1200", 90.0),
        ("6.", believing(ttl=180.0), "", None),
    ],
    ids=lambda value: value if isinstance(value, str) and value else None,
)
def test_a_broken_variant_is_caught(rule: str, algorithm: Algorithm, faults: str, max_stale: float | None) -> None:
    outcome = played(replace(SMALL, max_stale=max_stale), faults, algorithm)
    assert rule in broken(outcome), outcome.bounds


def test_dewy_v2_calls_for_every_node_in_an_outage_and_lets_its_callers_wait() -> None:
    workload = replace(SMALL, hours=0.2)
    ours, v2 = (played(workload, "upstream-down@200-400", algorithm) for algorithm in (OURS, DEWY_V2))
    assert len(v2.ledger.failed_calls) > 20 * len(ours.ledger.failed_calls)
    assert v2.facts["waiting of calls with a request, s"]["p100"] > 10
    assert ours.facts["waiting of calls with a request, s"]["p100"] < 3
    assert sum(v2.ledger.requests.values()) > 5 * sum(ours.ledger.requests.values())


# -- the run repeats, and what is left out changes nothing ------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [OURS, DEWY_V2], ids=lambda algorithm: algorithm.name)
def test_the_same_seed_gives_the_same_run(algorithm: Algorithm) -> None:
    workload = replace(SMALL, nodes=10, hours=0.1)
    runs = [Simulation(workload, parse_faults(ALL_FAULTS), algorithm) for _ in range(2)]
    assert runs[0].run() == runs[1].run()
    first, second = (as_json([summed_up(run)], run) for run in runs)
    assert first == second
    other = Simulation(replace(workload, seed=2), parse_faults(ALL_FAULTS), algorithm)
    assert other.run().calls != runs[0].ledger.calls


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from([fault.strip() for fault in ALL_FAULTS.split(",")]), max_size=4, unique=True),
    st.sampled_from([None, 70.0, 30.0]),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=15, deadline=None)
def test_polls_that_are_left_out_change_nothing(
    seed: int, faults: list[str], max_stale: float | None, refresh_ahead: float
) -> None:
    workload = replace(SMALL, nodes=12, hours=0.2, seed=seed, max_stale=max_stale, refresh_ahead=refresh_ahead)
    wrong = parse_faults(",".join(faults))
    quick = Simulation(workload, wrong)
    every = Simulation(workload, wrong, skip=False)
    assert quick.run() == every.run()


@pytest.mark.parametrize("fault", ["pause=60", "crash=60", "pause-leader@100,crash-leader@300", "store-down@100-400"])
def test_polls_that_are_left_out_change_nothing_when_nodes_fail(fault: str) -> None:
    workload = replace(SMALL, nodes=10, hours=0.2, interval=3.0, max_stale=100.0)
    runs = [Simulation(workload, parse_faults(fault), skip=skip) for skip in (True, False)]
    assert runs[0].run() == runs[1].run()


def test_most_polls_are_left_out() -> None:
    runs = [Simulation(replace(SMALL, interval=1.0), skip=skip) for skip in (True, False)]
    for run in runs:
        run.run()
    assert runs[0]._pushed * 3 < runs[1]._pushed
