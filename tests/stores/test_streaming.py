"""Artifacts of any size: up and down whole or not at all, whatever breaks, with flat memory."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from fsspec.asyn import get_loop

from kvcache.backends import streams
from kvcache.backends.landing import RANGE
from kvcache.backends.streams import PART
from kvcache.errors import KVCacheError, NotFound, StoreUnavailable
from tests.proxy import Answer, Corrupt, CutBody, DropReply, Fault, ResetBody, SlowBody, refusal, storm
from tests.stores.rig import Rig, rigged

MiB = 1 << 20
SIZE = 4 * PART + 12345
"""Five parts up, three ranges down."""


@pytest.fixture(params=["seaweedfs", "fake_gcs"])
def rig(request):
    with rigged(request, request.param) as made:
        yield made


@pytest.fixture
def s3(request):
    with rigged(request, "seaweedfs") as made:
        yield made


@pytest.fixture
def gcs(request):
    with rigged(request, "fake_gcs") as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Parts are tried again without long pauses."""
    monkeypatch.setattr(streams, "pause_after", lambda attempt: 0.01)


@pytest.fixture
def artifact(tmp_path) -> Path:
    path = tmp_path / "artifact"
    path.write_bytes(os.urandom(SIZE))
    return path


def sending(rig: Rig) -> dict:
    """Selects the requests that carry the content of an upload: S3's parts, or Google's one."""
    return {"method": "PUT", "path": "partNumber" if rig.style == "s3" else "upload_id"}


def one_of(rig: Rig) -> dict:
    """Selects one of them, in the middle if there is one."""
    return {**sending(rig), "nth": 2 if rig.style == "s3" else 1}


def is_whole(rig: Rig, artifact: Path, key: str = "a") -> bool:
    return rig.behind.read(key) == artifact.read_bytes()


