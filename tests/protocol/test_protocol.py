"""The protocol, move by move: each story is one row of its table, told with the real code in the virtual world."""

from __future__ import annotations

import json

import pytest

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.codec import decode, encode
from kvcache.events import Fail, Give
from kvcache.kvs import Version
from kvcache.protocol import advance, begin
from kvcache.record import Answer, Lock, Record
from kvcache.view import NOTHING, Policy, absorb, lock_left
from tests.protocol.world import Node, Violation, World, number


@pytest.fixture
def world():
    return World(3, Policy(ttl=60.0, lease=30.0, load_timeout=300.0, node="template"), [0.0])


def go(world: World, node: Node, steps: int = 20) -> None:
    """Goes on until the node has to wait for something."""
    for _ in range(steps):
        if not world.ready(node):
            return
        world.perform(node)


def lead(world: World, node: Node) -> None:
    """The node asks, and is left in its load."""
    world.ask(node)
    go(world, node)
    assert world.is_loading(node)


def refresh(world: World, node: Node, how: str = "ok", retry_after: float | None = None) -> None:
    lead(world, node)
    world.finish_load(node, how, retry_after)
    go(world, node)
    assert node.step is None


def standing(world: World) -> Record:
    assert world.data is not None
    return decode(world.data)


def test_one_refresh(world):
    first, second, _ = world.nodes
    refresh(world, first)
    assert standing(world).answer is not None
    assert standing(world).lock is None
    world.ask(second)
    go(world, second)
    assert second.held.answer == first.held.answer
    assert len(world.calls) == 1


def test_a_refused_publish_leaves_the_record_alone_and_returns_the_newer_answer(world):
    first, second, _ = world.nodes
    lead(world, first)
    world.time += 31
    refresh(world, second)  # takes over, publishes 1
    before = world.data
    world.finish_load(first, "ok")  # loads 2, too late
    go(world, first)
    assert first.step is None
    assert world.data == before
    assert number(first.held.answer.value) == 2
    assert first.last_given == 2


def test_a_publish_that_comes_too_late_returns_what_was_published_meanwhile(world):
    first, second, _ = world.nodes
    lead(world, first)
    world.finish_load(first, "ok")  # loads 1, and is paused before it can publish
    world.time += 31
    refresh(world, second)  # takes over, publishes 2
    go(world, first)
    assert number(standing(world).answer.value) == 2
    assert first.last_given == 2
    assert not any(isinstance(event, ev.Published) for event in first.told)


def test_a_publish_refused_while_the_new_leader_still_loads_is_no_publish(world):
    first, second, _ = world.nodes
    lead(world, first)
    world.time += 31
    lead(world, second)
    world.finish_load(first, "ok")
    go(world, first)
    assert standing(world).lock is not None and standing(world).lock.by == second.name
    world.finish_load(second, "ok")
    go(world, second)
    assert number(standing(world).answer.value) == 2


def test_a_lost_renewal_is_found_out_and_nothing_is_published(world):
    first, second, _ = world.nodes
    lead(world, first)
    world.time += 31
    lead(world, second)
    go(world, first)  # renewal is due, refused, read back: lost
    assert first.step.flight.phase.lost
    world.finish_load(first, "ok")
    assert isinstance(first.step.effect, ev.Read)  # not even a write that would be refused
    go(world, first)
    assert standing(world).lock.by == second.name


def test_the_lease_is_renewed_every_third_of_it(world):
    first, second, _ = world.nodes
    lead(world, first)
    for _ in range(12):
        world.time += 10.0
        go(world, first)
        world.ask(second)
        go(world, second, 3)
    assert len(world.calls) == 1
    assert standing(world).lock.by == first.name
    assert standing(world).lock.locked_at == pytest.approx(world.time)


@pytest.mark.parametrize("fault", ["lost", "down", "twice"])
def test_a_renewal_of_unknown_outcome_does_not_cost_the_lease(world, fault):
    first = world.nodes[0]
    lead(world, first)
    world.time += 10.0
    world.perform(first)  # the time to renew has come
    world.perform(first, fault)
    go(world, first)
    world.finish_load(first, "ok")
    go(world, first)
    assert standing(world).answer is not None
    assert first.step is None


