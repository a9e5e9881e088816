"""A world in virtual time for the real protocol: nodes, one store with content-derived versions, one upstream.

Nothing happens by itself. A test decides when a node carries out the effect it is waiting for, and how badly. The
monitors below judge what lands in the store and what callers get, from facts that the nodes cannot see; they share
no code with `kvcache.view`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from kvcache import events as ev
from kvcache.clock import Clock, StoreClock
from kvcache.codec import decode, encode
from kvcache.errors import CorruptRecord
from kvcache.events import Fail, Give
from kvcache.kvs import ABSENT, Version
from kvcache.phases import Step
from kvcache.protocol import advance, begin, meanwhile
from kvcache.record import Answer, Record
from kvcache.view import NOTHING, Held, Policy, hit

EPS = 1e-3


class Violation(AssertionError):
    """An invariant of protocol.md does not hold."""


def number(value: object) -> int:
    """Values are `{"Tag": n}`: the n-th answer of the upstream."""
    assert isinstance(value, dict)
    return int(value["Tag"])


class NodeClock(Clock):
    """A node's own clocks: monotonic with any origin, and a wall clock that is simply wrong."""

    def __init__(self, world: World, number: int, offset: float) -> None:
        self.world, self.number, self.offset = world, number, offset

    def monotonic(self) -> float:
        return self.world.time + 1e6 * (self.number + 1)

    def wall(self) -> float:
        return self.world.time + self.offset

    def chance(self) -> float:
        return self.world.chance

    def nonce(self) -> str:
        self.world.nonces += 1
        return f"n{self.world.nonces}"


