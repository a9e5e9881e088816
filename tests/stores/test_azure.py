"""Azure Blob Storage, on Azurite: URLs, requests, refusals, transfers. The contract: test_contract.py."""

from __future__ import annotations

import io
import os
import time

import pytest

import kvcache.url
from kvcache.backends.streams import PART
from kvcache.conformance.races import increment, together
from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT, Version
from tests.proxy import Corrupt, CutBody, DropReply, DropRequest, Duplicate, Fault, ResetBody, refusal
from tests.stores.rig import bucket_of, rigged, seen, store_at


@pytest.fixture
def rig(request):
    with rigged(request, "azurite") as made:
        yield made


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("az://", r"container is required: az://<container>/<prefix>"),
        ("az://c?endpoint=x", r"unknown parameter 'endpoint': az takes account, anon, ca, check"),
        ("abfs://c:secret@account.dfs.core.windows.net/", r"credentials do not belong in the URL"),
    ],
)
def test_urls_that_are_wrong(url, message):
    with pytest.raises(InvalidURL, match=message) as caught:
        kvcache.url.open_store(url)
    assert "secret" not in str(caught.value)


def test_no_account(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(StoreUnavailable, match="no credentials"):
        kvcache.url.open_store("az://container")


def test_a_mistyped_container_is_an_error_at_the_start(rig):
    with pytest.raises(InvalidURL, match="bucket: 'no-such-container' does not exist"):
        kvcache.url.open_store(rig.server.store_url("no-such-container"))


def test_the_probe_trusts_it(rig):
    with store_at(rig.server, rig.bucket, rig.prefix, rig.proxy.url, "timeout=20s") as store:
        assert store.capabilities.conditional_write
        assert len(rig.requests("PUT", ".kvcache-probe-")) == 5
        assert list(rig.behind.list()) == []


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
    rig.store.delete("key")
    rig.store.delete("key")
    assert seen(rig) == ["DELETE", "DELETE"]


@pytest.mark.parametrize("token", ["", "*", '"*', "0x0", '"a", "b"', "\r\nx: y"])
def test_made_up_versions_are_refused(rig, token):
    rig.behind.write("key", b"before")
    with pytest.raises(Conflict):
        rig.store.write_if("key", b"mine", Version(token))
    assert rig.behind.read("key") == b"before"


@pytest.mark.parametrize(
    "action",
    [
        DropRequest(),
        DropReply(),
        DropReply(reset=True),
        Duplicate("second"),
        refusal("azure", 412),
        refusal("azure", 412, applied=True),
        refusal("azure", 409, code="LeaseIdMismatch"),
        refusal("azure", 500, code="OperationTimedOut", applied=True),
        refusal("azure", 500),
    ],
    ids=str,
)
@pytest.mark.parametrize("create", [True, False])
def test_a_write_that_can_land_lands(rig, action, create):
    match = ABSENT if create else rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(action, method="PUT", times=1)]
    landed = rig.store.write_if("key", b"mine", match)
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
    version = rig.behind.write("key", b"before")
    rig.proxy.plan = [Fault(refusal("azure", 503), method="PUT")]  # ServerBusy
    with pytest.raises(Throttled):
        rig.store.write_if("key", b"mine", version)
    assert seen(rig) == ["PUT"]


def test_refused_rights_name_container_and_right(rig):
    rig.proxy.plan = [Fault(refusal("azure", 403, code="AuthorizationPermissionMismatch"))]
    with pytest.raises(StoreUnavailable, match=rf"{rig.bucket}/.*'key'.*Storage Blob Data Reader"):
        rig.store.read("key")


@pytest.mark.parametrize("size", [0, 1, PART, 3 * PART + 7])
def test_up_and_down(rig, tmp_path, size):
    data, progress = os.urandom(size), []
    version = rig.store.upload("key", io.BytesIO(data), progress.append)
    assert progress == sorted(set(progress))
    assert progress[-1] == size
    assert rig.store.download("key", tmp_path / "back").version == version
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize(
    "action",
    [ResetBody(after=1 << 20, where="request"), DropReply(), refusal("azure", 500), Corrupt(at=1000, where="request")],
    ids=lambda action: type(action).__name__,
)
def test_an_upload_survives_a_broken_block(rig, action):
    data = os.urandom(2 * PART + 5)
    rig.proxy.plan = [Fault(action, method="PUT", path="comp=block&", nth=1)]
    rig.store.upload("key", io.BytesIO(data))
    assert any(entry.action == action for entry in rig.proxy.journal)
    assert rig.behind.read("key") == data


def test_an_upload_that_fails_leaves_the_old_value(rig):
    rig.behind.write("key", b"old")
    rig.proxy.plan = [Fault(refusal("azure", 403, code="AuthorizationFailure"), path="comp=block&", nth=2)]
    with pytest.raises(StoreUnavailable):
        rig.store.upload("key", io.BytesIO(bytes(2 * PART)))
    assert rig.behind.read("key") == b"old"


@pytest.mark.parametrize(
    "action",
    [ResetBody(after=1 << 20), CutBody(after=1 << 20), DropReply(), Corrupt(at=1000)],
    ids=lambda a: str(a)[:9],
)
def test_a_download_survives(rig, tmp_path, action):
    data = os.urandom(2 * PART + 5)
    rig.behind.upload("key", io.BytesIO(data))
    rig.proxy.plan = [Fault(action, method="GET", nth=1)]
    rig.store.download("key", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_sixteen_threads(rig):
    def creates(number: int) -> bool:
        try:
            rig.behind.write_if("one", f"{number}".encode(), ABSENT)
        except Conflict:
            return False
        return True

    assert sum(together(creates, 16)) == 1
    together(lambda number: [increment(rig.behind, "counter") for _ in range(3)], 16)
    assert int(rig.behind.read("counter").split()[0]) == 48


def test_a_forked_child_and_a_closed_store(rig):
    rig.store.write("key", b"value")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if rig.store.read("key") == b"value" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rig.store.close()
    assert rig.store.read("key") == b"value"


def test_the_container_is_shared_with_the_abfs_form_of_the_url(rig):
    rig.behind.write("key", b"value")
    account = f"{rig.server.account}.dfs.core.windows.net"
    with kvcache.url.open_store(f"abfs://{bucket_of(rig.server)}@{account}/{rig.prefix}") as store:
        assert store.read("key") == b"value"
