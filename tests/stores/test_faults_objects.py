"""S3 and Google Cloud Storage behind the fault proxy: whatever the network does, what a write reports is true.

Every value is the list of all operations that ever landed on its key, each under a name of its own. So the value that
is there in the end says of every single write whether it landed, whatever its caller was told:

    success                       it is in the list, once
    Conflict, Throttled           it is not
    AmbiguousWrite                either; never twice

SeaweedFS, fake-gcs-server and Azurite check and write atomically. moto does not, so it proves nothing here.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from kvcache.errors import AmbiguousWrite, Conflict, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT
from tests.proxy import Duplicate, HttpProxy, storm
from tests.stores.rig import STYLES, bucket_of, store_at

SERVERS = ["seaweedfs", "seaweedfs obstore", "fake_gcs", "azurite"]
"""Fixtures, and the client library where it is not the usual one."""
RUNS = 40
SOAK_RUNS = 1500
LANES = 4
"""Runs at a time, each with a proxy and stores of its own: most of a run is waiting for time-outs."""
TIMEOUT = 1.2
"""Seconds for one operation; its requests have half of that, and what the proxy delays arrives after it."""
DELAY = 0.8


@dataclass
class Told:
    """What the callers of one run were told."""

    landed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def contradictions(self, history: list[str]) -> list[str]:
        counts = Counter(history)
        return [
            *(
                f"{name}: reported as written, and is there {counts[name]} times"
                for name in self.landed
                if counts[name] != 1
            ),
            *(f"{name}: reported as refused, and is there" for name in self.refused if counts[name]),
            *(f"{name}: is there {count} times" for name, count in counts.items() if count > 1),
            *(f"{name}: nobody wrote it" for name in counts.keys() - {*self.landed, *self.refused, *self.unknown}),
        ]


class Lane:
    """A proxy before a server, and two clients of it: a store each."""

    def __init__(self, server, style, bucket, more=""):
        self.style = style
        self.proxy = HttpProxy(server.port)
        self.proxy.__enter__()
        options = f"check=off&timeout={TIMEOUT}s{more}"
        self.stores = [store_at(server, bucket, "", self.proxy.url, options) for _ in range(2)]
        self.behind = store_at(server, bucket, "", None, "check=off")
        self.behind.write("warm", b"")  # the first write to a bucket of SeaweedFS takes a second
        for store in self.stores:
            store.read("warm")

    def run(self, seed, writers):
        """One run: the faults of `seed`, a key of its own, three operations for each writer. Returns contradictions."""
        key, told = f"run-{secrets.token_hex(6)}", Told()
        faults = storm(self.style, 0.35, delay=DELAY)
        if writers > 1:
            # The one thing that nobody can see through: a gateway sends our only copy twice, somebody overwrites the
            # first at once, and we get the second's refusal.
            faults = [fault for fault in faults if fault.action != Duplicate("second")]
        self.proxy.forget()
        self.proxy.follow(faults, seed)
        names = (f"{seed}.{writer}.{number}" for writer in itertools.count() for number in range(3))
        per_writer = [list(itertools.islice(names, 3)) for _ in range(writers)]
        threads = [
            threading.Thread(target=append, args=(store, key, ops, told))
            for store, ops in zip(self.stores, per_writer, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.proxy.wait_idle()
        self.proxy.follow([])
        try:
            history = json.loads(self.behind.read(key))
        except NotFound:
            history = []
        wrong = told.contradictions(history)
        return [f"seed {seed}, {writers} writers: {line}\n{self.proxy.history()}" for line in wrong], told

    def close(self):
        for store in (*self.stores, self.behind):
            store.close()
        self.proxy.__exit__(None, None, None)


def append(store, key, names, told):
    """Appends each name to the list under `key`, once, and notes what the store said of it."""
    version, history = None, []
    for name in names:
        for _ in range(20):
            try:
                if version is None:
                    version, history = read(store, key)
                break
            except StoreUnavailable:
                continue
        else:
            return
        try:
            version = store.write_if(key, json.dumps([*history, name]).encode(), version)
            history = [*history, name]  # goes on from the version that the write gave, without reading
            told.landed.append(name)
            continue
        except (Conflict, Throttled):
            told.refused.append(name)
        except AmbiguousWrite:
            told.unknown.append(name)
        except StoreUnavailable:
            told.refused.append(name)  # no connection came about: certainly not written
        version = None


def read(store, key):
    try:
        stored = store.read_versioned(key)
    except NotFound:
        return ABSENT, []
    return stored.version, json.loads(stored.data)


@pytest.fixture(params=SERVERS)
def lanes(request, monkeypatch):
    name, _, engine = request.param.partition(" ")
    server = request.getfixturevalue(name)
    for variable, value in server.env.items():
        monkeypatch.setenv(variable, value)
    bucket = bucket_of(server)
    opened = [Lane(server, STYLES[name], bucket, engine and f"&engine={engine}") for _ in range(LANES)]
    yield opened
    for lane in opened:
        lane.close()


def storms(lanes, runs, first_seed):
    """Many runs, on all lanes; returns how often each outcome was told."""
    seeds = iter(range(first_seed, first_seed + runs))
    lock = threading.Lock()
    outcomes = Counter()

    def lane_work(lane):
        while True:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return []
            wrong, told = lane.run(seed, writers=1 + seed % 2)
            with lock:
                outcomes.update(landed=len(told.landed), refused=len(told.refused), unknown=len(told.unknown))
            if wrong:
                return wrong

    with ThreadPoolExecutor(len(lanes)) as pool:
        wrong = [line for lines in pool.map(lane_work, lanes) for line in lines]
    assert not wrong, "\n".join(wrong)
    return outcomes


def test_no_write_is_misreported(lanes):
    outcomes = storms(lanes, RUNS, first_seed=0)
    print(outcomes)
    assert outcomes["landed"] > RUNS  # the faults leave something to be judged


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_write_is_misreported_in_a_long_storm(lanes):
    print(storms(lanes, SOAK_RUNS, first_seed=secrets.randbelow(10**6)))
