"""S3: URLs, credentials, the one request that each operation takes, refusals, races. The contract: test_contract.py."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import botocore
import pytest

import kvcache.url
from kvcache.backends.wire import wait_for
from kvcache.conformance.races import increment, together
from kvcache.errors import (
    AmbiguousWrite,
    Conflict,
    InvalidKey,
    InvalidURL,
    NotFound,
    StoreUnavailable,
    Throttled,
    Unsupported,
)
from kvcache.kvs import ABSENT, Version
from tests.proxy import CutBody, DelayReply, DropReply, DropRequest, Duplicate, Fault, Outage, not_modified, refusal
from tests.servers.certificates import make
from tests.stores.processes import run_together
from tests.stores.rig import Rig, behind_tls, bucket_of, rigged, seen


@pytest.fixture
def rig(request):
    with rigged(request, "seaweedfs") as made:
        yield made


@pytest.fixture
def credentials(seaweedfs, monkeypatch):
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)


# -- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", r"region is required: s3://<region>/<bucket>/<prefix>"),
        ("s3://us-east-1", r"bucket is required: s3://<region>/<bucket>/<prefix>"),
        ("s3://us-east-1/?endpoint=http://127.0.0.1:1", r"bucket is required"),
        ("s3://my-bucket/prefix", r"region: 'my-bucket': expected an AWS region such as us-east-1"),
        ("s3://us-east-1/b?nope=1", r"unknown parameter 'nope': s3 takes anon, ca, check, endpoint, .*profile"),
        ("s3://us-east-1/b?anon=maybe", r"anon: 'maybe': expected true or false"),
        ("s3://us-east-1/b?timeout=5", r"timeout: '5': expected a duration"),
        ("s3://us-east-1/b?timeout=0", r"timeout: '0': expected a duration above 0"),
        ("s3://AKIA:secret@us-east-1/b", r"credentials do not belong in the URL"),
    ],
)
def test_urls_that_are_wrong(url, message, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(InvalidURL, match=message) as caught:
        kvcache.url.open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("", ""), ("/", ""), ("/a", "a/"), ("/a/", "a/"), ("//a/b", "a/b/"), ("/a%20b/%C3%BC", "a b/ü/")],
)
def test_prefixes_are_those_of_dewy_v2(seaweedfs, credentials, path, prefix):
    bucket, key = bucket_of(seaweedfs), uuid.uuid4().hex
    with kvcache.url.open_store(f"s3://us-east-1/{bucket}{path}?check=off&endpoint={seaweedfs.url}") as store:
        store.write(key, b"value")
        assert list(store.list(key)) == [key]
        found = seaweedfs.client().get_object(Bucket=bucket, Key=prefix + key)
        assert found["Body"].read() == b"value"
        store.delete(key)


def test_key_and_prefix_together_are_limited(rig):
    with pytest.raises(InvalidKey, match="1024 bytes together"):
        url = rig.server.store_url(rig.bucket, "p" * 200) + "&check=off"
        kvcache.url.open_store(url).read("k" * 900)


def test_the_endpoint_of_the_environment(rig, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", rig.proxy.url)
    with kvcache.url.open_store(f"s3://us-east-1/{rig.bucket}/{rig.prefix}") as store:
        store.write("key", b"value")
        assert rig.behind.read("key") == b"value"
    assert len(rig.requests("PUT", ".kvcache-probe-")) == 5, "a store behind AWS_ENDPOINT_URL is probed"
    assert all(f"/{rig.bucket}/" in entry.target for entry in rig.requests("PUT")), "path style"


# -- credentials ------------------------------------------------------------------------------------------------------


def test_a_profile(rig, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[profile deployer]\nregion = us-east-1\n")
    access, secret = rig.server.access_key, rig.server.secret_key
    (tmp_path / "credentials").write_text(
        f"[deployer]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    url = rig.server.store_url(rig.bucket, rig.prefix)
    with kvcache.url.open_store(url + "&profile=deployer") as store:
        store.write("key", b"value")
    with pytest.raises(InvalidURL, match=r"InvalidAccessKeyId|AccessDenied"):
        kvcache.url.open_store(url)
    with pytest.raises(InvalidURL, match=r"profile \(nobody\) could not be found"):
        kvcache.url.open_store(url + "&profile=nobody")


def test_a_session_token_is_sent(rig, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "temporary-token")
    tokens = []
    rig.proxy.plan = [Fault(DropReply(), when=lambda seen: tokens.append(seen.headers.get("x-amz-security-token")))]
    url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
    try:
        kvcache.url.open_store(url + "&timeout=2s")
    except (InvalidURL, StoreUnavailable) as error:
        assert "temporary-token" not in str(error)
    assert tokens[0] == "temporary-token"


def test_no_credentials_may_pass(rig, monkeypatch):
    """On a machine that gets them from a metadata service they may come later."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreUnavailable, match="no credentials"):
        kvcache.url.open_store(rig.server.store_url(rig.bucket, rig.prefix))