@dataclass
class Node:
    number: int
    clock: NodeClock
    policy: Policy
    time: StoreClock = field(init=False)
    held: Held = NOTHING
    step: Step | None = None
    load: object | None = None  # what the load has come to, once it has
    loading_since: float | None = None
    due: float = 0.0  # when the pause is over
    last_given: int = -1
    callers: int = 0
    was_usable: bool = False
    delivered: bool = False
    told: list[ev.Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.time = StoreClock(self.clock)

    @property
    def name(self) -> str:
        return self.policy.node


class World:
    def __init__(self, nodes: int, policy: Policy, offsets: list[float]) -> None:
        self.time = 1_700_000_000.0
        self.chance = 0.5
        self.nonces = 0
        self.policy = policy
        self.data: bytes | None = None
        self.limbo: list[tuple[bytes, object, str]] = []  # writes still on their way from clients that gave up
        self.upstream = 0  # the n-th answer of the upstream is n
        self.born: dict[int, float] = {}  # when each answer was given
        self.misdated: set[int] = set()  # answers that Dewy v2 dated in the future
        self.undated: set[int] = set()  # answers that Dewy v2 dated wrongly: nobody can order them
        self.landed: set[str] = set()  # nonces of all writes that ever landed
        self.calls: list[tuple[float, str]] = []
        self.journal: list[str] = []
        self.processes = 0
        self.nodes = [self._node(i, offsets[i % len(offsets)]) for i in range(nodes)]

    def _node(self, number: int, offset: float) -> Node:
        self.processes += 1
        policy = replace(self.policy, node=f"host-{number}:{self.processes}")
        return Node(number, NodeClock(self, number, offset), policy)

    def crash(self, node: Node) -> None:
        """The process is gone; a write that it had sent may still arrive."""
        self.journal.append(f"{node.name} crashes")
        fresh = self._node(node.number, node.clock.offset)
        self.nodes[node.number] = fresh

    # -- the store ---------------------------------------------------------------------------------------------------

    @property
    def version(self) -> Version | None:
        return None if self.data is None else Version(hashlib.md5(self.data).hexdigest())

    def write(self, data: bytes, match: object, by: str) -> ev.Landed | ev.Refused:
        if (self.data is None) != (match is ABSENT) or (self.data is not None and self.version != match):
            return ev.Refused()
        self._judge_write(data, by)
        self.data = data
        self.landed.add(decode(data).nonce)
        assert self.version is not None
        return ev.Landed(self.version)

    def read(self) -> ev.Found | ev.Missing | ev.Unreadable:
        if self.data is None:
            return ev.Missing()
        assert self.version is not None
        try:
            return ev.Found(decode(self.data), self.version)
        except CorruptRecord as error:
            return ev.Unreadable(self.version, str(error))

    def corrupt(self, data: bytes | None) -> None:
        self.journal.append(f"somebody puts {data!r}")
        self.data = data

    def _before(self) -> Record | None:
        found = self.read()
        return found.record if isinstance(found, ev.Found) else None

    def _judge_write(self, data: bytes, by: str) -> None:
        """I1, I2, I5: what may follow what."""
        before, after = self._before(), decode(data)
        self.journal.append(f"{self.time - 1.7e9:.3f} lands: {data.decode()}")
        held = before is not None and before.lock is not None and before.lock.by == by
        if after.lock is not None:
            if not held:
                self._judge_claim(before)
            return
        if not held or before is None:
            raise Violation(f"I2: {by} changes the record without holding the lock")
        if (
            after.failure is None
            and after.answer is not None
            and before.answer is not None
            and number(after.answer.value) < number(before.answer.value)
            and not {number(before.answer.value), number(after.answer.value)} & self.undated
        ):
            raise Violation("I3: an older answer was published over a newer one")

    def _judge_claim(self, before: Record | None) -> None:
        if before is None:
            return
        if before.lock is not None:
            lease = before.lock.lease if before.lock.lease is not None else self.policy.foreign_lease
            if 0 <= self.time - before.lock.locked_at < lease - EPS:
                raise Violation("I5: a live lock was taken over")
        answer, failure = before.answer, before.failure
        if failure is not None and self.time < failure.retry_at - EPS and failure.retry_at - failure.failed_at < 5000:
            raise Violation("I5: the upstream is called inside its back-off")
        if (
            answer is not None
            and not before.invalidated
            and failure is None
            and number(answer.value) not in self.misdated
        ):
            due = self.policy.ttl * (1 - self.policy.refresh_ahead)
            if 0 <= self.time - answer.fetched_at < due - EPS:
                raise Violation("I5: the upstream is called while the answer is fresh")

    # -- the nodes ---------------------------------------------------------------------------------------------------

    def ask(self, node: Node) -> None:
        node.callers += 1
        if node.step is not None:
            outcome = meanwhile(node.step.flight, node.time.now())
            if outcome is not None:
                self._give(node, outcome)
            return
        outcome = hit(node.policy, node.held, node.clock.monotonic())
        if outcome is not None:
            self._give(node, outcome)
            return
        node.was_usable, node.delivered = self._usable(node), False
        self._next(node, begin("key", node.policy, node.held))

    def _usable(self, node: Node) -> bool:
        return node.held.answer is not None and node.held.usable(node.policy, node.held.age(node.time.now()))

    def _next(self, node: Node, step: Step) -> None:
        node.step = step
        node.told += step.told
        if step.deliver is not None and not node.delivered:
            node.delivered = True
            self._give(node, step.deliver)
        match step.effect:
            case ev.Stop():
                node.held, node.step = step.flight.held, None
                node.load, node.loading_since = None, None
            case ev.Wait(seconds, _, _):
                node.due = node.clock.monotonic() + seconds
                if node.was_usable and not node.delivered:
                    raise Violation("I4: a caller with a usable answer waits")
            case ev.StartLoad(_, _, until):
                node.due, node.load, node.loading_since = until, None, self.time
                self._judge_call(node, step)
            case ev.AwaitLoad(until):
                node.due = until

    def _judge_call(self, node: Node, step: Step) -> None:
        phase = step.flight.phase
        claim = getattr(phase, "claim", None)
        self.calls.append((self.time, node.name))
        self.journal.append(f"{self.time - 1.7e9:.3f} {node.name} calls the upstream")
        if claim is not None and claim.record.nonce not in self.landed:
            raise Violation("I1: the upstream is called on a claim that never landed")
        if claim is not None and claim.record.lock.by != node.name:
            raise Violation("I1: the upstream is called on somebody else's claim")

    def _give(self, node: Node, outcome: Give | Fail) -> None:
        if isinstance(outcome, Fail):
            return
        value = number(outcome.answer.value)
        self.journal.append(f"{self.time - 1.7e9:.3f} {node.name} gives {value} {outcome.state} age {outcome.age:.3f}")
        if value < node.last_given and value not in self.undated:
            raise Violation(f"I3: {node.name} gave {node.last_given}, and now the older {value}")
        if value not in self.undated:
            node.last_given = value
        age = self.time - self.born[value]
        if value not in self.misdated:
            limit = self.policy.max_stale
            if limit is not None and age > max(limit, self.policy.ttl) + EPS:
                raise Violation(f"I7: an answer of {age:.3f} s was returned, max-stale is {limit}")
            if outcome.state == "fresh" and age >= self.policy.ttl + EPS:
                raise Violation(f"an answer of {age:.3f} s was called fresh")

    def ready(self, node: Node) -> bool:
        """Can the node's effect come to anything now?"""
        if node.step is None:
            return False
        if isinstance(node.step.effect, ev.Wait):
            return node.clock.monotonic() >= node.due
        if isinstance(node.step.effect, ev.StartLoad | ev.AwaitLoad):
            return node.load is not None or node.clock.monotonic() >= node.due
        return True

    def perform(self, node: Node, fault: str = "none") -> None:
        """Carries out the node's effect; `fault` is what goes wrong with a request."""
        assert node.step is not None
        effect = node.step.effect
        came: ev.Input
        match effect:
            case ev.Read():
                if fault in ("down", "lost", "limbo"):
                    came = ev.ReadFailed("unreachable")
                else:
                    came = self.read()
                    node.time.observe(self.time, node.clock.monotonic())
            case ev.Write(record, match):
                came = self._write_badly(encode(record), match, fault, node.name)
            case ev.StartLoad() | ev.AwaitLoad():
                came = node.load if node.load is not None else ev.Elapsed()  # type: ignore[assignment]
            case ev.Wait():
                came = ev.Elapsed()
            case ev.Recall():
                came = ev.Recalled(None)
            case _:
                raise AssertionError(effect)
        self._next(node, advance(node.step.flight, came, node.time.now()))

    def _write_badly(self, data: bytes, match: object, fault: str, by: str) -> ev.Input:
        match fault:
            case "lost":  # applied, and the reply is lost
                self.write(data, match, by)
                return ev.Unknown("reply lost")
            case "down":  # never arrives
                return ev.Unknown("connection refused")
            case "limbo":  # arrives later, or never
                self.limbo.append((data, match, by))
                return ev.Unknown("time-out")
            case "twice":  # the client sends it again behind our back, and is refused for its own write
                self.write(data, match, by)
                return self.write(data, match, by)
            case "throttled":
                return ev.Throttled(None)
        return self.write(data, match, by)

    def finish_load(self, node: Node, how: str, retry_after: float | None = None) -> None:
        """The upstream answers the node's call."""
        held = node.step.flight.held.answer if node.step is not None else None
        if how == "unchanged" and (held is None or number(held.value) != self.upstream):
            how = "ok"
        if how in ("ok", "unchanged"):
            previous = node.step.flight.held.answer if node.step is not None else None
            if how == "unchanged" and previous is not None:
                # "Still what you have": as good as a new answer with the old value; it keeps the value's number.
                self.born[number(previous.value)] = self.time
                self.misdated.discard(number(previous.value))
                self.undated.discard(number(previous.value))
                node.load = ev.LoadUnchanged()
            else:
                self.upstream += 1
                self.born[self.upstream] = self.time
                node.load = ev.LoadDone({"Tag": self.upstream}, f"etag-{self.upstream}")
        else:
            node.load = ev.LoadFailed("upstream", "503", retry_after, authoritative=how == "refused")
        # The load's result is dated when it comes in: hand it over at once, as a driver does.
        self.perform(node)

    def answer_of_v2(self, skew: float) -> bytes:
        """A record that Dewy v2 publishes with a clock that is `skew` seconds off."""
        self.upstream += 1
        self.born[self.upstream] = self.time
        if skew:
            self.undated.add(self.upstream)
        if skew > 0:
            self.misdated.add(self.upstream)
        text = encode(Record("x", Answer({"Tag": self.upstream}, self.time + skew))).decode()
        return text[: text.index(',"kvcache"')].encode() + b"}"

    def is_loading(self, node: Node) -> bool:
        return (
            node.step is not None
            and isinstance(node.step.effect, ev.StartLoad | ev.AwaitLoad)
            and node.load is None
            and node.clock.monotonic() < node.due
        )
