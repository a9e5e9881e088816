"""Artifacts in a storm: whatever the network does, what is in the bucket and what comes down is one artifact, whole.

Parts, ranges and time limits are made small, so that a run has all the requests of a large transfer and is over in
seconds. A run is told by its seed; `STORM_SEEDS=1000-1999` chooses those of the soak test.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvcache.backends import downloads, landing, s3_obstore, streams, uploads
from kvcache.errors import KVCacheError, NotFound
from tests.proxy import Answer, Corrupt, CutBody, Fault, HttpProxy, ResetBody, refusal, storm
from tests.servers.process import Server
from tests.stores.rig import STYLES, bucket_of, store_at

KiB = 1 << 10
RUNS = 8
LANES = 4
"""Runs at a time: most of a run is waiting for time-outs."""


@dataclass(frozen=True)
class Scale:
    """How small things are made, in bytes, and `deadline`: seconds that a request may take. What the proxy delays
    arrives after it."""

    part: int
    range: int
    deadline: float

    @property
    def sizes(self) -> list[int]:
        """Sizes of artifacts: around the limits."""
        part, range_ = self.part, self.range
        return [0, part - 1, part, part + 1, range_, range_ + 1, 2 * range_ - 1, 2 * part - 1, 2 * part, 2 * part + 7]


SCALES = {
    "seaweedfs": Scale(5 << 20, 2 << 20, 1.2),  # it takes no smaller parts, as S3
    "fake_gcs": Scale(64 * KiB, 32 * KiB, 0.6),
}


def shrink(monkeypatch: pytest.MonkeyPatch, scale: Scale) -> None:
    for module in (uploads, streams):
        monkeypatch.setattr(module, "PART", scale.part)
    for module in (downloads, landing):
        monkeypatch.setattr(module, "RANGE", scale.range)
        monkeypatch.setattr(module, "BLOCK", scale.range // 4)
    for module in (downloads, streams, s3_obstore):
        monkeypatch.setattr(module, "PART_SECONDS", scale.deadline)
    for module in (downloads, streams):
        monkeypatch.setattr(module, "pause_after", lambda attempt: 0.005)
    monkeypatch.setattr(landing, "CHECK", scale.range // 2)
    monkeypatch.setattr(landing, "FLUSH", scale.range)


@pytest.fixture(params=["seaweedfs", "seaweedfs obstore", "fake_gcs"])
def lanes(request, monkeypatch, tmp_path):
    """Of a server and, where it is not the usual one, the client library."""
    name, _, engine = request.param.partition(" ")
    server = request.getfixturevalue(name)
    for variable, value in server.env.items():
        monkeypatch.setenv(variable, value)
    scale = SCALES[name]
    shrink(monkeypatch, scale)
    more = f"&engine={engine}" if engine else ""
    opened = [
        Lane(server, STYLES[name], scale, bucket_of(server), tmp_path / str(number), more) for number in range(LANES)
    ]
    yield opened
    for lane in opened:
        lane.close()


def weather(style: str, scale: Scale, size: int) -> list[Fault]:
    """Faults of all kinds, also in the middle of an artifact's content."""
    middle = min(size, scale.range) // 2
    inside = [
        ResetBody(after=middle),
        ResetBody(after=middle, where="request"),
        CutBody(after=middle),
        CutBody(after=middle, seamless=True),
        Corrupt(at=middle),
        Corrupt(at=middle, where="request"),
    ]
    faults = [Fault(action, probability=0.03) for action in inside]
    for fault in storm(style, 0.25, delay=1.5 * scale.deadline):
        action = fault.action
        if isinstance(action, Answer) and action.status == 429:  # it asks for a pause, and gets a short one
            action = refusal(style, 429, retry_after=0.01)
        faults.append(Fault(action, probability=fault.probability))
    return faults


class Lane:
    """A proxy before a server, and a client of it."""

    def __init__(self, server: Server, style: str, scale: Scale, bucket: str, folder: Path, more: str) -> None:
        self.style = style
        self.scale = scale
        self.folder = folder
        folder.mkdir()
        self.proxy = HttpProxy(server.port)
        self.proxy.__enter__()
        self.store = store_at(server, bucket, "", self.proxy.url, f"check=off&timeout={2 * scale.deadline}s{more}")
        self.behind = store_at(server, bucket, "", None, "check=off")
        self.behind.write("warm", b"")

    def run(self, seed: int) -> tuple[list[str], Counter[str]]:
        """Two artifacts go up under one key, one after the other, and what is there comes down after each. Returns what
        was torn, and how the transfers ended."""
        dice, key, target = random.Random(seed), f"storm-{os.urandom(6).hex()}", self.folder / "back"
        target.unlink(missing_ok=True)
        whole: set[str] = set()
        torn, ends = [], Counter[str]()
        for _ in range(2):
            data = dice.randbytes(dice.choice(self.scale.sizes))
            whole.add(hashlib.sha256(data).hexdigest())
            self.proxy.follow(weather(self.style, self.scale, len(data)), dice.randrange(1 << 30))
            for name, transfer in {
                "up": lambda data=data: self.store.upload(key, io.BytesIO(data)),
                "down": lambda: self.store.download(key, target),
            }.items():
                try:
                    transfer()
                    ends[f"{name}: done"] += 1
                except KVCacheError as error:
                    ends[f"{name}: {type(error).__name__}"] += 1
                with contextlib.suppress(NotFound):
                    if hashlib.sha256(self.behind.read(key)).hexdigest() not in whole:
                        torn.append(f"seed {seed}: the bucket's is torn after {name}\n{self.proxy.history()}")
                if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() not in whole:
                    torn.append(f"seed {seed}: the local one is torn after {name}\n{self.proxy.history()}")
        self.proxy.wait_idle()
        self.proxy.follow([])
        self.proxy.forget()
        left = [path.name for path in self.folder.iterdir() if path != target]
        if left:
            torn.append(f"seed {seed}: left behind: {left}")
        with contextlib.suppress(NotFound):
            if hashlib.sha256(self.behind.read(key)).hexdigest() not in whole:
                torn.append(f"seed {seed}: the bucket's is torn by what came late\n{self.proxy.history()}")
        self.behind.delete(key)
        return torn, ends

    def close(self):
        self.store.close()
        self.behind.close()
        self.proxy.__exit__(None, None, None)


def storms(lanes: list[Lane], seeds: range) -> Counter[str]:
    """All runs, shared out among the lanes; returns how the transfers ended."""
    todo, lock, ends = iter(seeds), threading.Lock(), Counter[str]()

    def work(lane: Lane) -> list[str]:
        while True:
            with lock:
                seed = next(todo, None)
            if seed is None:
                return []
            torn, ended = lane.run(seed)
            with lock:
                ends.update(ended)
            if torn:
                return torn

    with ThreadPoolExecutor(len(lanes)) as pool:
        torn = [line for lines in pool.map(work, lanes) for line in lines]
    print(f"{len(seeds)} runs on {lanes[0].style}: {dict(sorted(ends.items()))}")
    assert not torn, "\n".join(torn)
    return ends


def test_no_artifact_is_ever_torn(lanes):
    ends = storms(lanes, range(RUNS))
    assert ends["up: done"] > RUNS / 2  # of two a run: the faults leave something to be judged
    assert ends["down: done"] > RUNS / 2


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_artifact_is_torn_in_a_long_storm(lanes):
    first, _, last = os.environ.get("STORM_SEEDS", "1000-1999").partition("-")
    storms(lanes, range(int(first), int(last or first) + 1))
