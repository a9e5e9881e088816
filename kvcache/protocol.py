"""The refresh protocol: one flight, from the first look at a record to an answer, as a pure state machine.

A *flight* is what one node does for one key because somebody asked and nothing usable was in hand. It is a value;
`begin` and `advance` make the next one from it and say which ONE effect is to be carried out before `advance` is
called again with what came of it. Threads, asyncio, the simulator and the exhaustive explorer all drive this code.

    phase        effect            what may come of it
    Looking      Read              serve, follow (Pausing), lead (Claiming), or the store is down
    Pausing      Wait              Looking
    Claiming     Write             landed: Loading · else Verifying
    Loading      StartLoad/AwaitLoad   done: Publishing · time to renew: Renewing
    Renewing     Write             landed: Loading · else Verifying
    Publishing   Write             landed: over · throttled: Holding · else Verifying
    Verifying    Read              own nonce: it landed · old version: send again · else: lost, Comparing or Looking
    Holding      Wait              Publishing or Verifying again; the caller already has its answer
    Comparing    Read              the newer of two answers
    Recalling    Recall            the local copy, or else one upstream call of this node alone

No outcome of a write is guessed: every write that was not confirmed is read back and recognised by its nonce, a
refused one included, since a client library may have sent it twice.
"""

from __future__ import annotations

from dataclasses import replace

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.events import Event, Fail, Give, Input, Outcome
from kvcache.kvs import ABSENT, Match, Version
from kvcache.phases import (
    Claim,
    Claiming,
    Comparing,
    Flight,
    Holding,
    Loading,
    Looking,
    Over,
    Pausing,
    Publishing,
    Recalling,
    Renewing,
    Step,
    Verifying,
)
from kvcache.record import EMPTY, Answer, Failure, Record, answered, claimed, failed, renewed
from kvcache.view import Follow, Held, Lead, Policy, Serve, absorb, judge, refusal, settle

TICK = 2e-6
"""Seconds by which an answer is newer than its predecessor at least: records keep microseconds."""
RESENDS = 3
"""How often one write is sent again after the store was seen not to have it."""


def begin(key: str, policy: Policy, held: Held) -> Step:
    """The first step of a flight."""
    return Step(Flight(key, policy, held), ev.Read())


def meanwhile(flight: Flight, now: Now) -> Outcome | None:
    """What somebody who asks while the flight is under way gets at once: nobody with a usable answer waits."""
    held, policy = flight.held, flight.policy
    age = held.age(now)
    if held.answer is None or not held.usable(policy, age):
        return None
    return Give(held.answer, age, "fresh" if held.fresh(policy, age) else "stale")


def advance(flight: Flight, came: Input, now: Now) -> Step:
    """The next step, after `came` came of the effect that the last one asked for."""
    match flight.phase:
        case Looking():
            return _looked(flight, came, now)
        case Pausing():
            return Step(replace(flight, phase=Looking()), ev.Read())
        case Claiming() as claiming:
            return _claimed(flight, claiming, came, now)
        case Loading() as loading:
            return _loaded(flight, loading, came, now)
        case Renewing() as renewing:
            return _renewed(flight, renewing, came, now)
        case Publishing() as publishing:
            return _published(flight, publishing, came, now)
        case Verifying() as verifying:
            return _verified(flight, verifying, came, now)
        case Holding(publishing, verify):
            if verify:
                return _verify(flight, publishing, "held back")
            return _send(flight, publishing)
        case Comparing() as comparing:
            return _compared(flight, comparing, came, now)
        case Recalling(why):
            return _recalled(flight, why, came, now)
        case Over():
            raise ValueError("the flight is over")


# -- looking -----------------------------------------------------------------------------------------------------


def _looked(flight: Flight, came: Input, now: Now) -> Step:
    match came:
        case ev.Found(record, version):
            return _judged(flight, record, version, now)
        case ev.Missing():
            return _judged(flight, EMPTY, ABSENT, now)
        case ev.Unreadable(version, why):
            # As absent, but conditional on the version read, so that the record heals itself.
            step = _judged(replace(flight, healing=True), EMPTY, version, now)
            return step._replace(told=(ev.RecordUnreadable(flight.key, why), *step.told))
        case ev.ReadFailed(why):
            return _store_down(flight, why, now)
    raise _unexpected(flight, came)


