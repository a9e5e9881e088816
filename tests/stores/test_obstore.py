"""`engine=obstore`: what is its own.

The contract: test_contract.py. Storms: test_faults_objects.py, test_storm_artifacts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import textwrap

import pytest
from fsspec.asyn import get_loop

import kvcache.url
from kvcache.backends import streams
from kvcache.backends.landing import RANGE
from kvcache.backends.streams import PART
from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, NotFound, StoreUnavailable, Throttled, Unsupported
from kvcache.kvs import ABSENT, Version
from tests.proxy import Corrupt, CutBody, DropReply, Fault, ResetBody, refusal
from tests.stores.rig import rigged

MiB = 1 << 20


@pytest.fixture
def rig(request):
    with rigged(request, "seaweedfs", "&engine=obstore") as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(streams, "pause_after", lambda attempt: 0.01)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://us-east-1/b?engine=boto3", r"engine: 'boto3': expected s3fs or obstore"),
        ("s3://us-east-1/b?engine=obstore&profile=dev", r"profile: 'dev': expected engine=s3fs"),
        ("s3://us-east-1/b/a//c?engine=obstore", r"prefix: 'a//c': expected engine=s3fs"),
        ("gs://b?engine=obstore", r"engine: 'obstore': expected gcsfs"),
        ("az://b?engine=obstore", r"engine: 'obstore': expected adlfs"),
    ],
)
def test_urls_that_are_wrong(url, message):
    with pytest.raises(InvalidURL, match=message):
        kvcache.url.open_store(url)


def test_the_extra_that_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "kvcache.backends.s3_obstore", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)  # as if it were not installed
    with pytest.raises(InvalidURL, match=r"engine: .*pip install 'kvcache-dewy\[obstore\]'"):
        kvcache.url.open_store("s3://us-east-1/bucket?engine=obstore")


def test_it_needs_nothing_of_s3fs(rig):
    code = """
        import sys
        for name in ("s3fs", "aiobotocore", "botocore", "aiohttp"):
            sys.modules[name] = None
        import kvcache
        with kvcache.open_store(sys.argv[1]) as store:
            store.write("key", b"value")
            print(store.read("key").decode())
    """
    url = rig.server.store_url(rig.bucket, rig.prefix) + "&engine=obstore"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), url], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "value\n"


def test_a_forked_child_is_told_that_it_will_not_work(rig):
    rig.store.write("key", b"value")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                rig.store.read("key")
            except Unsupported as error:
                os._exit(0 if "forked" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert rig.store.read("key") == b"value"


def test_buckets_that_cannot_be_used(rig, monkeypatch):
    with pytest.raises(InvalidURL, match=r"bucket: 'no-such-bucket' does not exist \(HTTP 404 NoSuchBucket"):
        kvcache.url.open_store(rig.server.store_url("no-such-bucket") + "&engine=obstore")
    with pytest.raises(StoreUnavailable):
        kvcache.url.open_store("s3://us-east-1/bucket?endpoint=http://127.0.0.1:1&engine=obstore&timeout=1s")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(InvalidURL, match="HTTP 403") as caught:
        kvcache.url.open_store(rig.server.store_url(rig.bucket) + "&engine=obstore")
    assert "wrong-secret" not in str(caught.value)


def test_a_service_that_ignores_conditions_is_found_out(request, caplog, monkeypatch):
    nanio = request.getfixturevalue("nanio")
    for name, value in nanio.env.items():
        monkeypatch.setenv(name, value)
    with kvcache.url.open_store(nanio.store_url(nanio.create_bucket()) + "&engine=obstore") as store:
        assert not store.capabilities.conditional_write
    assert "does not honour the conditions of writes" in caplog.text


def test_each_operation_is_one_request(rig):
    version = rig.store.write_if("key", b"1", ABSENT)
    version = rig.store.write_if("key", b"2", version)
    stored = rig.store.read_versioned("key")
    assert (stored.data, stored.version, stored.store_time) == (b"2", version, None)
    assert rig.store.stat("key").version == version
    rig.store.delete("key")
    rig.proxy.wait_idle()
    assert [entry.method for entry in rig.proxy.journal] == ["PUT", "PUT", "GET", "HEAD", "DELETE"]


@pytest.mark.parametrize("token", ["", "*", '"', '"a", "b"', "x" * 2000, '"ü"'])
def test_made_up_versions_are_refused(rig, token):
    rig.behind.write("key", b"theirs")
    with pytest.raises(Conflict):
        rig.store.write_if("key", b"mine", Version(token))
    assert rig.behind.read("key") == b"theirs"


def test_a_write_whose_answer_was_lost_is_recognised(rig):
    rig.proxy.plan = [Fault(DropReply(), method="PUT", times=1)]
    version = rig.store.write_if("key", b"value", ABSENT)
    assert rig.behind.read_versioned("key").version == version
    assert len(rig.requests("PUT")) == 1  # it was not even sent again


def test_refusals_are_told_apart(rig):
    rig.behind.write("key", b"value")
    for status, expected in ((429, Throttled), (503, Throttled), (500, AmbiguousWrite)):
        rig.proxy.plan = [Fault(refusal("s3", status), method="PUT"), Fault(refusal("s3", 500), method="HEAD")]
        with pytest.raises(expected):
            rig.store.write_if("key", b"mine", ABSENT)
    rig.proxy.plan = [Fault(refusal("s3", 409), method="PUT", times=1)]  # busy: asked again
    assert rig.store.write_if("new", b"mine", ABSENT) == rig.behind.stat("new").version


def test_damage_on_the_way_up_is_noticed(rig):
    rig.proxy.plan = [Fault(Corrupt(at=100, where="request"), method="PUT", times=1)]
    rig.store.write("key", b"x" * 1000)
    assert rig.behind.read("key") == b"x" * 1000


def test_a_large_value_is_one_request_too(rig):
    """As parts it would appear under no condition."""
    value = os.urandom(2 * PART)
    stale = rig.store.write_if("key", value, ABSENT)
    rig.behind.write("key", b"theirs")
    with pytest.raises(Conflict):
        rig.store.write_if("key", value, stale)
    assert rig.behind.read("key") == b"theirs"
    assert [entry.method for entry in rig.proxy.journal if "key" in entry.target] == ["PUT", "PUT", "HEAD"]


# -- transfers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, PART - 1, PART, 2 * PART + 1, 2 * RANGE + 1])
def test_sizes_around_the_parts(rig, tmp_path, size):
    data, progress = os.urandom(size), []
    version = rig.store.upload("a", io.BytesIO(data), progress.append)
    assert (progress == sorted(set(progress)), progress[-1]) == (True, size)
    stat = rig.store.download("a", tmp_path / "back")
    assert (stat.size, stat.version) == (size, version)
    assert (tmp_path / "back").read_bytes() == data
    head = asyncio.run_coroutine_threadsafe(rig.behind._bucket.head(rig.prefix + "a"), get_loop()).result()
    assert head.digest is not None
    assert head.digest.value == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(refusal("s3", 500), method="PUT", path="partNumber", nth=2),
        Fault(ResetBody(after=MiB, where="request"), method="PUT", path="partNumber", nth=2),
        Fault(DropReply(), method="POST", path="uploadId", times=1),
        Fault(refusal("s3", 404, code="NoSuchUpload"), method="PUT", path="partNumber", nth=2),
        Fault(Corrupt(at=MiB, where="request"), method="PUT", path="partNumber", nth=2),
    ],
    ids=["refused part", "broken part", "lost last answer", "forgotten upload", "damaged part"],
)
def test_an_upload_survives(rig, fault):
    data = os.urandom(3 * PART)
    rig.proxy.plan = [fault]
    version = rig.store.upload("a", io.BytesIO(data))
    assert rig.behind.read("a") == data
    assert rig.behind.stat("a").version == version
    assert rig.half_done() == []


def test_an_upload_that_cannot_succeed_leaves_the_old_value_and_no_parts(rig):
    rig.behind.write("a", b"old")
    rig.proxy.plan = [Fault(refusal("s3", 403, code="AccessDenied"), method="PUT", path="partNumber")]
    with pytest.raises(StoreUnavailable, match="access denied"):
        rig.store.upload("a", io.BytesIO(os.urandom(3 * PART)))
    assert rig.behind.read("a") == b"old"
    assert rig.half_done() == []


def test_an_upload_that_its_caller_ends_leaves_no_parts(rig):
    def fail(done: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rig.store.upload("a", io.BytesIO(os.urandom(3 * PART)), fail)
    assert rig.half_done() == []


def test_an_upload_that_the_service_keeps_forgetting_is_not_a_missing_value(rig):
    rig.proxy.plan = [Fault(refusal("s3", 404, code="NoSuchUpload"), method="PUT", path="partNumber")]
    with pytest.raises(StoreUnavailable, match="NoSuchUpload"):
        rig.store.upload("a", io.BytesIO(os.urandom(2 * PART)))


@pytest.mark.parametrize(
    "action",
    [ResetBody(after=MiB), CutBody(after=MiB), DropReply(), Corrupt(at=1000)],
    ids=lambda it: type(it).__name__,
)
def test_a_download_survives(rig, tmp_path, action):
    data = os.urandom(2 * RANGE)
    rig.behind.upload("a", io.BytesIO(data))
    rig.proxy.plan = [Fault(action, method="GET", nth=1)]
    rig.store.download("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_a_value_replaced_under_the_download_is_never_mixed(rig, tmp_path):
    old, new = os.urandom(4 * RANGE), os.urandom(4 * RANGE)
    rig.behind.upload("a", io.BytesIO(old))
    replaced = []

    def replace(seen) -> bool:
        if "range" in seen.headers and not replaced:
            replaced.append(rig.behind.upload("a", io.BytesIO(new)))
        return False

    rig.proxy.plan = [Fault(DropReply(), when=replace)]
    assert rig.store.download("a", tmp_path / "back").version == replaced[0]
    assert (tmp_path / "back").read_bytes() == new


def test_a_value_that_is_gone(rig, tmp_path):
    with pytest.raises(NotFound):
        rig.store.download("a", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
