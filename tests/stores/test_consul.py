"""Consul: what is stored, what a user may ask for, and what each refusal of the servers becomes.

The contract is in test_contract.py, races in test_races.py, faults in test_consul_faults.py.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.backends import consul_wire
from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, StoreUnavailable, TooLarge
from kvcache.kvs import ABSENT, ANYWAY, Store, Version
from kvcache.url import open_store
from tests import servers
from tests.proxy import HttpProxy
from tests.servers import certificates

LARGE = b"0123456789abcdef" * 70_000
"""1.1 MB: three parts."""
WRITE = r"^/v1/txn"


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(consul: servers.Consul, prefix: str) -> Iterator[Store]:
    with open_store(consul.store_url(prefix)) as store:
        yield store


@pytest.fixture
def proxy(consul: servers.Consul) -> Iterator[HttpProxy]:
    with HttpProxy(consul.port) as proxy:
        yield proxy


@pytest.fixture
def far(consul: servers.Consul, proxy: HttpProxy, prefix: str) -> Iterator[Store]:
    """The same store by way of the proxy, and impatient."""
    with open_store(f"{consul.store_url(prefix, port=proxy.port)}?timeout=1s") as store:
        yield store


def raw(consul: servers.Consul, method: str, path: str, body: bytes | None = None) -> object:
    request = urllib.request.Request(f"{consul.url}/v1/kv/{path}", data=body, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_an_operator_can_read_it(consul: servers.Consul, store: Store, prefix: str) -> None:
    version = store.write("registry/latest", b'{"tag": "v1"}')
    (pair,) = raw(consul, "GET", f"{prefix}/registry/latest")
    assert pair["Flags"] >> 48 == 0x6B76
    assert str(pair["ModifyIndex"]) == version.token
    assert store.read("registry/latest") == b'{"tag": "v1"}'


def test_what_others_put_there_is_a_value(consul: servers.Consul, store: Store, prefix: str) -> None:
    for flags in (0, 1, 2**64 - 1):
        raw(consul, "PUT", f"{prefix}/by/hand?flags={flags}", b"theirs")
        stored = store.read_versioned("by/hand")
        assert stored.data == b"theirs"
    raw(consul, "PUT", f"{prefix}/folder/", b"")  # as Consul's own web page makes one
    assert list(store.list()) == ["by/hand"]
    store.write_if("by/hand", b"ours", stored.version)


def test_a_value_is_never_taken_for_a_manifest(consul: servers.Consul, store: Store, prefix: str) -> None:
    store.write("large", LARGE)
    (pair,) = raw(consul, "GET", f"{prefix}/large?consistent")
    assert pair["Flags"] >> 48 == 0x6B6D
    manifest = consul_wire.b64decode(pair["Value"])
    store.write("copy", manifest)
    assert store.read("copy") == manifest
    assert store.read("large") == LARGE
    assert len(raw(consul, "GET", f"{prefix}/.parts/?keys")) == 3
    store.write_if("large", b"small", store.stat("large").version)
    assert raw(consul, "GET", f"{prefix}/?keys") == [f"{prefix}/copy", f"{prefix}/large"]


def test_the_same_bytes_again_are_another_version(store: Store) -> None:
    """Consul keeps the index of a pair that is written as it is; our flags make every write another one."""
    versions = [store.write("key", b""), store.write("key", b""), store.write_if("key", b"", store.stat("key").version)]
    assert len(set(versions)) == 3
    with pytest.raises(Conflict):
        store.write_if("key", b"", versions[0])


def test_a_version_of_another_store_is_refused(store: Store) -> None:
    store.write("key", b"")
    with pytest.raises(Conflict):
        store.write_if("key", b"", Version("84d2058fdbb14e4d"))


def test_the_limit_of_one_pair_is_none_of_a_value(store: Store) -> None:
    for size in (consul_wire.INLINE_BYTES, consul_wire.INLINE_BYTES + 1, consul_wire.PART_BYTES, 600_000):
        key = "k" * 800 + '"é' * 10
        store.write(key, bytes(size))
        assert store.stat(key).size == size
        assert store.read(key) == bytes(size)


def test_a_smaller_limit_of_the_servers_is_too_large_and_leaves_nothing(prefix: str) -> None:
    with Configured({"limits": {"kv_max_value_size": 100_000, "txn_max_req_len": 100_000}}) as server:
        with open_store(server.store_url(prefix)) as store:
            for write in (lambda: store.write("key", bytes(300_000)), lambda: store.write("key", LARGE)):
                with pytest.raises(TooLarge, match="max size: 100000 bytes"):
                    write()
        with open_store(server.store_url()) as store:
            assert list(store._shelf.names("")) == []


FLAT = """
import io, resource, sys
from kvcache.url import open_store
url, size, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Zeros(io.RawIOBase):
    left = size
    def read(self, n=-1):
        n = min(n, self.left)
        self.left -= n
        return bytes(n)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_store(url) as store:
    store.write("warm", bytes(3_000_000)); store.read("warm"); store.delete("warm")
    before = peak()
    store.upload("large", Zeros())
    store.download("large", path)
    store.delete("large")