def _judged(flight: Flight, record: Record, match: Match, now: Now) -> Step:
    version = match if isinstance(match, Version) else None
    held = absorb(flight.policy, flight.held, record, version, now)
    flight = replace(flight, held=held)
    match judge(flight.policy, held, record, now):
        case Serve(outcome, look_in):
            return _over(flight, outcome, now, look_in)
        case Follow(left):
            took = record.answer.took if record.answer is not None else 0.0
            return _pause(flight, version, left, took, now)
        case Lead():
            if flight.claims_lost > 1 and not flight.waited:
                # Two conflicts and still nobody leads: others move the record without a claim. Give them room.
                age = held.age(now)
                if held.answer is not None and held.usable(flight.policy, age):
                    return _over(flight, Give(held.answer, age, "stale"), now, flight.policy.spread)
                return _pause(flight, version, flight.policy.lease, 0.0, now)
            # An answer in hand may be newer than the record's, or outlive a record that was lost. A date in the
            # future is put right, so that it deceives nobody who sees it later.
            base = record if held.answer is None else replace(record, answer=_dated(held, held.answer, now))
            claim = claimed(base, at=now.store, by=flight.policy.node, lease=flight.policy.lease, nonce=now.nonce)
            phase = Claiming(claim, match, now.mono)
            return Step(replace(flight, phase=phase), ev.Write(claim, match))


def _dated(held: Held, answer: Answer, now: Now) -> Answer:
    known = round(held.anchored(now), 6)
    return answer if answer.fetched_at <= known + TICK else replace(answer, fetched_at=known)


def _pause(flight: Flight, version: Version | None, left: float, took: float, now: Now) -> Step:
    """Decorrelated jitter (Brooker, "Exponential Backoff and Jitter"), never longer than the lock has left."""
    most = min(2.0, max(flight.policy.lease / 4, 0.01))
    base = min(0.05, most / 4)
    last = flight.waited or min(max(took, base), most)
    wait = min(most, base + now.chance * max(0.0, 3 * last - base))
    effect = ev.Wait(min(wait, left + base * now.chance), left + base * now.chance, version)
    told = () if flight.waited else (ev.LockAwaited(flight.key),)
    return Step(replace(flight, phase=Pausing(), waited=wait), effect, told)


# -- claiming ----------------------------------------------------------------------------------------------------


def _claimed(flight: Flight, claiming: Claiming, came: Input, now: Now) -> Step:
    match came:
        case ev.Landed(version):
            return _lead(flight, claiming, version, now)
        case ev.Refused():
            return _verify(flight, claiming)
        case ev.Unknown(why):
            return _verify(flight, claiming, why)
        case ev.Throttled(pause):
            wait = max(1.0, pause or 0.0) * (1 + now.chance)
            age = flight.held.age(now)
            if flight.held.answer is not None and flight.held.usable(flight.policy, age):
                return _over(flight, Give(flight.held.answer, age, "stale"), now, wait)
            return Step(replace(flight, phase=Pausing()), ev.Wait(wait, None, None))
        case ev.Unwritable(why):
            return _store_down(flight, why, now)
    raise _unexpected(flight, came)


def _lead(flight: Flight, claiming: Claiming, version: Version, now: Now) -> Step:
    record = claiming.record
    if now.mono - claiming.sent_at >= flight.policy.lease:
        # This node stood still for a lease: somebody may lead, or may have led, in its place.
        return Step(replace(flight, phase=Looking()), ev.Read())
    claim = Claim(record, version, claiming.sent_at, frozenset({record.nonce}))
    deadline = now.mono + flight.policy.load_timeout
    loading = Loading(claim, now.mono, deadline, claiming.sent_at + flight.policy.lease / 3)
    told: tuple[Event, ...] = (ev.Claimed(flight.key),)
    if flight.healing:
        told = (*told, ev.RecordHealed(flight.key))
    held = replace(flight.held, version=version, version_since=now.mono)
    flight = replace(flight, phase=loading, held=held, healing=False)
    early = meanwhile(flight, now) if flight.policy.background else None
    until = min(deadline, loading.renew_at)
    return Step(flight, ev.StartLoad(record.answer, deadline, until), told, early)


