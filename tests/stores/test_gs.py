"""Google Cloud Storage: URLs, credentials, requests, refusals, races. The contract: test_contract.py.

fake-gcs-server ignores conditions on deletions, reads and resumable uploads; what needs them is not shown here.
"""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from fsspec.asyn import get_loop

import kvcache.url
from kvcache.conformance.races import increment, together
from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT, Version
from tests.proxy import Answer, Corrupt, CutBody, DropReply, DropRequest, Duplicate, Fault, not_modified, refusal
from tests.servers.certificates import make
from tests.stores.processes import run_together
from tests.stores.rig import behind_tls, bucket_of, rigged, seen


@pytest.fixture
def rig(request):
    with rigged(request, "fake_gcs") as made:
        yield made


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://", r"bucket is required: gs://<bucket>/<prefix>"),
        ("gs:///prefix", r"bucket is required"),
        ("gs://b?region=eu", r"unknown parameter 'region': gs takes anon, ca, check, endpoint"),
        ("gs://b?timeout=never", r"timeout: 'never': expected a duration"),
        ("gs://token@b", r"credentials do not belong in the URL"),
    ],
)
def test_urls_that_are_wrong(url, message):
    with pytest.raises(InvalidURL, match=message):
        kvcache.url.open_store(url)


@pytest.mark.parametrize("with_scheme", [True, False])
def test_the_emulator_of_the_environment(fake_gcs, monkeypatch, with_scheme):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url if with_scheme else fake_gcs.url.removeprefix("http://"))
    with kvcache.url.open_store(f"gs://{bucket_of(fake_gcs)}/emulated") as store:
        store.write("key", b"value")
        assert store.read("key") == b"value"
        store.delete("key")


def test_no_credentials_may_pass(monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(StoreUnavailable, match="no credentials"):
        kvcache.url.open_store("gs://bucket?endpoint=https://127.0.0.1:1")


def test_the_proxy_of_the_environment(rig, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, rig.proxy.url)
    monkeypatch.setenv("no_proxy", "")
    far = "http://storage.invalid"  # a name that nobody can resolve: only the proxy can lead there
    with kvcache.url.open_store(rig.server.store_url(rig.bucket, rig.prefix, endpoint=far) + "&check=off") as store:
        version = store.write("key", b"value")
        assert rig.behind.stat("key").version == version
    assert rig.requests("POST", f"{far}/upload/")
    monkeypatch.setenv("no_proxy", "storage.invalid")
    straight = rig.server.store_url(rig.bucket, rig.prefix, endpoint=far) + "&check=off&timeout=1s"
    with kvcache.url.open_store(straight) as store, pytest.raises(StoreUnavailable):
        store.read("key")


def test_nothing_of_netrc_is_sent(rig, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent = []
    rig.proxy.plan = [Fault(DropReply(), when=lambda seen: bool(sent.append(dict(seen.headers))))]
    rig.store.write("key", b"value")
    assert sent
    assert not [headers for headers in sent if "authorization" in headers]


def test_a_token_is_never_sent_in_the_clear(rig, monkeypatch, tmp_path):
    """A credentials file is there, and not even looked at for a service without TLS."""
    (tmp_path / "file").write_text(json.dumps({"type": "authorized_user", "refresh_token": "refresh-me"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "file"))
    sent = []
    rig.proxy.plan = [Fault(DropReply(), when=lambda seen: bool(sent.append(dict(seen.headers))))]
    kvcache.url.open_store(rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)).close()
    assert sent
    assert not any("authorization" in headers for headers in sent)


def test_a_certificate_authority_of_ones_own(rig, tmp_path):
    certificates = make(tmp_path)
    with behind_tls(rig.server.port, certificates) as address:
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=address) + "&anon=true"
        with kvcache.url.open_store(f"{url}&ca={certificates.ca}") as store:
            store.write("key", b"value")
            assert store.read("key") == b"value"
        with pytest.raises(StoreUnavailable, match=r"SSL|[Cc]ertificate"):
            kvcache.url.open_store(url)


@pytest.mark.parametrize("trouble", [[], [Fault(refusal("gcs", 503), method="DELETE", times=1)]])
def test_a_value_that_was_damaged_on_its_way_is_written_again(rig, trouble):
    """Google refuses it, by the CRC32C in the request; fake-gcs-server takes it, and says what it has."""
    rig.proxy.plan = [Fault(Corrupt(at=700, where="request"), method="POST", times=1), *trouble]
    version = rig.store.write_if("key", b"x" * 1000, ABSENT)
    assert rig.behind.read("key") == b"x" * 1000
    assert rig.behind.stat("key").version == version


def test_a_value_that_google_found_damaged_is_sent_again(rig):
    message = "Provided CRC32C does not match calculated CRC32C."
    body = json.dumps({"error": {"code": 400, "message": message, "errors": [{"reason": "invalid"}]}}).encode()
    rig.proxy.plan = [Fault(Answer(400, body), method="POST", times=1)]
    version = rig.store.write_if("key", b"value", ABSENT)
    assert rig.behind.stat("key").version == version


def test_damage_that_cannot_be_undone_is_no_success(rig):
    rig.proxy.plan = [
        Fault(Corrupt(at=700, where="request"), method="POST", times=1),
        Fault(refusal("gcs", 403), method="DELETE"),
    ]
    with pytest.raises(StoreUnavailable, match="damaged"):
        rig.store.write_if("key", b"x" * 1000, ABSENT)


def test_each_operation_is_one_request(rig):
    version = rig.store.write_if("key", b"1", ABSENT)
    assert seen(rig) == ["POST"]
    version = rig.store.write_if("key", b"2", version)
    assert seen(rig) == ["POST"]
    stored = rig.store.read_versioned("key")
    assert (stored.data, stored.version) == (b"2", version)
    assert re.fullmatch("[0-9]+", version.token)
    assert stored.store_time is not None
    assert abs(stored.store_time - time.time()) < 300
    assert seen(rig) == ["GET"]
    assert rig.store.stat("key").version == version
    assert seen(rig) == ["GET"]
    with pytest.raises(NotFound) as missing:
        rig.store.read("missing")
    assert missing.value.store_time is not None
    assert seen(rig) == ["GET"]
    rig.store.delete("key")
    rig.store.delete("key")
    assert seen(rig) == ["DELETE", "DELETE"]


def test_no_value_can_end_its_upload_early(rig):
    """gcsfs delimits by a fixed boundary; a value that holds it, or any other, has to come back whole."""
    value = b"\r\n--==0==--\r\n--" + b"0" * 32 + b"--\r\n\x00\r\n"
    rig.store.write("key", value)
    assert rig.store.read("key") == value


@pytest.mark.parametrize("token", ["", "0", "-1", "x", '"etag"', "9" * 40, "1795561345313221&alt=media"])
def test_made_up_generations_are_refused(rig, token):
    rig.behind.write("key", b"before")
    with pytest.raises(Conflict):
        rig.store.write_if("key", b"mine", Version(token))
    with pytest.raises(Conflict):
        rig.store.write_if("absent", b"mine", Version(token))
    assert rig.behind.read("key") == b"before"


@pytest.mark.parametrize(
    "action",
    [
        DropRequest(),
        DropReply(),
        DropReply(reset=True),
        CutBody(after=10),
        Duplicate("second"),
        refusal("gcs", 412),
        refusal("gcs", 412, applied=True),
        refusal("gcs", 409),
        refusal("gcs", 500, applied=True),
        refusal("gcs", 503),
        refusal("gcs", 408),
        not_modified(),
    ],
    ids=str,
)
def test_a_write_that_can_land_lands(rig, action):
    version = rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(action, method="POST", times=1)]
    landed = rig.store.write_if("key", b"mine", version)
    assert rig.behind.read("key") == b"mine"
    assert rig.behind.stat("key").version == landed