@pytest.mark.parametrize("fault", ["lost", "down", "twice", "limbo"])
@pytest.mark.parametrize("write", ["claim", "publish"])
def test_a_write_of_unknown_outcome_is_read_back(world, fault, write):
    first = world.nodes[0]
    world.ask(first)
    world.perform(first)
    world.perform(first, fault if write == "claim" else "none")
    go(world, first)
    assert world.is_loading(first)
    first.load = ev.LoadDone({"Tag": 1})
    world.upstream, world.born[1] = 1, world.time
    world.perform(first)
    world.perform(first, fault if write == "publish" else "none")
    go(world, first)
    assert number(standing(world).answer.value) == 1
    assert standing(world).lock is None
    for data, match, by in world.limbo:
        assert world.write(data, match, by) == ev.Refused()


def test_two_claims_of_unknown_outcome_have_one_winner(world):
    first, second, _ = world.nodes
    world.ask(first)
    world.ask(second)
    world.perform(first)
    world.perform(second)
    world.perform(first, "lost")
    world.perform(second, "down")
    go(world, second)
    go(world, first)
    assert world.is_loading(first)
    assert not world.is_loading(second)


def test_a_failure_keeps_answer_and_age_and_counts(world):
    first, second, _ = world.nodes
    refresh(world, first)
    fetched_at = standing(world).answer.fetched_at
    world.time += 70
    refresh(world, first, "fails")
    record = standing(world)
    assert number(record.answer.value) == 1
    assert record.answer.fetched_at == fetched_at
    assert record.failure.count == 1
    world.time = record.failure.retry_at + 1
    refresh(world, second, "fails")
    assert standing(world).failure.count == 2
    world.time = standing(world).failure.retry_at + 1
    refresh(world, first)
    assert standing(world).failure is None


def test_an_authoritative_failure_stays_so_until_there_is_an_answer(world):
    first, second, third = world.nodes
    refresh(world, first)
    world.time += 70
    refresh(world, second, "refused")
    world.time = standing(world).failure.retry_at + 1
    refresh(world, third, "fails")
    assert standing(world).failure.authoritative
    world.time = standing(world).failure.retry_at + 1
    refresh(world, first)
    assert standing(world).failure is None


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 2.5, 5.0), (100.0, 100.0, 110.0), (1e9, 3600.0, 3960.0)])
@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_the_pause_after_a_failure(asked, least, most, chance):
    policy = Policy(ttl=60.0)
    assert least <= policy.backoff(1, chance, asked) <= most


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 10**6])
def test_the_pause_doubles_up_to_its_cap(count):
    policy = Policy(ttl=60.0)
    most = min(300.0, 5.0 * 2 ** (min(count, 60) - 1))
    assert policy.backoff(count, 0.0, None) == most / 2
    assert policy.backoff(count, 1.0, None) == most


def test_retry_after_holds_back_the_whole_fleet(world):
    first, second, _ = world.nodes
    refresh(world, first, "fails", retry_after=100.0)
    world.time += 99.0
    world.ask(second)
    go(world, second)
    assert second.step is None
    assert len(world.calls) == 1


def test_a_lock_of_dewy_v2_is_honoured_for_its_own_lease(world):
    text = '{"fetched_at":"0001-01-01T00:00:00Z","locked_at":"2023-11-14T22:13:20Z","locked_by":"v2:1"}'
    world.corrupt(text.encode())
    world.time += 100
    node = world.nodes[0]
    world.ask(node)
    go(world, node)
    assert not world.is_loading(node)
    world.time += 21  # twice the ttl is 120 s
    go(world, node)
    assert world.is_loading(node)


def test_what_dewy_v2_drops_is_done_without(world):
    first = world.nodes[0]
    refresh(world, first)
    fields = json.loads(world.data)
    del fields["kvcache"]
    world.corrupt(json.dumps(fields).encode())
    world.time += 70
    lead(world, first)
    assert first.step.effect.previous.validator == "etag-1"  # still in hand
    other = World(1, world.policy, [0.0])
    other.time, other.upstream, other.born = world.time, 1, dict(world.born)
    other.data = json.dumps(fields).encode()
    refresh(other, other.nodes[0])
    assert number(standing(other).answer.value) == 2


