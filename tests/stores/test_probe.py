"""A service that ignores the conditions of writes is found out at the start; one that keeps them is not suspected."""

from __future__ import annotations

import logging

import pytest

import kvcache.url
from kvcache.errors import InvalidURL, StoreUnavailable, Unsupported
from kvcache.kvs import ABSENT
from tests.proxy import Answer, DropReply, Fault, refusal
from tests.stores.rig import bucket_of, rigged

HONEST = ["seaweedfs", "moto", "fake_gcs"]
CREATES = "created a key that existed"
REPLACES = "replaced a version that was stale"
WRITES_ABSENT = "wrote to an absent key under a version"
IGNORANT = {
    "s3rver": {CREATES, REPLACES, WRITES_ABSENT},
    "nanio": {CREATES, REPLACES, WRITES_ABSENT},
    "localbucket": {REPLACES, WRITES_ABSENT},  # it honours If-None-Match
    "gcp_emulator": {CREATES, REPLACES, WRITES_ABSENT},
}


@pytest.fixture
def environment(request, monkeypatch):
    """Starts a server by the name of its fixture, and puts its credentials into the environment."""

    def start(name):
        server = request.getfixturevalue(name)
        for variable, value in server.env.items():
            monkeypatch.setenv(variable, value)
        return server

    return start


def keys_behind(store) -> list[str]:
    """All names under the store's prefix, the probe's own included, which `list` hides."""
    from kvcache.backends.wire import wait_for

    return wait_for(store._bucket.page(store._prefix)).names


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_service_keeps_its_conditional_writes(environment, caplog, name):
    server = environment(name)
    with kvcache.url.open_store(server.store_url(bucket_of(server), f"probe {name}")) as store:
        assert store.capabilities.conditional_write
        assert keys_behind(store) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", IGNORANT)
def test_an_ignorant_service_is_used_without_them(environment, caplog, name):
    server = environment(name)
    url = server.store_url(bucket_of(server), f"probe {name}")
    with kvcache.url.open_store(url) as store:
        assert not store.capabilities.conditional_write
        assert keys_behind(store) == []
        [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert {fault for fault in (CREATES, REPLACES, WRITES_ABSENT) if fault in warning} == IGNORANT[name]
        assert warning.startswith(f"{store.url}: this service does not honour the conditions of writes")
        with pytest.raises(Unsupported):
            store.write_if("key", b"value", ABSENT)
        store.write("key", b"value")
        if name != "gcp_emulator":  # it sends no generation, so nothing can be read with its version
            assert store.read("key") == b"value"
        store.delete("key")
    with kvcache.url.open_store(url + "&probe=off") as store:
        assert store.capabilities.conditional_write


def test_every_start_probes_anew(request):
    with rigged(request, "seaweedfs") as rig:
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
        for _ in range(2):
            rig.proxy.forget()
            kvcache.url.open_store(url).close()
            assert len(rig.requests("PUT", ".kvcache-probe-")) == 5
        rig.proxy.forget()
        kvcache.url.open_store(url + "&probe=off").close()
        assert rig.requests("PUT") == []
        assert rig.requests("GET")
        rig.proxy.forget()
        kvcache.url.open_store(url + "&check=off").close()
        assert rig.requests("GET") == []


@pytest.mark.parametrize(("name", "status"), [("seaweedfs", 501), ("fake_gcs", 501)])
def test_a_service_that_says_that_it_has_none(request, caplog, name, status):
    """Backblaze B2 answers 501 to the condition."""
    with rigged(request, name) as rig:
        conditional = {"when": lambda seen: "if-none-match" in seen.headers or "ifGenerationMatch" in seen.target}
        rig.proxy.plan = [Fault(refusal(rig.style, status, code="NotImplemented"), method="PUT|POST", **conditional)]
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
        with kvcache.url.open_store(url) as store:
            assert not store.capabilities.conditional_write
            assert "NotImplemented" in caplog.text


@pytest.mark.parametrize("name", ["seaweedfs", "fake_gcs"])
def test_faults_on_the_way_do_not_make_a_suspect(request, name):
    with rigged(request, name) as rig:
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
        for nth in (1, 2, 3, 5, 7):
            for action in (DropReply(), refusal(rig.style, 500)):
                rig.proxy.plan = [Fault(action, nth=nth)]
                with kvcache.url.open_store(url) as store:
                    assert store.capabilities.conditional_write, f"{action} at request {nth}\n{rig.proxy.history()}"
                    rig.proxy.wait_idle()
                    assert keys_behind(store) == []


@pytest.mark.parametrize("name", ["seaweedfs", "moto", "fake_gcs"])
def test_a_mistyped_bucket_is_an_error_at_the_start(environment, name):
    server = environment(name)
    with pytest.raises(InvalidURL, match="bucket: 'no-such-bucket' does not exist") as caught:
        kvcache.url.open_store(server.store_url("no-such-bucket"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "method"), [("seaweedfs", "GET"), ("seaweedfs", "PUT"), ("fake_gcs", "POST")])
def test_a_missing_right_is_an_error_at_the_start(request, name, method):
    with rigged(request, name) as rig:
        denied = "AccessDenied" if rig.style == "s3" else "forbidden"
        rig.proxy.plan = [Fault(refusal(rig.style, 403, code=denied), method=method)]
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
        right = {"GET": "s3:ListBucket", "PUT": "s3:PutObject", "POST": "storage.objects.create"}[method]
        with pytest.raises(InvalidURL, match=f"{rig.bucket}.*{denied}.*{right}"):
            kvcache.url.open_store(url)


@pytest.mark.parametrize("name", ["seaweedfs", "fake_gcs"])
def test_a_store_that_does_not_answer_is_not_the_users_mistake(request, name):
    with rigged(request, name) as rig:
        url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=rig.proxy.url)
        rig.proxy.plan = [Fault(Answer(503, b""))]
        with pytest.raises(StoreUnavailable):
            kvcache.url.open_store(url)
    with pytest.raises(StoreUnavailable, match=r"[Cc]onnect"):
        kvcache.url.open_store(url)  # nobody listens there any more
