"""Thousands of nodes over one faulty store and one upstream, in virtual time, from one seed. The real protocol.

Every node asks for the same key again and again, with a phase of its own, as a poller does. What is in hand costs
nothing, not even an event: polls that are sure to be answered from it are counted when something happens to the node.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from kvcache import events as ev
from kvcache import protocol, view
from kvcache.clock import Clock, Now, StoreClock
from kvcache.events import Give, Input, Outcome
from kvcache.phases import Flight, Loading, Renewing
from kvcache.simulation import dewy_v2
from kvcache.simulation.faults import Fault, Workload
from kvcache.simulation.ledger import EPOCH, Call, Ledger
from kvcache.simulation.servers import FaultyStore, Upstream
from kvcache.view import NOTHING, Held, Policy

KEY = "simulated"
MARGIN = 1e-6
"""Seconds by which a poll has to lie before the end of what is in hand, to be taken as answered from it."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What the nodes run. `local_clock`: it goes by the host's wall clock instead of store time."""

    name: str
    begin: Callable[[str, Policy, Held], Any]
    advance: Callable[[Any, Input, Now], Any]
    hit: Callable[[Policy, Held, float], Outcome | None]
    meanwhile: Callable[[Any, Now], Outcome | None]
    is_shared: Callable[[Any], bool]
    local_clock: bool = False


def _is_shared(flight: Flight) -> bool:
    return isinstance(flight.phase, Loading) and flight.phase.claim is not None


def _renews(step: Any) -> bool:
    return isinstance(step.flight.phase, Renewing)


def _is_shared_v2(flight: dewy_v2.Flight) -> bool:
    return flight.phase == "loading"


OURS = Algorithm("kvcache", protocol.begin, protocol.advance, view.hit, protocol.meanwhile, _is_shared)
DEWY_V2 = Algorithm(
    "dewy-v2", dewy_v2.begin, dewy_v2.advance, dewy_v2.hit, dewy_v2.meanwhile, _is_shared_v2, local_clock=True
)


class HostClock(Clock):
    """A host's clocks: monotonic with its own origin and rate, and a wall clock that is wrong by an offset."""

    __slots__ = ("offset", "origin", "rate", "run")

    def __init__(self, run: Simulation, origin: float, offset: float, rate: float) -> None:
        self.run, self.origin, self.offset, self.rate = run, origin, offset, rate

    def monotonic(self) -> float:
        return self.origin + self.run.time * self.rate

    def wall(self) -> float:
        return EPOCH + self.offset + self.run.time * self.rate


class Node:
    """One host and the process that runs on it. `token` names the effect whose outcome it waits for."""

    __slots__ = (
        "asked_at", "clock", "counted", "held", "last_given", "load", "loaded", "luck", "number", "paused_until",
        "period", "phase", "policy", "process", "step", "time", "token", "waiting",
    )  # fmt: skip

    def __init__(self, number: int, clock: HostClock, phase: float, period: float, luck: float) -> None:
        self.number, self.clock, self.phase, self.period, self.luck = number, clock, phase, period, luck
        self.process = self.token = self.load = self.counted = 0
        self.waiting: list[float] = []

    def start(self, policy: Policy) -> None:
        """A new process, which knows nothing."""
        self.process += 1
        self.token += 1  # what comes for the old process comes to nobody
        self.policy = replace(policy, node=f"host-{self.number}:{self.process}")
        self.time = StoreClock(self.clock)
        self.held: Held = NOTHING
        self.step: Any = None
        self.loaded: Input | None = None
        self.last_given = -1
        self.asked_at = 0.0
        self.paused_until = 0.0
        self.waiting.clear()

    def poll_at(self, k: int) -> float:
        return self.phase + k * self.period

    def first_poll(self, time: float) -> int:
        """The number of the first poll that is not before `time`."""
        k = max(0, math.ceil((time - self.phase) / self.period))
        return k if self.poll_at(k) >= time else k + 1