def test_a_lock_in_the_future_is_live_for_one_lease_from_first_sight():
    policy, lock = Policy(ttl=60.0), Lock(1e9, "x", 30.0)
    held = absorb(policy, NOTHING, Record("n", None, lock), None, Now(1000.0, 5.0, 0.5, "n"))
    assert lock_left(policy, held, lock, Now(1000.0, 5.0, 0.5, "n")) == 30.0
    assert lock_left(policy, held, lock, Now(1031.0, 36.0, 0.5, "n")) == 0.0


def test_an_answer_in_the_future_is_fresh_for_one_ttl_from_first_sight(world):
    first, second, _ = world.nodes
    world.corrupt(world.answer_of_v2(1e6))
    world.ask(first)
    go(world, first)
    assert first.step is None and len(world.calls) == 0
    world.time += 67
    lead(world, first)
    assert standing(world).answer.fetched_at <= world.time  # put right for those who come later
    world.ask(second)
    go(world, second)
    assert len(world.calls) == 1


def test_an_older_answer_never_replaces_a_newer_one():
    policy, at = Policy(ttl=60.0), Now(1000.0, 5.0, 0.5, "n")
    newer = absorb(policy, NOTHING, Record("a", Answer("new", 990.0)), None, at)
    assert absorb(policy, newer, Record("b", Answer("old", 980.0)), None, at).answer.value == "new"
    assert absorb(policy, newer, Record("c", Answer("newest", 995.0)), None, at).answer.value == "newest"


def test_a_store_whose_clock_was_set_back_does_not_freeze_the_answer():
    policy = Policy(ttl=60.0)
    held = absorb(policy, NOTHING, Record("a", Answer("old", 5000.0)), None, Now(5000.0, 0.0, 0.5, "n"))
    later = Now(1000.0, 100.0, 0.5, "n")  # 100 s later the store says 1000
    assert absorb(policy, held, Record("b", Answer("new", 990.0)), None, later).answer.value == "new"


def test_unreadable_bytes_are_claimed_on_their_version(world):
    world.corrupt(b"garbage")
    first, second, _ = world.nodes
    world.ask(first)
    world.ask(second)
    world.perform(first)
    world.perform(second)
    go(world, first)
    go(world, second)
    assert world.is_loading(first) and not world.is_loading(second)


def test_a_throttled_publish_gives_the_answer_and_is_tried_again(world):
    first = world.nodes[0]
    lead(world, first)
    world.finish_load(first, "ok")
    world.perform(first, "throttled")
    assert first.last_given == 1
    assert standing(world).answer is None
    world.time += 3
    go(world, first)
    assert number(standing(world).answer.value) == 1


def test_a_throttled_claim_does_not_keep_a_usable_answer_back(world):
    first = world.nodes[0]
    refresh(world, first)
    world.time += 70
    world.ask(first)
    world.perform(first)
    world.perform(first, "throttled")
    assert first.step is None
    assert first.held.look_at > first.clock.monotonic()


def test_a_record_that_never_fits_becomes_a_failure(world):
    first = world.nodes[0]
    lead(world, first)
    first.load = ev.LoadDone({"Tag": 1})
    step = advance(first.step.flight, first.load, first.time.now())
    step = advance(step.flight, ev.Unwritable("too large"), first.time.now())
    assert isinstance(step.effect, ev.Write)
    assert step.effect.record.failure is not None and step.effect.record.failure.kind == "unwritable"


def test_when_the_store_is_down_one_call_per_ttl_and_node(world):
    first = world.nodes[0]
    world.ask(first)
    world.perform(first, "down")
    go(world, first)
    assert world.is_loading(first)
    world.finish_load(first, "fails")
    assert first.step is None
    world.ask(first)
    world.perform(first, "down")
    go(world, first)
    assert first.step is None and len(world.calls) == 1
    world.time += 61
    world.ask(first)
    world.perform(first, "down")
    go(world, first)
    assert world.is_loading(first)


