"""Running the contract: outcomes, bounds, cleaning up."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest

from kvcache.backends.memory import MemoryStore
from kvcache.conformance import CONTRACT, Check, contract, examine, most_requests
from kvcache.conformance.check import Broken, scratch
from kvcache.conformance.meter import PART, Metered, Spent
from kvcache.conformance.run import unprobed
from kvcache.errors import NotFound, StoreUnavailable
from kvcache.kvs import ABSENT, ANYWAY, Condition, Version
from kvcache.url import open_store

CHECKS = {check.name: check for check in CONTRACT}


def check(run, at_most=100) -> Check:
    return Check("made_up", "A promise.", (), run, at_most)


class IgnoresConditions(MemoryStore):
    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        return super().put(key, data, ANYWAY)


@pytest.fixture(params=["memory://", "file://{}?locking=flock", "file://{}"])
def store(request, tmp_path):
    with open_store(request.param.format(tmp_path / "store")) as opened:
        yield opened


def test_a_sound_store_keeps_what_it_offers_within_the_bounds(store):
    told = []
    findings = examine(store, contract(seed=1), tell=told.append)
    assert list(findings) == told
    assert {finding.outcome for finding in findings} <= {"kept", "not offered"}
    assert {finding.evidence for finding in findings} == {""}
    for finding in findings:
        assert finding.requests <= finding.check.at_most, finding
    assert sum(finding.requests for finding in findings) <= most_requests(CONTRACT)
    assert list(store.list()) == []


def test_a_defect_is_broken_with_its_evidence_and_the_rest_goes_on():
    findings = {finding.check.name: finding for finding in examine(IgnoresConditions(), CONTRACT)}
    assert len(findings) == len(CONTRACT)
    assert findings["stale"].outcome == "broken"
    assert "due was Conflict" in findings["stale"].evidence
    assert findings["linearizable"].outcome == "broken"
    assert "cannot have happened in any order" in findings["linearizable"].evidence
    assert findings["delete"].outcome == "kept"


def test_a_check_is_stopped_at_its_bound_and_what_it_wrote_is_removed():
    store = MemoryStore()

    def forever(metered):
        with scratch(metered) as key:
            for number in itertools.count():
                metered.write(key(str(number)), b"x")

    (finding,) = examine(store, [check(forever, at_most=20)])
    assert (finding.outcome, finding.requests) == ("undecided", 20)
    assert "20 requests" in finding.evidence
    assert list(store.list()) == []


def test_being_stopped_is_no_evidence_against_the_store():
    def misreads(metered):
        try:
            for _ in range(100):
                metered.list()
        except StoreUnavailable as error:
            raise Broken("it failed") from error

    assert examine(MemoryStore(), [check(misreads, at_most=5)])[0].outcome == "undecided"


def test_time_is_bounded():
    seconds = itertools.count()
    findings = examine(MemoryStore(), CONTRACT, time_limit=30.0, clock=lambda: float(next(seconds)))
    assert findings[0].outcome in ("kept", "undecided")
    assert findings[-1].outcome == "undecided"
    assert findings[-1].requests == 0
    assert "time" in findings[-1].evidence


def test_a_store_that_does_not_answer_is_not_called_broken():
    class Down(MemoryStore):
        def read_versioned(self, key):
            raise StoreUnavailable("no route to redis://user:secret@host/0")

    for name in ("read_what_was_written", "nothing_there", "vanished", "key_that_begins_another", "linearizable"):
        (finding,) = examine(Down(), [CHECKS[name]])
        assert finding.outcome in ("undecided", "kept"), finding
        assert "secret" not in finding.evidence
    assert examine(Down(), [CHECKS["nothing_there"]])[0].evidence.startswith("StoreUnavailable: no route")


def test_a_store_that_never_answers_is_not_asked_for_long():
    class Dead(MemoryStore):
        asked = 0

        def _fail(self, *arguments, **named):
            Dead.asked += 1
            raise StoreUnavailable("no answer")

        put = delete = read_versioned = stat = list = upload = download = wait_for_change = _fail

    findings = examine(Dead(), CONTRACT)
    assert {finding.outcome for finding in findings} == {"undecided"}
    assert findings[-1].evidence.startswith("not asked")
    assert Dead.asked < 10


def test_no_secret_of_an_unexpected_error_is_evidence():
    class Leaks(MemoryStore):
        def read_versioned(self, key):
            raise RuntimeError("cannot reach https://user:secret@host/bucket")

    for name in ("read_what_was_written", "nothing_there"):
        (finding,) = examine(Leaks(), [CHECKS[name]])
        assert finding.outcome == "broken"
        assert "RuntimeError" in finding.evidence
        assert "secret" not in finding.evidence


def test_keys_of_others_are_left_alone():
    class Busy(IgnoresConditions):
        """Somebody else writes to it all the time."""

        def put(self, key, data, condition):
            super().put(f"others/{len(list(super().list('others/')))}", b"", ANYWAY)
            return super().put(key, data, condition)

    store = Busy()
    MemoryStore.put(store, "mine", b"precious", ANYWAY)
    findings = examine(store, [CHECKS[name] for name in ("hostile_keys", "delete", "list", "stale", "create_only")])
    assert findings[0].outcome == "kept"
    assert store.read("mine") == b"precious"
    assert {key.split("/")[0] for key in store.list()} == {"mine", "others"}


def test_what_counts_as_a_request(tmp_path):
    metered = Metered(MemoryStore())
    metered.allow(100, float("inf"))
    big = bytes(3 * PART + 1)
    for call, cost in (
        (lambda: metered.write("a", b"x"), 1),
        (lambda: metered.read("a"), 1),
        (lambda: metered.write_if("b", b"x", ABSENT), 1),
        (lambda: metered.write("big", big), 4),
        (lambda: metered.read("big"), 4),
        (lambda: metered.download("big", tmp_path / "big"), 4),
        (lambda: metered.upload("big", tmp_path / "big"), 4),
        (lambda: list(metered.list()), 1),
        (lambda: metered.stat("a"), 1),
        (lambda: metered.delete("a"), 1),
    ):
        before = metered.requests
        call()
        assert metered.requests - before == cost
    with pytest.raises(NotFound):
        metered.read("a")


def test_the_meter_counts_what_threads_ask():
    metered = Metered(MemoryStore())
    metered.allow(50, float("inf"))
    stopped = []

    def ask():
        try:
            for _ in range(20):
                metered.write("a", b"x")
        except Spent:
            stopped.append(1)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metered.requests + len(metered.written) == 50
    assert stopped


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("s3://us-east-1/bucket", "s3://us-east-1/bucket?probe=off"),
        ("gs://bucket/a?endpoint=http://x", "gs://bucket/a?endpoint=http://x&probe=off"),
        ("s3://us-east-1/bucket?probe=on", "s3://us-east-1/bucket?probe=on"),
        ("redis://host/0", "redis://host/0"),
        ("memory://", "memory://"),
    ],
)
def test_claims_are_examined_rather_than_withdrawn(url, opened):
    assert unprobed(url) == opened


def test_the_seed_decides_what_the_clients_of_a_race_do():
    def scripts(seed):
        seen = []

        class Notes(MemoryStore):
            def read_versioned(self, key):
                seen.append(threading.current_thread().name)
                return super().read_versioned(key)

        examine(Notes(), [found for found in contract(seed) if found.name == "linearizable"])
        return len(seen)

    assert scripts(3) == scripts(3)
    assert len({scripts(seed) for seed in range(4)}) > 1


def test_capabilities_that_are_not_claimed_are_not_offered():
    class Plain(MemoryStore):
        @property
        def capabilities(self):
            return replace(super().capabilities, conditional_write=False)

    outcomes = {finding.check.name: finding.outcome for finding in examine(Plain(), CONTRACT)}
    assert outcomes["stale"] == "not offered"
    assert outcomes["linearizable"] == "kept"


def test_a_deletion_of_the_empty_key_has_to_be_refused():
    """A store that strips its prefix from nothing might delete everything."""

    class DeletesNothing(MemoryStore):
        def delete(self, key):
            if key:
                super().delete(key)

    (finding,) = examine(DeletesNothing(), [CHECKS["hostile_keys"]])
    assert finding.outcome == "broken"
    assert "delete('') gave None; due was InvalidKey" in finding.evidence


def test_an_undecided_check_is_begun_again_and_what_it_found_stands():
    class Flickers(MemoryStore):
        failures = 3

        def stat(self, key):
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("away for a moment")
            return super().stat(key)

    (finding,) = examine(Flickers(), [CHECKS["stat"]], attempts=2)
    assert finding.outcome == "undecided"
    (finding,) = examine(Flickers(), [CHECKS["stat"]], attempts=4)
    assert finding.outcome == "kept"
    assert finding.requests > CHECKS["stat"].at_most / 20
    assert most_requests([CHECKS["stat"]], 4) == 4 * most_requests([CHECKS["stat"]])

    class Defective(IgnoresConditions):
        def __init__(self):
            super().__init__()
            self.failures = 1

        def put(self, key, data, condition):
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("away for a moment")
            return super().put(key, data, condition)

    assert examine(Defective(), [CHECKS["stale"]], attempts=3)[0].outcome == "broken"
