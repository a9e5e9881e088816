"""I1-I10 of the protocol, looked for by Hypothesis in the real code: every interleaving it can think of.

The rules are the moves of an adversary: who goes on when, what is lost, delayed, doubled or torn, who crashes.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kvcache import events as ev
from kvcache.view import Policy
from tests.protocol.world import Violation, World

NODES = st.integers(0, 3)
FAULTS = st.sampled_from(["none", "none", "none", "lost", "down", "limbo", "twice", "throttled"])
GARBAGE = st.sampled_from([b"", b"{", b"null", b'{"fetched_at":"x"}', b"\xff\xfe", b'{"kvcache":{"format":9}}', None])


class Adversary(RuleBasedStateMachine):
    @initialize(
        ttl=st.sampled_from([10.0, 60.0]),
        max_stale=st.sampled_from([None, 0.0, 100.0]),
        lease=st.sampled_from([6.0, 30.0]),
        refresh_ahead=st.sampled_from([0.0, 0.0, 0.5]),
        background=st.booleans(),
        offsets=st.lists(st.sampled_from([0.0, -1e6, 1e6, 37.0]), min_size=1, max_size=4),
    )
    def start(self, ttl, max_stale, lease, refresh_ahead, background, offsets):
        policy = Policy(
            ttl, max_stale, lease, refresh_ahead, load_timeout=2 * lease, background=background, node="template"
        )
        self.world = World(4, policy, offsets)

    @rule(node=NODES, chance=st.floats(0, 1, exclude_max=True))
    def ask(self, node, chance):
        self.world.chance = chance
        self.world.ask(self.world.nodes[node])

    @rule(node=NODES, fault=FAULTS, chance=st.floats(0, 1, exclude_max=True))
    def go_on(self, node, fault, chance):
        self.world.chance = chance
        if self.world.ready(self.world.nodes[node]):
            self.world.perform(self.world.nodes[node], fault)

    @rule(node=NODES, times=st.integers(1, 6))
    def go_on_undisturbed(self, node, times):
        for _ in range(times):
            if self.world.ready(self.world.nodes[node]):
                self.world.perform(self.world.nodes[node])

    @rule(
        node=NODES,
        how=st.sampled_from(["ok", "ok", "unchanged", "fails", "refused"]),
        pause=st.sampled_from([None, 20.0]),
    )
    def upstream_answers(self, node, how, pause):
        if self.world.is_loading(self.world.nodes[node]):
            self.world.finish_load(self.world.nodes[node], how, pause if how == "fails" else None)

    @rule(
        node=NODES,
        how=st.sampled_from(["ok", "ok", "unchanged", "fails", "refused"]),
        pause=st.sampled_from([None, 20.0]),
        takes=st.sampled_from([0.0, 0.0, 0.5, 7.0]),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def visit(self, node, how, pause, takes, chance):
        """One undisturbed call: without a move for what is common, most runs never get beyond the first claim."""
        self.ask(node, chance)
        self.go_on_undisturbed(node, 4)
        self.world.time += takes if self.world.is_loading(self.world.nodes[node]) else 0.0
        self.go_on_undisturbed(node, 2)
        self.upstream_answers(node, how, pause)
        self.go_on_undisturbed(node, 3)

    @rule(first=NODES, second=NODES, how=st.sampled_from(["ok", "fails"]), late=st.sampled_from([0.0, 7.0, 31.0, 61.0]))
    def taken_over(self, first, second, how, late):
        """A leader is paused in its load while another node comes along."""
        self.ask(first, 0.5)
        self.go_on_undisturbed(first, 2)
        self.world.time += late
        self.visit(second, how, None, 0.0, 0.5)
        self.upstream_answers(first, "ok", None)
        self.go_on_undisturbed(first, 6)

    @rule(seconds=st.sampled_from([0.001, 0.5, 2.0, 5.0, 9.0, 10.5, 31.0, 61.0, 400.0]))
    def time_passes(self, seconds):
        self.world.time += seconds

    @rule(node=NODES)
    def crash(self, node):
        self.world.crash(self.world.nodes[node])

    @precondition(lambda self: self.world.limbo)
    @rule(index=st.integers(0, 5))
    def late_write_arrives(self, index):
        data, match, by = self.world.limbo.pop(index % len(self.world.limbo))
        self.world.write(data, match, by)

    @rule(data=GARBAGE)
    def somebody_writes_garbage(self, data):
        self.world.corrupt(data)

    @rule(skew=st.sampled_from([0.0, -30.0, 5.0, 1e6]))
    def dewy_v2_publishes(self, skew):
        self.world.corrupt(self.world.answer_of_v2(skew))

    def teardown(self):
        """I6, I8, I10: from wherever we are, one node alone gets a fresh answer and leaves a good record."""
        world = getattr(self, "world", None)
        if world is None:
            return
        world.limbo.clear()
        survivor = world.nodes[0]
        for other in world.nodes[1:]:
            other.step = None
        for _ in range(200):
            world.ask(survivor)
            for _ in range(20):
                if world.is_loading(survivor):
                    world.finish_load(survivor, "ok")
                elif world.ready(survivor):
                    world.perform(survivor)
            found = world.read()
            if isinstance(found, ev.Found) and found.record.answer is not None and found.record.lock is None:
                given = survivor.held.answer
                if given is not None and survivor.held.age(survivor.time.now()) < world.policy.ttl:
                    return
            world.time += 10.0
        raise Violation("I6/I8: one node alone never got the record right again")


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(
    max_examples=500, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAdversary = pytest.mark.timeout(600)(TestAdversary)