@pytest.mark.parametrize("came", [ev.Unknown("disk full"), ev.Refused()])
def test_a_store_that_can_be_read_but_not_written_is_as_good_as_down(world, came):
    first = world.nodes[0]
    world.ask(first)
    for _ in range(20):
        if world.is_loading(first):
            break
        if isinstance(first.step.effect, ev.Write):
            world._next(first, advance(first.step.flight, came, first.time.now()))
        else:
            world.perform(first)
    assert world.is_loading(first) and world.data is None  # this node's own call
    world.finish_load(first, "ok")
    assert first.last_given == 1


def test_an_answer_of_ones_own_outlives_the_moment_in_which_the_clock_is_put_right():
    """Found by the simulator: I3 and I9, for a node that called the upstream before it ever saw the store's clock."""
    policy, slow = Policy(ttl=60.0, node="a"), -1000.0
    step = begin("key", policy, NOTHING)
    step = advance(step.flight, ev.ReadFailed("time-out"), Now(1.7e9 + slow, 10.0, 0.5, "n1"))
    step = advance(step.flight, ev.Recalled(None), Now(1.7e9 + slow, 10.0, 0.5, "n2"))
    step = advance(step.flight, ev.LoadDone("new"), Now(1.7e9 + 1 + slow, 11.0, 0.5, "n3"))
    assert isinstance(step.deliver, Give) and step.deliver.answer.value == "new"
    step = begin("key", policy, step.flight.held)
    older = ev.Found(Record("n0", Answer("old", 1.7e9 - 5)), Version("1"))
    step = advance(step.flight, older, Now(1.7e9 + 15, 25.0, 0.5, "n4"))
    assert isinstance(step.deliver, Give) and step.deliver.answer.value == "new"
    assert step.deliver.age < 15


def test_a_leader_that_stood_still_for_a_lease_looks_again_before_it_calls(world):
    """Found by the simulator: I5, for a node paused while the reply to its claim is under way."""
    first = world.nodes[0]
    world.ask(first)
    world.perform(first)
    world.time += 31  # the claim lands late, by the clock of the node
    world.perform(first)
    assert not world.is_loading(first)
    go(world, first)
    assert len(world.calls) == 1


def test_refresh_ahead_looks_before_the_end_of_the_ttl():
    policy = Policy(ttl=100.0, refresh_ahead=0.3)
    assert [policy.due_age(chance) for chance in (0.0, 0.5)] == [70.0, 85.0]
    assert policy.due_age(0.999999) < 100.0


@pytest.mark.parametrize(("max_stale", "longest"), [(None, 110.0), (0.0, 100.0), (105.0, 105.0), (500.0, 110.0)])
def test_the_next_look_is_spread_over_a_tenth_of_the_ttl(max_stale, longest):
    policy = Policy(ttl=100.0, max_stale=max_stale)
    assert policy.due_age(0.0) == 100.0
    assert policy.due_age(1.0) == longest


def test_an_input_that_cannot_come_is_a_programming_error():
    step = begin("k", Policy(ttl=60.0), NOTHING)
    with pytest.raises(TypeError, match="Landed cannot come of Looking"):
        advance(step.flight, ev.Landed(None), Now(0.0, 0.0, 0.0, "n"))


def test_the_monitors_themselves_find_what_is_wrong(world):
    """A world that never complains proves nothing."""
    first, second, _ = world.nodes
    lead(world, first)
    with pytest.raises(Violation, match="I5"):
        claim = Record("x", None, Lock(world.time, second.name, 30.0))
        world.write(encode(claim), world.version, second.name)
    with pytest.raises(Violation, match="I2"):
        world.write(encode(Record("y", Answer({"Tag": 1}, world.time))), world.version, second.name)
    with pytest.raises(Violation, match="I3"):
        first.last_given = 5
        world.born[1] = world.time
        world._give(first, Give(Answer({"Tag": 1}, world.time), 0.0, "fresh"))
    world._give(first, Fail("x", "no answer"))