class Pipe(io.RawIOBase):
    """Can only be read forwards, in small pieces."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        piece = self._data.read(min(len(buffer), 60_000))
        buffer[: len(piece)] = piece
        return len(piece)


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, PART - 1, PART, RANGE + 1])
def test_sizes_around_the_parts(rig, tmp_path, size):
    data = os.urandom(size)
    there, back, progress = tmp_path / "there", tmp_path / "back", []
    there.write_bytes(data)
    version = rig.store.upload("a", there, progress.append)
    assert progress == sorted(set(progress))
    assert progress[-1] == size
    progress.clear()
    stat = rig.store.download("a", back, progress.append)
    assert (stat.size, stat.version) == (size, version)
    assert back.read_bytes() == data
    assert progress == sorted(set(progress))
    assert (progress or [0])[-1] == size


def test_sources_that_are_no_paths(rig):
    data = os.urandom(PART + 77)
    rig.store.upload("pipe", io.BufferedReader(Pipe(data)))
    assert rig.behind.read("pipe") == data
    rig.store.upload("raw pipe", Pipe(data))
    assert rig.behind.read("raw pipe") == data
    file = io.BytesIO(b"skipped" + data)
    file.seek(7)
    rig.store.upload("from where it stands", file)
    assert rig.behind.read("from where it stands") == data
    assert not file.closed


def test_uploads_carry_the_digest_of_what_was_uploaded(rig, artifact):
    rig.store.upload("a", artifact)
    head = asyncio.run_coroutine_threadsafe(rig.behind._bucket.head(rig.prefix + "a"), get_loop()).result()
    assert head.digest is not None
    assert (head.digest.algorithm, head.digest.value) == ("sha256", hashlib.sha256(artifact.read_bytes()).hexdigest())


# -- uploads that break -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        ResetBody(after=3 * MiB, where="request"),
        CutBody(after=3 * MiB, where="request"),
        DropReply(),
        Answer(500, b""),
        SlowBody(0.001, 512, where="reply"),
    ],
    ids=lambda action: type(action).__name__,
)
def test_an_upload_survives_a_broken_part(rig, artifact, action):
    rig.proxy.plan = [Fault(action, **one_of(rig))]
    version = rig.store.upload("a", artifact)
    rig.proxy.wait_idle()
    assert any(entry.action == action for entry in rig.proxy.journal)
    assert is_whole(rig, artifact)
    assert rig.behind.stat("a").version == version
    assert list(rig.behind.list()) == ["a"]


def test_an_upload_that_cannot_succeed_leaves_the_old_value_and_no_parts(rig, artifact):
    rig.behind.write("a", b"old")
    rig.proxy.plan = [Fault(refusal(rig.style, 500), **sending(rig) | {"nth": range(one_of(rig)["nth"], 1000)})]
    with pytest.raises(StoreUnavailable):
        rig.store.upload("a", artifact)
    rig.proxy.plan = []
    rig.proxy.wait_idle()
    assert rig.behind.read("a") == b"old"
    if rig.style == "s3":
        assert rig.half_done() == []
    else:
        assert rig.requests("DELETE", "upload_id")


def test_a_pipe_cannot_be_begun_again_on_a_store_that_loses_parts(gcs, artifact):
    gcs.proxy.plan = [Fault(refusal("gcs", 500), nth=2, **sending(gcs))]
    with pytest.raises(StoreUnavailable):
        gcs.store.upload("a", Pipe(artifact.read_bytes()))
    with pytest.raises(NotFound):
        gcs.behind.read("a")


def test_a_pipe_survives_a_broken_part_where_parts_can_be_sent_again(s3, artifact):
    s3.proxy.plan = [Fault(refusal("s3", 500), nth=2, **sending(s3))]
    s3.store.upload("a", Pipe(artifact.read_bytes()))
    assert is_whole(s3, artifact)


@pytest.mark.parametrize("times", [1, 100])
def test_the_answer_to_the_last_request_is_lost(s3, artifact, times):
    s3.proxy.plan = [Fault(DropReply(), method="POST", path="uploadId", times=times)]
    version = s3.store.upload("a", artifact)
    assert is_whole(s3, artifact)
    assert s3.behind.stat("a").version == version
    assert s3.half_done() == []


def test_an_upload_forgotten_by_the_service_is_begun_again(s3, artifact):
    s3.proxy.plan = [Fault(refusal("s3", 404, code="NoSuchUpload"), nth=3, **sending(s3))]
    s3.store.upload("a", artifact)
    assert is_whole(s3, artifact)
    assert len(s3.requests("POST", "uploads")) == 2
    assert s3.half_done() == []


def test_a_cancelled_upload_leaves_nothing(s3, artifact):
    started = threading.Event()
    s3.proxy.plan = [Fault(SlowBody(0.02, 4096, where="request"), **sending(s3), when=lambda _: started.set() or True)]
    future = asyncio.run_coroutine_threadsafe(s3.store.upload_async("a", artifact), get_loop())
    assert started.wait(30)
    future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    for _ in range(300):
        if s3.requests("DELETE", "uploadId"):
            break
        threading.Event().wait(0.05)
    assert s3.half_done() == []
    assert list(s3.behind.list()) == []


def test_a_source_that_changes_under_the_upload_is_not_stored(rig, artifact):
    class Changing(io.BytesIO):
        rewound = 0

        def seek(self, position, whence=0):
            self.rewound += 1
            if self.rewound == 1:
                self.getbuffer()[-1] ^= 1
            return super().seek(position, whence)

    rig.behind.write("a", b"old")
    for data in (artifact.read_bytes(), b"small"):
        with pytest.raises(StoreUnavailable, match="changed while"):
            rig.store.upload("a", Changing(data))
    assert rig.behind.read("a") == b"old"


def test_damage_on_the_way_up_is_noticed(rig, artifact):
    rig.proxy.plan = [Fault(Corrupt(at=PART // 2, where="request"), **one_of(rig))]
    rig.store.upload("a", artifact)
    assert is_whole(rig, artifact)


# -- downloads that break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [ResetBody(after=3 * MiB), CutBody(after=3 * MiB), DropReply(), Answer(503, b""), ResetBody(after=0)],
    ids=lambda action: f"{type(action).__name__}",
)
def test_a_download_goes_on_from_where_it_broke(rig, artifact, tmp_path, action):
    rig.behind.upload("a", artifact)
    ranged = {"method": "GET", "when": lambda seen: "range" in seen.headers}
    rig.proxy.plan = [Fault(action, nth=range(2, 5), **ranged)]
    rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == artifact.read_bytes()


def test_what_has_come_is_not_asked_for_again(rig, artifact, tmp_path):
    rig.behind.upload("a", artifact)
    asked = []
    rig.proxy.plan = [
        Fault(
            CutBody(after=3 * MiB),
            nth=1,
            when=lambda seen: bool(asked.append(seen.headers.get("range"))) or "range" in seen.headers,
        )
    ]
    rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == artifact.read_bytes()
    starts = sorted(int(span.removeprefix("bytes=").split("-")[0]) for span in asked if span)
    resumed = [start for start in starts if start % RANGE]
    assert len(resumed) == 1
    assert MiB <= resumed[0] % RANGE <= 3 * MiB


def test_a_value_replaced_under_the_download_is_never_mixed(rig, artifact, tmp_path):
    rig.behind.upload("a", artifact)
    other = os.urandom(SIZE)
    seen_ranges = []

    def replace(seen) -> bool:
        if "range" in seen.headers:
            seen_ranges.append(seen)
            if len(seen_ranges) == 2:
                threading.Thread(target=rig.behind.upload, args=("a", io.BytesIO(other))).run()
        return False

    rig.proxy.plan = [Fault(DropReply(), when=replace)]
    stat = rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == other
    assert stat.version == rig.behind.stat("a").version


def test_a_value_deleted_under_the_download(rig, artifact, tmp_path):
    rig.behind.upload("a", artifact)
    rig.proxy.plan = [
        Fault(DropReply(), when=lambda seen: "range" in seen.headers and rig.behind.delete("a") is not None)
    ]
    with pytest.raises(NotFound):
        rig.store.download("a", tmp_path / "back")
    assert not any(path.name.endswith(".part") or path.name == "back" for path in tmp_path.iterdir())


@pytest.mark.parametrize("action", [Corrupt(at=1000), CutBody(after=1000, seamless=True)], ids=["corrupt", "cut"])
def test_damage_on_the_way_down_is_noticed(rig, artifact, tmp_path, action):
    rig.behind.upload("a", artifact)
    ranged = {"method": "GET", "when": lambda seen: "range" in seen.headers}
    rig.proxy.plan = [Fault(action, nth=2, **ranged)]
    rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == artifact.read_bytes()
    (tmp_path / "back").write_bytes(b"old")
    rig.proxy.plan = [Fault(action, **ranged)]
    with pytest.raises(StoreUnavailable):
        rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "back"]


def test_google_checks_what_others_uploaded_too(gcs, artifact, tmp_path):
    """Dewy v2 leaves no digest of its own, but Google keeps a CRC32C of everything."""
    gcs.behind.write("a", artifact.read_bytes())
    gcs.proxy.plan = [Fault(Corrupt(at=1000), method="GET", when=lambda seen: "range" in seen.headers)]
    with pytest.raises(StoreUnavailable, match="crc32c"):
        gcs.store.download("a", tmp_path / "back")


def test_a_place_that_cannot_be_written(rig, artifact, tmp_path):
    rig.behind.upload("a", artifact)
    with pytest.raises(FileNotFoundError):
        rig.store.download("a", tmp_path / "missing" / "back")


def test_a_failing_progress_function_ends_the_transfer(rig, artifact, tmp_path):
    def fail(done: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rig.store.upload("a", artifact, fail)
    with pytest.raises(NotFound):
        rig.behind.read("a")
    rig.behind.upload("a", artifact)
    with pytest.raises(ZeroDivisionError):
        rig.store.download("a", tmp_path / "back", fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact"]


# -- storms -----------------------------------------------------------------------------------------------------------

STORMS = 6


def test_no_artifact_is_ever_torn(request, tmp_path):
    """Uploads and downloads in a storm: what is there, and what comes down, is always one artifact, whole."""
    for name in ("seaweedfs", "fake_gcs"):
        with rigged(request, name, "&timeout=2s") as rig:
            (tmp_path / name).mkdir()
            torn(rig, tmp_path / name, STORMS)


def torn(rig: Rig, tmp_path: Path, storms: int) -> None:
    artifacts = {seed: os.urandom(PART + 1000 * seed) for seed in range(storms)}
    known = {hashlib.sha256(data).hexdigest(): seed for seed, data in artifacts.items()}
    outcomes = []
    for seed, data in artifacts.items():
        faults = storm(rig.style, 0.3, delay=3.0)
        more = [
            ResetBody(after=2 * MiB),
            ResetBody(after=2 * MiB, where="request"),
            CutBody(after=2 * MiB),
            Corrupt(at=2 * MiB),
        ]
        rig.proxy.follow([*(Fault(action, probability=0.05) for action in more), *faults], seed)
        for work in (
            lambda data=data: rig.store.upload("a", io.BytesIO(data)),
            lambda: rig.store.download("a", tmp_path / "back"),
        ):
            try:
                work()
                outcomes.append("done")
            except KVCacheError as error:
                outcomes.append(type(error).__name__)
            with contextlib.suppress(NotFound):
                assert hashlib.sha256(rig.behind.read("a")).hexdigest() in known, rig.proxy.history()
            if (tmp_path / "back").exists():
                assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() in known, rig.proxy.history()
        rig.proxy.wait_idle()
        rig.proxy.forget()
    print(rig.style, outcomes)
    assert outcomes.count("done") > storms / 2


# -- memory -----------------------------------------------------------------------------------------------------------

MEASURE = """
    import re, sys
    import kvcache.url

    def peak():  # not getrusage: its peak is inherited from the parent
        return int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

    url, source, target = sys.argv[1:]
    with kvcache.url.open_store(url) as store:
        store.write("small", b"value")
        store.read("small")
        idle = peak()
        store.upload("large", source)
        up = peak()
        store.download("large", target)
        print(f"{up - idle:.0f} {peak() - idle:.0f}")
"""


def test_memory_stays_flat(rig, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for _ in range(160):
            file.write(os.urandom(MiB))
    url = rig.server.store_url(rig.bucket, rig.prefix) + "&check=off"
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), url, source, target]
    up, down = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    print(f"{rig.style}: {up} MiB up, {down} MiB down")
    assert up <= 96
    assert down <= 96
    assert source.read_bytes() == target.read_bytes()
