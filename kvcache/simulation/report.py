"""What a run came to, against the bounds of the protocol: as JSON, as text, drawn."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvcache.simulation.ledger import AGE_BIN, SLOTS, WAIT_BIN, Ledger
from kvcache.simulation.simulate import Simulation

PERCENTILES = (50, 90, 99, 99.9, 100)
RULES = {
    "I1": "writes that landed although their condition did not hold",
    "I2": "changes of the record by a node without the lock",
    "I3": "answers older than one that the same process has given",
    "I4": "waits although a usable answer was in hand",
    "I5": "claims on a live lock, on a fresh answer, or inside a back-off",
    "I7": "answers given beyond max-stale",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound of the protocol: what was measured may not exceed `most`."""

    rule: str
    what: str
    measured: float
    most: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.most


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, summed up."""

    name: str
    facts: dict[str, Any]
    bounds: tuple[Bound, ...]
    ledger: Ledger

    @property
    def holds(self) -> bool:
        return all(bound.holds for bound in self.bounds)


def summed_up(run: Simulation) -> Outcome:
    """What a run that is over came to."""
    ledger, workload = run.ledger, run.workload
    shared = sum(call.shared for call in ledger.calls)
    facts = {
        "answers given": sum(ledger.ages.values()),
        "answers from hand": ledger.from_hand,
        "calls without an answer": ledger.without_answer,
        "upstream calls": {"shared": shared, "by one node alone": len(ledger.calls) - shared, **_failed(ledger)},
        "upstream calls per ttl": round(len(ledger.calls) * workload.ttl / workload.seconds, 3),
        "store requests": dict(sorted(ledger.requests.items())),
        "store requests per node and ttl": round(
            sum(ledger.requests.values()) * workload.ttl / workload.seconds / workload.nodes, 3
        ),
        "store's answers to writes": dict(sorted(ledger.replies.items())),
        "age of answers, s": _percentiles(ledger.ages, AGE_BIN),
        "waiting of calls with a request, s": _percentiles(ledger.waits, WAIT_BIN),
        "faults survived": dict(sorted(ledger.survived.items())),
        "leases lost": len(ledger.takeovers),
        "events": dict(sorted(ledger.events.items())),
        "clock error allowed, s": round(ledger.tolerance, 3),
        "examples of violations": ledger.examples,
    }
    return Outcome(run.algorithm.name, facts, _bounds(run), ledger)


def _failed(ledger: Ledger) -> dict[str, int]:
    return {"shared and failed": len(ledger.failed_calls)}


def _bounds(run: Simulation) -> tuple[Bound, ...]:
    ledger, workload = run.ledger, run.workload
    bounds = [Bound(rule, what, ledger.violations[rule], 0) for rule, what in RULES.items()]
    bounds.append(
        Bound("I5", "shared upstream calls in one ttl, less leases lost and calls failed in it", _crowd(run), 1)
    )
    spread, error = workload.ttl / 10, ledger.tolerance
    if ledger.replaced_in:
        most = workload.lease + workload.interval + spread + error
        bounds.append(Bound("I6", "seconds until a dead leader was replaced", max(ledger.replaced_in), most))
    if not run.faults and ledger.ages:
        most = workload.ttl + 2 * spread + workload.interval + error + 10 * workload.upstream_latency
        bounds.append(Bound("6.", "age of the oldest answer given, s", max(ledger.ages) * AGE_BIN, most))
    return tuple(bounds)


def _crowd(run: Simulation) -> int:
    """The most shared calls within one ttl of one another, less what the protocol allows for."""
    ledger = run.ledger
    window = run.workload.ttl * (1 - run.workload.refresh_ahead) - ledger.tolerance
    # A node calls a little after it has taken a lock over, and the leader that lost it may still call after that.
    before = 2 * run.workload.request_timeout
    started = sorted(call.started for call in ledger.calls if call.shared)

    def within(times: Sequence[float], start: float, since: float = 0.0) -> int:
        return bisect_left(times, start + window) - bisect_left(times, start - since)

    failed, lost = sorted(ledger.failed_calls), sorted(ledger.takeovers)
    return max((within(started, t) - within(failed, t) - within(lost, t, before) for t in started), default=0)


def _percentiles(bins: Counter[int], width: float) -> dict[str, float]:
    total, seen, found = sum(bins.values()), 0, {}
    wanted = list(PERCENTILES)
    for number in sorted(bins):
        seen += bins[number]
        while wanted and seen * 100 >= wanted[0] * total:
            found[f"p{wanted.pop(0):g}"] = round(number * width, 3)
    return found


def as_json(outcomes: Sequence[Outcome], run: Simulation) -> dict[str, Any]:
    """Everything that repeats the run, and everything that came of it. The same for the same seed."""
    return {
        "workload": asdict(run.workload),
        "faults": [
            {"name": fault.name, "value": fault.value, "start": fault.start, "end": min(fault.end, run.end)}
            for fault in run.faults
        ],
        "runs": [
            {
                "algorithm": outcome.name,
                **outcome.facts,
                "bounds": [{**asdict(bound), "holds": bound.holds} for bound in outcome.bounds],
                "holds": outcome.holds,
            }
            for outcome in outcomes
        ],
    }


def as_text(outcome: Outcome) -> str:
    lines = [f"{outcome.name}:"]
    for name, fact in outcome.facts.items():
        if fact in ({}, []):
            continue
        shown = "  ".join(f"{key} {number}" for key, number in fact.items()) if isinstance(fact, dict) else fact
        if isinstance(fact, list):
            shown = "".join(f"\n      {line}" for line in fact)
        lines.append(f"  {name + ':':<38} {shown}".rstrip())
    for bound in outcome.bounds:
        verdict = "holds " if bound.holds else "BROKEN"
        lines.append(f"  {verdict} {bound.rule:<3} {bound.what}: {bound.measured:g} (at most {bound.most:g})")
    return "\n".join(lines)


def need_matplotlib() -> None:
    """ValueError, in one line, where nothing can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401 - only whether it is there
    except ImportError:
        raise ValueError("--plot needs matplotlib: pip install 'kvcache-dewy[plot]'") from None