# -- loading -----------------------------------------------------------------------------------------------------


def _loaded(flight: Flight, loading: Loading, came: Input, now: Now) -> Step:
    if isinstance(came, ev.Elapsed):
        if now.mono < loading.deadline:
            return _renew(flight, loading, now)
        seconds = flight.policy.load_timeout
        came = ev.LoadFailed("timeout", f"the upstream did not answer within {seconds:g} s")
    previous = flight.held.answer
    took = now.mono - loading.started_at
    if isinstance(came, ev.LoadUnchanged):
        if previous is None:
            came = ev.LoadFailed("not-modified", "the load said 'not modified', but there was no previous answer")
        else:
            came = ev.LoadDone(previous.value, previous.validator, previous.extra)
    if isinstance(came, ev.LoadDone):
        at = now.store if previous is None else max(now.store, flight.held.anchored(now) + TICK)
        own = Answer(came.value, round(at, 6), came.validator, came.extra, took)
        told = ev.UpstreamCalled(flight.key, took, True, loading.claim is not None)
        return _told(_publish(flight, loading, own, None, now), told)
    if isinstance(came, ev.LoadFailed):
        told = ev.UpstreamCalled(flight.key, took, False, loading.claim is not None)
        return _told(_publish(flight, loading, None, came, now), told)
    raise _unexpected(flight, came)


def _renew(flight: Flight, loading: Loading, now: Now) -> Step:
    claim = loading.claim
    if claim is None or loading.lost or now.mono < loading.renew_at:
        return _await(flight, loading)
    record = renewed(claim.record, at=now.store, nonce=now.nonce)
    claim = replace(claim, nonces=claim.nonces | {record.nonce})
    renewing = Renewing(loading, claim, record, now.mono)
    return Step(replace(flight, phase=renewing), ev.Write(record, claim.version))


def _renewed(flight: Flight, renewing: Renewing, came: Input, now: Now) -> Step:
    match came:
        case ev.Landed(version):
            return _told(_renewal(flight, renewing, version), ev.LeaseRenewed(flight.key))
        case ev.Refused():
            return _verify(flight, renewing)
        case ev.Unknown(why):
            return _verify(flight, renewing, why)
        case ev.Throttled() | ev.Unwritable():
            return _await_again(flight, renewing, now)
    raise _unexpected(flight, came)


def _renewal(flight: Flight, renewing: Renewing, version: Version) -> Step:
    record = renewing.record
    claim = Claim(record, version, renewing.sent_at, frozenset({record.nonce}))
    renew_at = renewing.sent_at + flight.policy.lease / 3
    return _await(flight, replace(renewing.loading, claim=claim, renew_at=renew_at))


def _await(flight: Flight, loading: Loading) -> Step:
    until = loading.deadline if loading.lost else min(loading.deadline, loading.renew_at)
    return Step(replace(flight, phase=loading), ev.AwaitLoad(until))


def _await_again(flight: Flight, renewing: Renewing, now: Now) -> Step:
    """The renewal did not land, or nobody knows: try again well inside what is left of the lease."""
    renew_at = now.mono + flight.policy.lease / 6
    return _await(flight, replace(renewing.loading, claim=renewing.claim, renew_at=renew_at))


# -- publishing --------------------------------------------------------------------------------------------------


def _publish(flight: Flight, loading: Loading, own: Answer | None, came: ev.LoadFailed | None, now: Now) -> Step:
    claim = loading.claim
    if claim is None:
        return _unshared(flight, own, came, loading.store_why, now)
    if own is not None:
        if loading.lost:
            return Step(replace(flight, phase=Comparing(own, None)), ev.Read())
        return _send(flight, Publishing(claim, answered(own, nonce=now.nonce), sent=0))
    if came is None:
        raise ValueError("neither an answer nor a failure")
    failure, told = _failure(flight, claim, came, now)
    if loading.lost:
        return Step(replace(flight, phase=Comparing(None, failure)), ev.Read(), (told,))
    publishing = Publishing(claim, failed(claim.record, failure, nonce=now.nonce), sent=0)
    return _told(_send(flight, publishing), told)