def test_without_an_account_a_store_can_be_read(moto, monkeypatch):
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    bucket = bucket_of(moto)
    moto.client().put_object(Bucket=bucket, Key="public/key", Body=b"value", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with kvcache.url.open_store(moto.store_url(bucket, "public") + "&anon=true") as store:
        assert store.read("key") == b"value"
        assert not store.capabilities.conditional_write
        with pytest.raises(Unsupported):
            store.write_if("key", b"other", ABSENT)


def test_a_wrong_secret_is_the_users_mistake(rig, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(InvalidURL, match="cannot be used: HTTP 403 SignatureDoesNotMatch") as caught:
        kvcache.url.open_store(rig.server.store_url(rig.bucket, rig.prefix))
    assert "not-the-secret" not in str(caught.value)


OLD_CLIENT = """
    import sys
    import kvcache.url
    from kvcache.errors import InvalidURL
    try:
        kvcache.url.open_store(sys.argv[1])
    except InvalidURL as error:
        print(error)
"""


def test_a_client_that_is_too_old_is_refused(rig, tmp_path):
    """Its model of S3 is botocore's own, without the parameter, as before 1.35.70."""
    original = Path(botocore.__file__).parent / "data" / "s3" / "2006-03-01"
    model = json.loads(gzip.decompress((original / "service-2.json.gz").read_bytes()))
    del model["shapes"]["PutObjectRequest"]["members"]["IfMatch"]
    old = tmp_path / "s3" / "2006-03-01"
    old.mkdir(parents=True)
    (old / "service-2.json").write_text(json.dumps(model))
    url = rig.server.store_url(rig.bucket, rig.prefix)
    command = [sys.executable, "-c", textwrap.dedent(OLD_CLIENT), url]
    said = subprocess.run(command, env=os.environ | {"AWS_DATA_PATH": str(tmp_path)}, capture_output=True, text=True)
    assert f"botocore {botocore.__version__} does not know the conditions of writes" in said.stdout, said.stderr


# -- requests ---------------------------------------------------------------------------------------------------------


def test_each_operation_is_one_request(rig):
    version = rig.store.write_if("key", b"1", ABSENT)
    assert seen(rig) == ["PUT"]
    version = rig.store.write_if("key", b"2", version)
    assert seen(rig) == ["PUT"]
    stored = rig.store.read_versioned("key")
    assert (stored.data, stored.version) == (b"2", version)
    assert stored.store_time is not None
    assert abs(stored.store_time - time.time()) < 300
    assert seen(rig) == ["GET"]
    assert rig.store.stat("key").version == version
    assert seen(rig) == ["HEAD"]
    with pytest.raises(NotFound) as missing:
        rig.store.read("missing")
    assert missing.value.store_time is not None
    assert seen(rig) == ["GET"]
    assert list(rig.store.list()) == ["key"]
    assert seen(rig) == ["GET"]
    rig.store.delete("key")
    assert seen(rig) == ["DELETE"]


def test_versions_are_the_services_etags(rig):
    version = rig.store.write("key", b"value")
    client = rig.server.client()
    assert client.head_object(Bucket=rig.bucket, Key=rig.prefix + "key")["ETag"] == version.token
    theirs = client.put_object(Bucket=rig.bucket, Key=rig.prefix + "key", Body=b"v2", IfMatch=version.token)["ETag"]
    assert rig.store.read_versioned("key").version.token == theirs
    rig.store.write_if("key", b"v3", Version(theirs))


def test_pages_are_fetched_as_they_are_used(request):
    with rigged(request, "moto") as rig:
        names = [f"{number:02}" for number in range(10)]
        for name in names:
            rig.behind.write(name, b"")
        rig.server.client().put_object(Bucket=rig.bucket, Key=rig.prefix + "folder/", Body=b"")
        events = wait_for(rig.store._bucket.client()).meta.events
        events.register("before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=3))
        rig.store._bucket.sorted_pages = True  # as S3's own are
        listing = rig.store.list()
        assert next(listing) == "00"
        assert seen(rig) == ["GET"]
        assert list(listing) == names[1:]
        assert seen(rig) == ["GET"] * 3


def test_a_listing_out_of_order_is_sorted(rig):
    """SeaweedFS lists directory by directory."""
    for key in ("a/b", "a-b", "a", "a.b"):
        rig.store.write(key, b"")
    assert list(rig.store.list()) == ["a", "a-b", "a.b", "a/b"]


# -- refusals ---------------------------------------------------------------------------------------------------------


def write(rig: Rig):
    """A conditional write that must land, over a value of before."""
    version = rig.behind.write("key", b"before")
    landed = rig.store.write_if("key", b"mine", version)
    assert rig.behind.read("key") == b"mine"
    assert rig.behind.stat("key").version == landed


@pytest.mark.parametrize(
    "action",
    [
        DropRequest(),
        DropReply(),
        DropReply(reset=True),
        CutBody(after=0),
        Duplicate("second"),
        Duplicate("first"),
        refusal("s3", 412),
        refusal("s3", 412, applied=True),
        refusal("s3", 409),
        refusal("s3", 500),
        refusal("s3", 500, applied=True),
        refusal("s3", 503, code="ServiceUnavailable"),
        refusal("s3", 400, code="RequestTimeout"),
        refusal("s3", 404, applied=True),
        not_modified(),
    ],
    ids=str,
)
def test_a_write_that_can_land_lands(rig, action):
    rig.proxy.plan = [Fault(action, method="PUT", times=1)]
    write(rig)


def test_a_reply_that_comes_too_late(request):
    with rigged(request, "seaweedfs", "&timeout=2s") as rig:
        rig.proxy.plan = [Fault(DelayReply(1.5), method="PUT", times=1)]
        write(rig)


@pytest.mark.parametrize("applied", [True, False])
def test_an_unknown_outcome_is_told_as_unknown(rig, applied):
    version = rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(DropReply() if applied else DropRequest())]
    with pytest.raises(AmbiguousWrite):
        rig.store.write_if("key", b"mine", version)
    assert rig.behind.read("key") == (b"mine" if applied else b"before")


def test_a_loss_that_is_certain_is_a_conflict_and_is_looked_at_once(rig):
    version = rig.behind.write("key", b"before")
    rig.behind.write("key", b"theirs")
    seen(rig)
    with pytest.raises(Conflict):
        rig.store.write_if("key", b"mine", version)
    assert seen(rig) == ["PUT", "HEAD"]
    with pytest.raises(Conflict):
        rig.store.write_if("gone", b"mine", version)
    assert rig.behind.read("key") == b"theirs"


def test_a_loss_after_a_hidden_resend_is_not_called_certain(rig):
    """The first copy may have landed and have been overwritten before the second was refused."""
    version = rig.behind.write("key", b"before")

    def overwrite(request) -> bool:
        if request.method == "HEAD":
            rig.behind.write("key", b"theirs")
        return False

    rig.proxy.plan = [Fault(DropReply(), method="PUT", times=1), Fault(DropReply(), when=overwrite)]
    with pytest.raises(AmbiguousWrite):
        rig.store.write_if("key", b"mine", version)
    assert rig.behind.read("key") == b"theirs"


def test_throttling_is_certain_and_says_how_long(rig):
    version = rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(refusal("s3", 503, retry_after=30))]
    with pytest.raises(Throttled) as caught:
        rig.store.write_if("key", b"mine", version)
    assert caught.value.retry_after == 30
    assert len(rig.requests("PUT")) == 1
    with pytest.raises(Throttled):
        rig.store.read("key")


def test_requests_that_may_be_repeated_are(rig):
    rig.behind.write("key", b"value")
    for fault in (DropReply(), refusal("s3", 500), refusal("s3", 503), CutBody(after=2)):
        rig.proxy.plan = [Fault(fault, times=2)]
        assert rig.store.read("key") == b"value"
        rig.proxy.plan = [Fault(fault, times=2)]
        assert rig.store.stat("key").size == 5
        rig.proxy.plan = [Fault(fault, times=2)]
        assert list(rig.store.list()) == ["key"]
        rig.proxy.plan = [Fault(fault, times=2)]
        rig.store.write("key", b"value")
    rig.proxy.plan = [Fault(DropReply(), times=2)]
    rig.store.delete("key")
    assert list(rig.behind.list()) == []


def test_a_store_that_is_away_and_comes_back(rig):
    rig.behind.write("key", b"value")
    rig.proxy.plan = [Fault(Outage(0.4), times=1)]
    assert rig.store.read("key") == b"value"
    rig.proxy.plan = [Fault(Outage(60.0), times=1)]
    with pytest.raises(StoreUnavailable):
        rig.store.read("key")
    with pytest.raises(StoreUnavailable) as caught:
        rig.store.write("key", b"other")
    assert not isinstance(caught.value, AmbiguousWrite), "no connection came about, so nothing was sent"


def test_refused_rights_name_bucket_and_right(rig):
    rig.proxy.plan = [Fault(refusal("s3", 403, code="AccessDenied"))]
    with pytest.raises(StoreUnavailable, match=rf"s3://us-east-1/{rig.bucket}/.*'key'.*s3:GetObject.*AccessDenied"):
        rig.store.read("key")
    with pytest.raises(StoreUnavailable, match=r"s3:PutObject.*AccessDenied"):
        rig.store.write_if("key", b"value", ABSENT)


def test_a_bucket_that_vanishes_is_not_a_miss(rig):
    rig.proxy.plan = [Fault(refusal("s3", 404, code="NoSuchBucket"))]
    with pytest.raises(StoreUnavailable, match="the bucket does not exist"):
        rig.store.read("key")


# -- processes and threads --------------------------------------------------------------------------------------------


def test_a_forked_child_has_a_client_of_its_own(rig):
    rig.behind.write("key", b"value")
    assert rig.store.read("key") == b"value"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if rig.store.read("key") == b"value" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rig.store.read("key") == b"value"


def test_a_closed_store_gives_back_its_connections_and_can_be_used_again(rig):
    rig.store.write("key", b"value")
    rig.store.close()
    rig.store.close()
    assert rig.store.read("key") == b"value"


def test_nobody_waits_for_the_loop_on_the_loop(rig):
    """A progress function runs beside the loop, so that it may use the store."""
    calls = []
    rig.store.upload("big", io.BytesIO(b"x"), lambda done: calls.append(rig.store.stat("big").size))
    assert calls == [1]


@pytest.mark.timeout(300)
def test_sixteen_threads(rig):
    won = together(lambda number: creates(rig.behind, "one", number), 16)
    assert sum(won) == 1
    together(lambda number: [increment(rig.behind, "counter") for _ in range(3)], 16)
    assert int(rig.behind.read("counter").split()[0]) == 48


def creates(store, key: str, number: int) -> bool:
    try:
        store.write_if(key, f"{number}".encode(), ABSENT)
    except Conflict:
        return False
    return True


@pytest.mark.timeout(300)
def test_eight_processes(rig):
    url = rig.server.store_url(rig.bucket, rig.prefix) + "&check=off"
    assert sum(run_together("create", url, "race", 5)) == 5
    assert sum(run_together("count_up", url, "counter", 4)) == 32
    assert int(rig.behind.read("counter").split()[0]) == 32


def test_interrupted_waiting_cancels_the_work(rig):
    """Ctrl-C in the thread that waits: the request does not go on behind its back."""
    rig.proxy.plan = [Fault(DelayReply(20.0))]
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            rig.store.read("key")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 15


def test_a_certificate_authority_of_ones_own(rig, tmp_path, monkeypatch):
    certificates = make(tmp_path)
    with behind_tls(rig.server.port, certificates) as address:
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=address)
        with kvcache.url.open_store(f"{url}&ca={certificates.ca}") as store:
            store.write("key", b"value")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.ca))
        with kvcache.url.open_store(url) as store:
            assert store.read("key") == b"value"
        monkeypatch.delenv("AWS_CA_BUNDLE")
        with pytest.raises(StoreUnavailable, match=r"SSL|[Cc]ertificate"):
            kvcache.url.open_store(url)