def plot(outcomes: Sequence[Outcome], run: Simulation, file: Path) -> None:
    """Draws all runs over one another: upstream calls, store requests, the oldest answer given. PNG."""
    from matplotlib.figure import Figure

    minutes = [run.end / 60 * (i + 0.5) / SLOTS for i in range(SLOTS)]
    figure = Figure(figsize=(8, 6), layout="constrained")
    calls, requests, ages = figure.subplots(3, 1, sharex=True)
    for outcome in outcomes:
        ledger = outcome.ledger
        so_far, steps = 0, []
        counted = Counter(ledger.slot(call.started) for call in ledger.calls)
        for slot in range(SLOTS):
            so_far += counted[slot]
            steps.append(so_far)
        per_second = [number * SLOTS / run.end for number in ledger.request_slots]
        calls.plot(minutes, steps, label=f"{outcome.name}: {so_far}")
        requests.plot(minutes, per_second, label=outcome.name)
        ages.plot(minutes, ledger.worst, label=outcome.name)
    calls.set_ylabel("upstream calls so far")
    requests.set_ylabel("store requests / s")
    ages.set_ylabel("oldest answer given, s")
    ages.axhline(run.workload.ttl, color="grey", linestyle=":", linewidth=1, label="ttl")
    ages.set_xlabel("minutes")
    calls.set_title(f"{run.workload.nodes} nodes, ttl {run.workload.ttl:g} s, seed {run.workload.seed}")
    if len(outcomes) > 1:
        calls.set_yscale("log")
        requests.set_yscale("symlog")
        requests.set_ylim(bottom=0)
    for axes in (calls, requests, ages):
        for fault in run.faults:
            if fault.start == fault.end:
                axes.axvline(fault.start / 60, color="tab:red", linestyle="--", linewidth=1)
            elif fault.end < run.end:
                axes.axvspan(fault.start / 60, fault.end / 60, color="tab:red", alpha=0.12)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize="small")
    figure.savefig(file, dpi=80, format="png", metadata={"Software": None})