def _failure(flight: Flight, claim: Claim, came: ev.LoadFailed, now: Now) -> tuple[Failure, Event]:
    last = claim.record.failure
    count = last.count + 1 if last is not None else 1
    backoff = flight.policy.backoff(count, now.chance, came.retry_after)
    # What the upstream refused with consideration stays refused until it gives an answer again.
    authoritative = came.authoritative or (last is not None and last.authoritative)
    failure = Failure(count, came.kind, came.message, now.store, now.store + backoff, authoritative)
    return failure, ev.UpstreamFailed(flight.key, came.kind, came.message, count, backoff)


def _send(flight: Flight, publishing: Publishing) -> Step:
    nonces = publishing.claim.nonces | {publishing.record.nonce}
    publishing = replace(publishing, claim=replace(publishing.claim, nonces=nonces), sent=publishing.sent + 1)
    return Step(replace(flight, phase=publishing), ev.Write(publishing.record, publishing.claim.version))


def _published(flight: Flight, publishing: Publishing, came: Input, now: Now) -> Step:
    match came:
        case ev.Landed(version):
            return _shared(flight, publishing, version, now)
        case ev.Refused():
            return _verify(flight, publishing)
        case ev.Unknown(why):
            return _verify(flight, publishing, why)
        case ev.Throttled(pause):
            return _hold(flight, publishing, max(1.0, pause or 0.0), verify=False, now=now)
        case ev.Unwritable(why):
            if publishing.record.answer is None or publishing.record.failure is not None:
                return _give_up(flight, publishing, now)
            came = ev.LoadFailed("unwritable", why)
            failure, told = _failure(flight, publishing.claim, came, now)
            record = failed(publishing.claim.record, failure, nonce=now.nonce)
            return _told(_send(flight, Publishing(publishing.claim, record, sent=0)), told)
    raise _unexpected(flight, came)


def _shared(flight: Flight, publishing: Publishing, version: Version, now: Now) -> Step:
    """The publish landed: what stands in the record is what the callers get."""
    record = publishing.record
    held = _with_own(flight, record, version, now)
    flight = replace(flight, held=held)
    if record.failure is None and record.answer is not None:
        step = _give_own(flight, record.answer, now)
    else:
        step = _refuse(flight, record.failure, now)
    return _told(step, ev.Published(flight.key))


def _with_own(flight: Flight, record: Record, version: Version | None, now: Now) -> Held:
    return absorb(flight.policy, flight.held, record, version or flight.held.version, now)


def _give_own(flight: Flight, own: Answer, now: Now) -> Step:
    """After a load that succeeded: its answer, or a newer one that was met on the way."""
    held, policy = flight.held, flight.policy
    if held.answer is None:
        raise ValueError("an answer of our own was given up")
    age = held.age(now)
    if not held.usable(policy, age):
        # This node was held up between load and publish, for longer than the answer may be served: look again.
        return Step(replace(flight, phase=Looking()), ev.Read())
    mine = (held.answer.fetched_at, held.answer.value) == (own.fetched_at, own.value)
    give = Give(held.answer, age, "fresh" if held.fresh(policy, age) else "stale", refreshed=mine)
    return _over(flight, give, now, held.due_age - age)


def _refuse(flight: Flight, failure: Failure | None, now: Now) -> Step:
    """After a failed load: the last answer where it may still be served, else the failure."""
    held, policy = flight.held, flight.policy
    age = held.age(now)
    wait = max(0.0, failure.retry_at - now.store) if failure is not None else 0.0
    look_in = min(wait, policy.ttl)
    if held.answer is not None and held.usable(policy, age):
        give = Give(held.answer, age, "fresh" if held.fresh(policy, age) else "stale-on-error")
        return _over(flight, give, now, look_in)
    outcome = refusal(failure, wait) if failure is not None else Fail("unknown", "no usable answer")
    return _over(flight, outcome, now, look_in)


def _hold(flight: Flight, publishing: Publishing, pause: float, *, verify: bool, now: Now) -> Step:
    """Callers get their answer; the publish is tried again for as long as the lease lasts."""
    wait = pause * (1 + now.chance)
    if now.mono + wait >= publishing.claim.valid_from + flight.policy.lease:
        return _give_up(flight, publishing, now)
    given = _give_up(flight, publishing, now)
    held = replace(flight, held=given.flight.held, phase=Holding(publishing, verify))
    return Step(held, ev.Wait(wait, None, None), (), given.deliver)


