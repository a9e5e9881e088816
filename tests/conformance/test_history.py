"""Recorded races of threads and of processes, on real stores and on defective ones."""

from __future__ import annotations

import math
import random
import time

import pytest

from kvcache.backends.memory import MemoryStore
from kvcache.conformance.check import KEPT, Broken
from kvcache.conformance.history import Client, script
from kvcache.conformance.linearizability import is_linearizable
from kvcache.conformance.processes import linearizable_across_processes
from kvcache.conformance.registers import expect_linearizable, linearizable
from kvcache.errors import AmbiguousWrite, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT, ANYWAY, Stored, Version
from kvcache.url import open_store
from tests.conformance.subjects import url_of


def recorded(store, kinds):
    client = Client(store, "key", "me")
    client.follow(kinds)
    return client


def test_what_a_client_records():
    client = recorded(MemoryStore(), ["read", "write_if", "read", "write", "write_if", "delete", "read"])
    assert [(o.kind, o.value, o.expected, o.outcome) for o in client.operations] == [
        ("read", None, None, "ok"),
        ("write_if", "me#2", None, "ok"),
        ("read", "me#2", None, "ok"),
        ("write", "me#4", None, "ok"),
        ("write_if", "me#5", "me#4", "ok"),
        ("delete", None, None, "ok"),
        ("read", None, None, "ok"),
    ]
    times = [moment for o in client.operations for moment in (o.called, o.returned)]
    assert times == sorted(times)
    assert is_linearizable(client.operations)


def test_a_refusal_is_recorded_with_what_was_expected():
    store = MemoryStore()
    first = Client(store, "key", "first")
    first.follow(["write"])
    store.write("key", b"other#1")
    first.follow(["write_if"])
    assert (first.operations[-1].outcome, first.operations[-1].expected) == ("conflict", "first#1")


@pytest.mark.parametrize("lands", [True, False])
def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(lands):
    class Loses(MemoryStore):
        lose = False

        def put(self, key, data, condition):
            if not self.lose:
                return super().put(key, data, condition)
            if lands:
                super().put(key, data, condition)
            raise AmbiguousWrite("lost")

    store = Loses()
    client = recorded(store, ["write", "read"])
    store.lose = True
    client.follow(["write_if", "read"])
    written, read = client.operations[-2:]
    assert (written.outcome, written.returned) == ("unknown", math.inf)
    assert read.value == (written.value if lands else "me#1")
    assert is_linearizable(client.operations)


def test_what_was_certainly_not_carried_out_is_not_in_the_history():
    class Refuses(MemoryStore):
        def put(self, key, data, condition):
            raise Throttled("slow down", retry_after=0.01)

        def read_versioned(self, key):
            raise StoreUnavailable("no answer")

    assert recorded(Refuses(), ["write", "read", "write_if"]).operations == []


def test_scripts():
    assert script(1, 50, conditional=True) == script(1, 50, conditional=True)
    assert script(1, 50, conditional=True) != script(2, 50, conditional=True)
    assert set(script(1, 200, conditional=True)) == {"read", "write", "write_if", "delete"}
    assert "write_if" not in script(1, 200, conditional=False)


class ChecksThenActs(MemoryStore):
    def put(self, key, data, condition):
        if condition is not ANYWAY:
            held = super().stat(key).version if key in super().list(key) else ABSENT
            if held == condition:
                time.sleep(0.002)
                return super().put(key, data, ANYWAY)
        return super().put(key, data, condition)


class ReadsAReplica(MemoryStore):
    """Reads lag behind by some milliseconds, as where replicas answer."""

    def __init__(self):
        super().__init__()
        self.old: dict[str, tuple[float, Stored]] = {}

    def read_versioned(self, key):
        now = time.monotonic()
        if key in self.old and now - self.old[key][0] < 0.01:
            return self.old[key][1]
        stored = super().read_versioned(key)
        self.old[key] = (now, stored)
        time.sleep(0.0005)
        return stored


class ForgetsDeletes(MemoryStore):
    """Every now and then a deleted key is there for a moment longer."""

    def __init__(self):
        super().__init__()
        self.last: dict[str, Stored] = {}

    def read_versioned(self, key):
        try:
            self.last[key] = super().read_versioned(key)
        except NotFound:
            if key in self.last and random.random() < 0.5:
                return self.last[key]
            raise
        return self.last[key]


class RepeatsVersions(MemoryStore):
    def read_versioned(self, key):
        stored = super().read_versioned(key)
        return Stored(stored.data, Version(str(len(stored.data))), stored.store_time)


@pytest.mark.parametrize("defective", [ChecksThenActs, ReadsAReplica, ForgetsDeletes, RepeatsVersions])
def test_threads_find_it(defective):
    with pytest.raises(Broken) as caught:
        linearizable(seed=1).verify(defective())
    evidence = str(caught.value)
    print(evidence)
    if defective is not RepeatsVersions:
        assert len(evidence.splitlines()) < 20, "the evidence is not small"
        assert " ms  " in evidence


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_store_is_linearizable_to_threads(seed, tmp_path):
    for store in (MemoryStore(), open_store(f"file://{tmp_path}/a?locking=flock"), open_store(f"file://{tmp_path}/b")):
        assert linearizable(seed).verify(store) == KEPT
        assert list(store.list()) == []


def test_a_sound_store_is_linearizable_to_processes(tmp_path):
    url = f"file://{tmp_path}/store?locking=flock"
    with open_store(url) as store:
        assert linearizable_across_processes(url, seed=4).verify(store) == KEPT
        assert list(store.list()) == []


def test_redis_is_linearizable_to_processes(redis):
    url = url_of(redis)
    with open_store(url) as store:
        assert linearizable_across_processes(url, seed=4).verify(store) == KEPT


def test_processes_find_a_server_that_ignores_conditions(nanio, monkeypatch):
    for name, value in nanio.env.items():
        monkeypatch.setenv(name, value)
    url = f"{url_of(nanio)}&probe=off"
    with open_store(url) as store, pytest.raises(Broken, match=r"any order|seen under the versions|stood for"):
        linearizable_across_processes(url, seed=4).verify(store)


def test_processes_that_cannot_open_the_store_are_no_evidence_against_it(tmp_path):
    with open_store(f"file://{tmp_path}/store") as store, pytest.raises(StoreUnavailable, match="processes"):
        linearizable_across_processes("file://nonsense?no=1", seed=1).verify(store)


def test_the_clients_of_one_key_are_judged_together():
    store = MemoryStore()
    one, other = Client(store, "key", "one"), Client(store, "key", "other")
    one.follow(["write", "read"])
    other.follow(["read", "write"])
    expect_linearizable([one, other])
    with pytest.raises(Broken):
        expect_linearizable([other])  # it read what nobody wrote