class Simulation:
    """One run. The same arguments give the same run, and the same ledger, to the last bit.

    `skip` False carries out every single poll; it changes nothing but the time that it takes.
    """

    def __init__(
        self, workload: Workload, faults: Iterable[Fault] = (), algorithm: Algorithm = OURS, *, skip: bool = True
    ) -> None:
        self.workload, self.faults, self.algorithm, self.skip = workload, tuple(faults), algorithm, skip
        self.time = 0.0
        self.end = workload.seconds
        self.chance = random.Random(workload.seed)
        self.ledger = Ledger(workload)
        self.store = FaultyStore(workload, self.faults, self.chance, self.ledger)
        self.upstream = Upstream(workload, self.faults, self.chance)
        self._policy = Policy(
            ttl=workload.ttl,
            max_stale=workload.max_stale,
            lease=workload.lease,
            refresh_ahead=workload.refresh_ahead,
            load_timeout=10 * workload.lease,
        )
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._nonces = 0
        self._leader_faults: list[str] = []
        self.nodes = [self._node(i) for i in range(workload.nodes)]

    def _node(self, number: int) -> Node:
        draw, workload = self.chance, self.workload
        rate = 1 + draw.uniform(-workload.clock_rate, workload.clock_rate)
        clock = HostClock(self, draw.uniform(0, 1e6), draw.gauss(0, workload.clock_offset), rate)
        clock_period = workload.interval / rate
        return Node(number, clock, draw.random() * clock_period, clock_period, draw.random())

    def run(self) -> Ledger:
        for node in self.nodes:
            self._start(node)
        for fault in self.faults:
            self._plan(fault)
        heap, end = self._heap, self.end
        while heap and heap[0][0] < end:
            self.time, _, act, arguments = heapq.heappop(heap)
            act(*arguments)
        self.time = end
        for node in self.nodes:
            self._count(node, node.first_poll(end))
        return self.ledger

    def _at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        if time < self.end:
            self._pushed += 1
            heapq.heappush(self._heap, (time, self._pushed, act, arguments))

    # -- polls -----------------------------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        node.start(self._policy)
        node.counted = node.first_poll(self.time)
        self._at(node.poll_at(node.counted), self._poll, node, node.counted, node.process)

    def _poll(self, node: Node, k: int, process: int) -> None:
        if node.process != process:
            return
        self._count(node, k)
        node.counted = max(node.counted, k + 1)
        if self.time >= node.paused_until:
            self._ask(node)
        k += 1
        if self.skip and node.step is None:
            k = max(k, node.first_poll(min(self._in_hand_until(node) - MARGIN, self.end)))
        self._at(node.poll_at(k), self._poll, node, k, process)

    def _in_hand_until(self, node: Node) -> float:
        """The true time up to which `hit` is sure to give what it gives now."""
        held, policy = node.held, node.policy
        until = held.look_at
        if held.answer is not None:
            refused = held.failure is not None and held.failure.authoritative
            limit = policy.ttl if refused else math.inf if policy.max_stale is None else policy.max_stale
            until = min(until, held.then + max(policy.ttl, limit) - held.age_then)
        return max(self.time, (until - node.clock.origin) / node.clock.rate)

    def _count(self, node: Node, upto: int) -> None:
        """Polls before number `upto` that were answered from what is in hand without an event of their own."""
        if node.counted >= upto:
            return
        if node.held.answer is None:
            self.ledger.without_answer += upto - node.counted
        else:
            value, served = node.held.answer.value, self.ledger.served
            for k in range(node.counted, upto):
                served(node.poll_at(k), value)
        self.ledger.from_hand += upto - node.counted
        node.counted = upto

    def _ask(self, node: Node) -> None:
        if node.step is not None:
            outcome = self.algorithm.meanwhile(node.step.flight, self._now(node, draw=False))
            if outcome is None:
                node.waiting.append(self.time)
            else:
                self._give(node, outcome)
                self.ledger.waited(0.0)
            return
        outcome = self.algorithm.hit(node.policy, node.held, node.clock.monotonic())
        if outcome is not None:
            self._give(node, outcome)
            self.ledger.from_hand += 1
            return
        node.waiting.append(self.time)
        self._next(node, self.algorithm.begin(KEY, node.policy, node.held))

    def _is_usable(self, node: Node) -> bool:
        """Could the answer that the node had in hand when its flight began be given now, beyond doubt?"""
        answer, limit = node.held.answer, self.workload.max_stale
        if answer is None:
            return False
        age = self.time - self.ledger.born[answer.value]
        return limit is None or age < max(limit, self.workload.ttl) - self.ledger.tolerance

    def _give(self, node: Node, outcome: Outcome) -> None:
        if not isinstance(outcome, Give):
            self.ledger.without_answer += 1
            return
        value = outcome.answer.value
        if value < node.last_given:
            self.ledger.violated("I3", self.time, f"{node.policy.node} gave {node.last_given}, and now {value}")
        node.last_given = value
        self.ledger.served(self.time, value)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _now(self, node: Node, *, draw: bool = True) -> Now:
        mono = node.clock.monotonic()
        store = node.clock.wall() if self.algorithm.local_clock else node.time.at(mono)
        if not draw:
            return Now(store, mono, 0.0, "")
        self._nonces += 1
        return Now(store, mono, self.chance.random(), f"{self._nonces:x}")

    def _next(self, node: Node, step: Any) -> None:
        node.step = step
        node.token += 1
        for event in step.told:
            self.ledger.events[type(event).__name__] += 1
        if step.deliver is not None:
            for asked in node.waiting:
                self._give(node, step.deliver)
                self.ledger.waited(self.time - asked)
            node.waiting.clear()
        match step.effect:
            case ev.Read():
                node.asked_at = node.clock.monotonic()
                self._request(node, step.effect, "read")
            case ev.Stop():
                node.held, node.step = step.flight.held, None
                node.load += 1
            case ev.Write(record, _):
                kind = "publish" if record.lock is None else "renew" if _renews(step) else "claim"
                self._request(node, step.effect, kind)
            case ev.Wait(seconds, _, _):
                if node.waiting and self._is_usable(node):
                    self.ledger.violated("I4", self.time, f"{node.policy.node} waits with a usable answer in hand")
                self._at(self.time + seconds / node.clock.rate, self._came, node, node.token, ev.Elapsed())
            case ev.StartLoad(_, _, until):
                self._call(node, self.algorithm.is_shared(step.flight))
                self._await(node, until)
            case ev.AwaitLoad(until):
                if node.loaded is None:
                    self._await(node, until)
                else:
                    self._at(self.time, self._came, node, node.token, node.loaded)
            case ev.Recall():
                self._at(self.time, self._came, node, node.token, ev.Recalled(None))

    def _came(self, node: Node, token: int, came: Input, date: float | None = None, replied: float = 0.0) -> None:
        """`came` came of the effect `token`.

        `date` is the store's, of a reply that left it at `replied`; 0.0 where the node slept in between.
        """
        if node.token != token:
            return
        if self.time < node.paused_until:
            self._at(node.paused_until, self._came, node, token, came, date)
            return
        if date is not None:
            node.time.observe(date, node.asked_at)
            if replied:
                self.ledger.lag = max(self.ledger.lag, self.time - replied)
        self._next(node, self.algorithm.advance(node.step.flight, came, self._now(node)))

    # -- requests to the store ---------------------------------------------------------------------------------------

    def _request(self, node: Node, effect: ev.Read | ev.Write, kind: str) -> None:
        ledger, store, now = self.ledger, self.store, self.time
        ledger.requests[kind] += 1
        ledger.request_slots[ledger.slot(now)] += 1
        there, back = store.travel(now)
        if store.is_down(now, node.luck):
            ledger.survived["store unreachable"] += 1
            self._at(now + there + back, self._came, node, node.token, _no_reply(effect, "connection refused"))
            return
        lost = store.loses(now)
        late = there + back > self.workload.request_timeout
        if lost or late:
            ledger.survived[f"{lost} lost" if lost else "time-out"] += 1
            at = now + self.workload.request_timeout
            self._at(at, self._came, node, node.token, _no_reply(effect, "time-out"))
        if lost != "request":
            # A request that its client has given up arrives all the same: a write may land long after the time-out.
            reply_in = math.inf if lost or late else back
            self._at(now + there, self._arrive, node, node.token, effect, node.policy.node, now, reply_in)

    def _arrive(
        self, node: Node, token: int, effect: ev.Read | ev.Write, by: str, sent_at: float, reply_in: float
    ) -> None:
        now = self.time
        if isinstance(effect, ev.Read):
            if reply_in < math.inf:
                self._at(now + reply_in, self._came, node, token, self.store.read(), self.store.date(now), now)
            return
        came = self.store.write(effect.record, effect.match, time=now, sent_at=sent_at, by=by)
        self.ledger.replies[type(came).__name__] += 1
        if reply_in < math.inf:
            self._at(now + reply_in, self._came, node, token, came)

    # -- calls of the upstream ---------------------------------------------------------------------------------------

    def _call(self, node: Node, shared: bool) -> None:
        node.load += 1
        node.loaded = None
        seconds, failure = self.upstream.call(self.time)
        self.ledger.calls.append(Call(self.time, node.policy.node, shared))
        self._at(self.time + seconds, self._answered, node, node.process, node.load, failure, shared)
        if shared and self._leader_faults:
            act = self._crash if self._leader_faults.pop() == "crash-leader" else self._pause
            self._at(self.time + seconds / 2, act, node, 2 * self.workload.lease)

    def _answered(self, node: Node, process: int, load: int, failure: ev.LoadFailed | None, shared: bool) -> None:
        """The upstream has answered. Its answer's number says which is newer.

        An answer is as old as its process knows it: one that stands still gets its answer when it goes on.
        """
        if node.process == process and self.time < node.paused_until:
            self._at(node.paused_until, self._answered, node, process, load, failure, shared)
            return
        came: Input
        if failure is None:
            came = ev.LoadDone(len(self.ledger.born))
            self.ledger.born.append(self.time)
        else:
            came = failure
            self.ledger.survived[f"upstream: {failure.kind}"] += 1
            if shared:
                self.ledger.failed_calls.append(self.time)
        if node.process != process or node.load != load:
            return
        node.loaded = came
        if isinstance(node.step.effect, ev.StartLoad | ev.AwaitLoad):
            self._came(node, node.token, came)

    def _await(self, node: Node, until: float) -> None:
        at = (until - node.clock.origin) / node.clock.rate
        self._at(max(at, self.time), self._came, node, node.token, ev.Elapsed())

    # -- faults of nodes ---------------------------------------------------------------------------------------------

    def _plan(self, fault: Fault) -> None:
        if fault.name in ("crash-leader", "pause-leader"):
            self._at(fault.start, self._leader_faults.append, fault.name)
        elif fault.name in ("crash", "pause"):
            self._at(fault.start, self._haunt, fault, False)

    def _haunt(self, fault: Fault, strike: bool) -> None:
        """Crashes, or pauses, as they come: by chance, to any node."""
        if not fault.on(self.time):
            return
        if strike:
            node = self.nodes[self.chance.randrange(len(self.nodes))]
            seconds = self.chance.uniform(0, 3 * self.workload.lease)
            act = self._crash if fault.name == "crash" else self._pause
            act(node, seconds)
        wait = self.chance.expovariate(fault.value * len(self.nodes) / 3600)
        self._at(self.time + wait, self._haunt, fault, True)

    def _crash(self, node: Node, _: float) -> None:
        """The process is gone at once, and starts again after a while. What it has sent may still arrive."""
        self._count(node, node.first_poll(self.time))
        leads = self.store.led_by(node.policy.node)
        self.ledger.survived["leader crashed" if leads else "node crashed"] += 1
        if leads and not any(fault.name == "lost" or fault.name.startswith("store") for fault in self.faults):
            self.ledger.leaderless.append(self.time)
        node.start(self._policy)
        node.counted = node.first_poll(self.end)
        self._at(self.time + self.workload.restart, self._start, node)

    def _pause(self, node: Node, seconds: float) -> None:
        """The process stands still: its polls are left out, and what comes for it waits."""
        self._count(node, node.first_poll(self.time))
        leads = self.store.led_by(node.policy.node)
        self.ledger.survived["leader paused" if leads else "node paused"] += 1
        node.paused_until = max(node.paused_until, self.time + seconds)
        node.counted = max(node.counted, node.first_poll(node.paused_until))


def _no_reply(effect: ev.Read | ev.Write, why: str) -> ev.ReadFailed | ev.Unknown:
    return ev.ReadFailed(why) if isinstance(effect, ev.Read) else ev.Unknown(why)


def simulate(workload: Workload, faults: Iterable[Fault] = (), algorithm: Algorithm = OURS) -> Ledger:
    """What happens in one run."""
    return Simulation(workload, faults, algorithm).run()