def _give_up(flight: Flight, publishing: Publishing, now: Now) -> Step:
    """The record stays locked until the lease is over; this node goes by what it knows."""
    record = publishing.record
    flight = replace(flight, held=_with_own(flight, record, None, now))
    if record.failure is None and record.answer is not None:
        return _give_own(flight, record.answer, now)
    return _refuse(flight, record.failure, now)


# -- verifying ---------------------------------------------------------------------------------------------------


def _verify(flight: Flight, write: Claiming | Renewing | Publishing, why: str = "") -> Step:
    return Step(replace(flight, phase=Verifying(write, why)), ev.Read())


def _verified(flight: Flight, verifying: Verifying, came: Input, now: Now) -> Step:
    write = verifying.write
    if isinstance(came, ev.Found) and came.record.nonce == write.record.nonce:
        step = _landed_after_all(flight, write, came.version, now)
        return _told(step, ev.WriteReconciled(flight.key, True))
    if isinstance(came, ev.ReadFailed):
        return _unverified(flight, write, came.why, now)
    if isinstance(write, Claiming):
        untouched = came == ev.Missing() if write.match is ABSENT else _version(came) == write.match
        if untouched and write.sent <= RESENDS:
            again = replace(write, sent=write.sent + 1)
            step = Step(replace(flight, phase=again), ev.Write(write.record, write.match))
            return _told(step, ev.WriteReconciled(flight.key, False)) if verifying.why else step
        if untouched:
            # It can be read, and takes no writes: a disk that is full, a right that is missing.
            return _store_down(flight, verifying.why or "it refuses a write whose condition holds", now)
        lost = replace(flight, phase=Looking(), claims_lost=flight.claims_lost + 1, waited=0.0)
        return _told(_looked(lost, came, now), ev.ClaimLost(flight.key))
    ours = _standing(write.claim, came)
    if ours is not None and isinstance(write, Renewing):
        return _await_again(flight, replace(write, claim=ours), now)
    if ours is not None and isinstance(write, Publishing) and write.sent <= RESENDS:
        step = _send(flight, replace(write, claim=ours))
        return _told(step, ev.WriteReconciled(flight.key, False)) if verifying.why else step
    if ours is not None and isinstance(write, Publishing):
        return _give_up(flight, write, now)
    lease_lost = ev.LeaseLost(flight.key)
    if isinstance(write, Renewing):
        return _told(_await(flight, replace(write.loading, claim=write.claim, lost=True)), lease_lost)
    own = write.record.answer if write.record.failure is None else None
    step = _compared(replace(flight, phase=Over()), Comparing(own, write.record.failure), came, now)
    return _told(step, lease_lost)


def _landed_after_all(flight: Flight, write: Claiming | Renewing | Publishing, version: Version, now: Now) -> Step:
    match write:
        case Claiming():
            return _lead(flight, write, version, now)
        case Renewing():
            return _renewal(flight, write, version)
        case Publishing():
            return _shared(flight, write, version, now)


def _unverified(flight: Flight, write: Claiming | Renewing | Publishing, why: str, now: Now) -> Step:
    down = ev.StoreDown(flight.key, why)
    match write:
        case Claiming():
            # If it did land after all, it holds up nobody for longer than one lease.
            return _store_down(flight, why, now)
        case Renewing():
            return _told(_await_again(flight, write, now), down)
        case Publishing():
            return _told(_hold(flight, write, 1.0, verify=True, now=now), down)


def _standing(claim: Claim, came: Input) -> Claim | None:
    """The claim, if one of this leader's writes is what stands in the store, whichever it is."""
    if _version(came) == claim.version:
        return claim
    if isinstance(came, ev.Found) and came.record.nonce in claim.nonces:
        return replace(claim, version=came.version)
    return None


def _version(came: Input) -> Version | None:
    return came.version if isinstance(came, ev.Found | ev.Unreadable) else None