@pytest.mark.parametrize("applied", [True, False])
def test_an_unknown_outcome_is_told_as_unknown(rig, applied):
    version = rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(DropReply() if applied else DropRequest())]
    with pytest.raises(AmbiguousWrite):
        rig.store.write_if("key", b"mine", version)
    assert rig.behind.read("key") == (b"mine" if applied else b"before")


def test_throttling_is_certain(rig):
    """Google refuses a second write to one object within a second: nothing is written, and the caller decides."""
    version = rig.behind.write("key", b"before")
    assert rig.store.capabilities.min_write_interval == 1.0
    rig.proxy.plan = [Fault(refusal("gcs", 429), method="POST")]
    with pytest.raises(Throttled):
        rig.store.write_if("key", b"mine", version)
    assert seen(rig) == ["POST"]
    rig.proxy.plan = [Fault(refusal("gcs", 403, code="rateLimitExceeded"), method="POST")]
    with pytest.raises(Throttled):
        rig.store.write_if("key", b"mine", version)
    rig.proxy.plan = [Fault(refusal("gcs", 429), method="POST", times=2)]
    rig.store.write("key", b"unconditional")


def test_refused_rights_name_bucket_and_right(rig):
    rig.proxy.plan = [Fault(refusal("gcs", 403, code="forbidden"))]
    with pytest.raises(StoreUnavailable, match=rf"gs://{rig.bucket}/.*'key'.*storage.objects.get"):
        rig.store.read("key")
    rig.proxy.plan = [Fault(refusal("gcs", 401, code="authError"))]
    with pytest.raises(StoreUnavailable, match=r"storage.objects.create.*HTTP 401"):
        rig.store.write("key", b"")


def test_a_forked_child_has_a_session_of_its_own(rig):
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
    assert get_loop().is_running()


@pytest.mark.timeout(300)
def test_sixteen_threads(rig):
    def creates(number: int) -> bool:
        try:
            rig.behind.write_if("one", f"{number}".encode(), ABSENT)
        except Conflict:
            return False
        return True

    assert sum(together(creates, 16)) == 1
    together(lambda number: [increment(rig.behind, "counter") for _ in range(5)], 16)
    assert int(rig.behind.read("counter").split()[0]) == 80


@pytest.mark.timeout(300)
def test_eight_processes(rig):
    url = rig.server.store_url(rig.bucket, rig.prefix) + "&check=off"
    assert sum(run_together("create", url, "race", 10)) == 10
    assert sum(run_together("count_up", url, "counter", 10)) == 80
    assert int(rig.behind.read("counter").split()[0]) == 80