print((peak() - before) // 1024)
"""


def test_memory_stays_flat(consul: servers.Consul, prefix: str, tmp_path: Path) -> None:
    size = 48 * 1024 * 1024
    command = [sys.executable, "-c", FLAT, consul.store_url(prefix), str(size), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "file").stat().st_size == size
    assert int(done.stdout) < 12, f"{done.stdout.strip()} MiB more at the peak"


# -- pure --------------------------------------------------------------------------------------------------------------


@given(nonce=st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}"), manifest=st.booleans(), data=st.binary())
def test_flags_tell_value_and_manifest_apart(nonce: str, manifest: bool, data: bytes) -> None:
    mark = consul_wire.flags(nonce, manifest=manifest)
    assert 0 < mark < 2**63
    assert consul_wire.Pair(data, mark, 7).entry(0.0).is_manifest is manifest
    body = json.loads(consul_wire.write_body("é/%", data, mark, ANYWAY))[0]["KV"]
    assert (body["Key"], body["Flags"], consul_wire.b64decode(body["Value"])) == ("é/%", mark, data)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"[{}]", b'[{"Value": "!", "Flags": 0}]', b"<html>"])
def test_an_answer_that_is_none_of_consuls_is_no_value(body: bytes) -> None:
    with pytest.raises(consul_wire.Garbled):
        consul_wire.parse_pair(body)
    with pytest.raises(consul_wire.Garbled):
        consul_wire.parse_written(body)


# -- tokens, TLS, URLs -------------------------------------------------------------------------------------------------


class Configured(servers.Consul):
    """With more configuration, in Consul's own terms."""

    def __init__(self, configuration: dict[str, object]) -> None:
        super().__init__()
        self._configuration = configuration

    def prepare(self) -> None:
        (self.dir / "more.json").write_text(json.dumps(self._configuration))

    def command(self) -> list[str]:
        return [*super().command(), f"-config-file={self.dir}/more.json"]


ROOT = "11111111-2222-3333-4444-555555555555"


class WithACL(Configured):
    def __init__(self) -> None:
        super().__init__({"acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT}}})

    def is_ready(self) -> bool:
        request = urllib.request.Request(f"{self.url}/v1/kv/x?keys&consistent", headers={"X-Consul-Token": ROOT})
        try:
            urllib.request.urlopen(request, timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 404
        return True

    def call(self, path: str, body: object) -> dict[str, object]:
        request = urllib.request.Request(
            f"{self.url}/v1/acl/{path}",
            data=json.dumps(body).encode(),
            method="PUT",
            headers={"X-Consul-Token": ROOT},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def token(self, rules: str) -> str:
        name = f"p{uuid.uuid4().hex[:6]}"
        self.call("policy", {"Name": name, "Rules": rules})
        return str(self.call("token", {"Policies": [{"Name": name}]})["SecretID"])


def test_tokens(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    with WithACL() as server:
        url = server.store_url(prefix)
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", server.token(f'key_prefix "{prefix}/" {{ policy = "write" }}'))
        with open_store(url) as store:
            version = store.write_if("key", LARGE, ABSENT)
            store.write_if("key", b"1", version)
            assert (store.read("key"), list(store.list())) == (b"1", ["key"])
            assert store.wait_for_change("key", version, 10.0)
        reader = server.token(f'key_prefix "{prefix}/" {{ policy = "read" }}')
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", reader)
        with open_store(url) as store:
            assert store.read("key") == b"1"
            for write in (
                lambda: store.write("key", b"2"),
                lambda: store.write_if("new", b"2", ABSENT),
                lambda: store.write("key", LARGE),
                lambda: store.delete("key"),
            ):
                with pytest.raises(StoreUnavailable, match="CONSUL_HTTP_TOKEN lacks a right") as caught:
                    write()
                assert not isinstance(caught.value, AmbiguousWrite)
                assert reader not in str(caught.value) + repr(caught.value.__cause__)
        for bad in ("", str(uuid.uuid4())):
            monkeypatch.setenv("CONSUL_HTTP_TOKEN", bad)
            with open_store(url) as store, pytest.raises(StoreUnavailable, match="CONSUL_HTTP_TOKEN lacks a right"):
                store.read("key")


class WithTLS(Configured):
    ports_needed = 4

    def __init__(self) -> None:
        super().__init__({})
        self.certificates = certificates.make(self.dir)

    def prepare(self) -> None:
        files = self.certificates
        self._configuration = {
            "ports": {"https": self.port_at(3)},
            "cert_file": str(files.cert),
            "key_file": str(files.key),
            "ca_file": str(files.ca),
            "verify_incoming_https": True,
        }
        super().prepare()


def test_tls_with_a_certificate_on_both_sides(prefix: str) -> None:
    with WithTLS() as server:
        files = server.certificates
        url = f"{server.store_url(prefix, port=server.port_at(3))}?scheme=https&timeout=2s"
        with open_store(f"{url}&ca={files.ca}&cert={files.cert}&cert-key={files.key}") as store:
            version = store.write_if("key", LARGE, ABSENT)
            assert store.read("key") == LARGE
            assert store.wait_for_change("key", version, 0.2) is False
        with open_store(f"{url}&ca={files.ca}") as store, pytest.raises(StoreUnavailable):
            store.read("key")
        with open_store(url) as store, pytest.raises(StoreUnavailable, match="certificate is not trusted"):
            store.read("key")


def test_another_datacenter_is_asked_for(consul: servers.Consul, prefix: str) -> None:
    with open_store(f"{consul.store_url(prefix)}?dc=dc1") as store:
        version = store.write_if("key", LARGE, ABSENT)
        store.write_if("key", b"1", version)
        assert list(store.list()) == ["key"]
        store.delete("key")
    with open_store(f"{consul.store_url(prefix)}?dc=elsewhere&timeout=300ms") as store:
        for request in (lambda: store.read("key"), lambda: store.write_if("key", b"", ABSENT)):
            with pytest.raises(StoreUnavailable, match="No path to datacenter"):
                request()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("consul://h/a/../b", "prefix: '/a/../b': expected a path without . and .. segments"),
        ("consul://u:pw@h/a", "the token goes into CONSUL_HTTP_TOKEN"),
        ("consul://h/a?scheme=ftp", "scheme: 'ftp': expected http or https"),
        ("consul://h/a?timeout=0s", "timeout: '0s': expected a duration above zero"),
        ("consul://h/a?ca=/etc/hosts", "ca: '/etc/hosts': expected scheme=https"),
        ("consul://h/a?scheme=https&ca=/no/such", "ca: '/no/such': expected the path of a PEM file"),
        ("consul://h/a?scheme=https&cert=/no/such", "cert: '/no/such': expected the path of a PEM file"),
        ("consul://h/a?token=secret", "unknown parameter 'token'"),
        ("consul://h/a?verify=false", "unknown parameter 'verify'"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_opened(url: str, complaint: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        open_store(url)
    assert complaint in str(caught.value)
    assert "pw" not in str(caught.value)
    assert "=secret" not in str(caught.value)


def test_certificates_are_always_verified() -> None:
    from kvcache.backends.consul import _tls
    from kvcache.url import parse_store_url

    context = _tls(parse_store_url("consul://h/a?scheme=https"), "https")
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