def _compared(flight: Flight, comparing: Comparing, came: Input, now: Now) -> Step:
    """Somebody took over: the newer of the two answers, so that nobody sees one older than was published."""
    held = flight.held
    if comparing.own is not None:
        held = absorb(flight.policy, held, answered(comparing.own, nonce=now.nonce), held.version, now)
    if isinstance(came, ev.Found):
        held = absorb(flight.policy, held, came.record, came.version, now)
    flight = replace(flight, held=held)
    if comparing.own is not None:
        return _give_own(flight, comparing.own, now)
    if held.answer is not None and held.fresh(flight.policy, held.age(now)):
        return _give_own(flight, held.answer, now)
    return _refuse(flight, comparing.failure, now)


# -- when the store is down ----------------------------------------------------------------------------------------


def _store_down(flight: Flight, why: str, now: Now) -> Step:
    down = ev.StoreDown(flight.key, why)
    held, policy = flight.held, flight.policy
    age = held.age(now)
    if held.answer is not None and held.usable(policy, age):
        give = Give(held.answer, age, "fresh" if held.fresh(policy, age) else "stale-on-error")
        return _told(_over(flight, give, now, min(1.0, policy.ttl / 10)), down)
    if not flight.recalled:
        return Step(replace(flight, phase=Recalling(why), recalled=True), ev.Recall(), (down,))
    if now.mono - held.called_at >= policy.ttl:
        deadline = now.mono + policy.load_timeout
        loading = Loading(None, now.mono, deadline, store_why=why)
        flight = replace(flight, phase=loading, held=replace(held, called_at=now.mono))
        return Step(flight, ev.StartLoad(held.answer, deadline, deadline), (down,))
    wait = held.called_at + policy.ttl - now.mono
    fail = Fail("store", "this node called the upstream less than one ttl ago", retry_in=wait, store_why=why)
    if held.failure is not None:
        fail = refusal(held.failure, wait, why)
    return _told(_over(flight, fail, now, 0.0), down)


def _recalled(flight: Flight, why: str, came: Input, now: Now) -> Step:
    if not isinstance(came, ev.Recalled):
        raise _unexpected(flight, came)
    if came.answer is not None:
        held = replace(
            flight.held,
            answer=came.answer,
            as_of=now.store - came.age,
            since=now.mono - came.age,
            own=True,
            due_age=flight.policy.due_age(now.chance),
        )
        flight = replace(flight, held=held)
    step = _store_down(flight, why, now)
    return step._replace(told=step.told[1:])  # said once, before the recall


def _unshared(flight: Flight, own: Answer | None, came: ev.LoadFailed | None, store_why: str, now: Now) -> Step:
    """A call made because the store was down: for this node alone."""
    if own is not None:
        held = _with_own(flight, answered(own, nonce=now.nonce), None, now)
        if held.answer is own:
            # Dated by a clock that may never have seen the store's: what is certain is when it came in.
            held = replace(held, own=True)
        return _give_own(replace(flight, held=held), own, now)
    if came is None:
        raise ValueError("neither an answer nor a failure")
    wait = flight.policy.ttl
    fail = Fail(came.kind, came.message, 1, wait, came.authoritative, store_why)
    told = ev.UpstreamFailed(flight.key, came.kind, came.message, 1, wait)
    return _told(_over(flight, fail, now, 0.0), told)


# -- the ends ------------------------------------------------------------------------------------------------------


def _over(flight: Flight, outcome: Outcome, now: Now, look_in: float) -> Step:
    held = settle(flight.held, now, outcome, look_in)
    told: tuple[Event, ...] = ()
    if isinstance(outcome, Give) and not outcome.refreshed:
        if outcome.state == "fresh":
            told = (ev.Hit(flight.key, outcome.age, stored=True),)
        else:
            told = (ev.StaleServed(flight.key, outcome.age, outcome.state == "stale-on-error"),)
    return Step(replace(flight, phase=Over(), held=held), ev.Stop(), told, outcome)


def _told(step: Step, event: Event) -> Step:
    return step._replace(told=(event, *step.told))


def _unexpected(flight: Flight, came: Input) -> TypeError:
    return TypeError(f"{type(came).__name__} cannot come of {type(flight.phase).__name__}")
