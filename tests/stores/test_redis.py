"""Redis and Valkey: what is stored, what a user may ask for, and what each refusal of the server becomes.

The contract is in test_contract.py, races in test_races.py, faults in test_redis_faults.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from kvcache.backends import redis_wire
from kvcache.backends.parts import ORPHAN_AGE
from kvcache.errors import AmbiguousWrite, Conflict, InvalidURL, NotFound, StoreUnavailable, TooLarge
from kvcache.kvs import ABSENT, Store
from kvcache.url import open_store
from tests import servers
from tests.proxy import TcpProxy

LARGE = b"0123456789abcdef" * 160_000
"""2.4 MiB: three parts."""


def with_parameters(url: str, parameters: str) -> str:
    return url + ("&" if "?" in url else "?") + parameters


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}:"


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> servers.Redis:
    return request.getfixturevalue(request.param)


@pytest.fixture
def store(server: servers.Redis, prefix: str) -> Store:
    with open_store(server.store_url(prefix)) as opened:
        yield opened


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_an_operator_can_read_it(server: servers.Redis, store: Store, prefix: str) -> None:
    before = time.time()
    version = store.write("registry/latest", b'{"tag": "v1"}')
    with server.client() as client:
        held = client.hgetall(f"{prefix}registry/latest")
    assert held.keys() == {b"version", b"modified", b"body"}
    assert held[b"body"] == b'{"tag": "v1"}'
    assert held[b"version"].decode() == version.token
    assert before - 1 < float(held[b"modified"]) < time.time() + 1
    assert store.stat("registry/latest").modified == float(held[b"modified"])


def test_a_large_value_is_a_manifest_and_parts(server: servers.Redis, store: Store, prefix: str) -> None:
    store.write("large", LARGE)
    with server.client() as client:
        assert set(client.hkeys(f"{prefix}large")) == {b"version", b"modified", b"parts"}
        assert len(client.keys(f"{prefix}.parts/large/*")) == 3
        assert store.read("large") == LARGE
        store.write_if("large", b"small", store.stat("large").version)
        assert set(client.hkeys(f"{prefix}large")) == {b"version", b"modified", b"body"}
        assert client.keys(f"{prefix}*") == [f"{prefix}large".encode()]


def test_a_value_is_never_taken_for_a_manifest(server: servers.Redis, store: Store, prefix: str) -> None:
    store.write("large", LARGE)
    with server.client() as client:
        manifest = client.hget(f"{prefix}large", "parts")
    store.write("copy", manifest)
    assert store.read("copy") == manifest


def test_what_others_put_there_can_be_read_or_healed(server: servers.Redis, store: Store, prefix: str) -> None:
    with server.client() as client:
        client.set(f"{prefix}string", b"by hand\x00")
        client.rpush(f"{prefix}list", "a", "b")
        client.hset(f"{prefix}hash", "field", "value")
        string = store.read_versioned("string")
        assert string.data == b"by hand\x00"
        client.set(f"{prefix}string", b"by hand again")
        with pytest.raises(Conflict):
            store.write_if("string", b"mine", string.version)
        for name in ("string", "list", "hash"):
            with pytest.raises(Conflict):
                store.write_if(name, b"mine", ABSENT)
            store.write_if(name, b"mine", store.read_versioned(name).version)
            assert store.read(name) == b"mine"


def test_keys_with_the_signs_of_a_pattern_are_listed_as_they_are(store: Store) -> None:
    names = ["a*b", "a?b", "a[b]c", "a^b", "axb", "a-b"]
    for name in names:
        store.write(name, b"")
    for name in names:
        assert list(store.list(name)) == [name]
    assert list(store.list("a")) == sorted(names)


def test_databases_do_not_mix(server: servers.Redis, prefix: str) -> None:
    with open_store(server.store_url(prefix, db=0)) as zero, open_store(server.store_url(prefix, db=3)) as three:
        zero.write("key", b"0")
        with pytest.raises(NotFound):
            three.read("key")


def test_a_read_and_a_conditional_write_are_one_request_each(server: servers.Redis, prefix: str) -> None:
    with TcpProxy(server.port) as proxy, open_store(server.store_url(prefix, port=proxy.port)) as store:
        version = store.write_if("key", b"1", ABSENT)  # and the scripts are loaded
        store.read_versioned("key")
        proxy.wait_idle()
        proxy.forget()
        version = store.write_if("key", b"2", version)
        store.read_versioned("key")
        assert len(proxy.journal) == 2, proxy.history()


# -- expiry ------------------------------------------------------------------------------------------------------------


def test_expire_begins_anew_with_every_write_and_reaches_the_parts(server: servers.Redis, prefix: str) -> None:
    with open_store(with_parameters(server.store_url(prefix), "expire=1h")) as store, server.client() as client:
        version = store.write_if("key", b"1", ABSENT)
        client.pexpire(f"{prefix}key", 1000)
        store.write_if("key", b"2", version)
        assert 3_590_000 < client.pttl(f"{prefix}key") <= 3_600_000
        store.write("large", LARGE)
        ages = [client.pttl(name) for name in client.keys(f"{prefix}.parts/*")]
        assert min(ages) > client.pttl(f"{prefix}large") + (ORPHAN_AGE - 60) * 1000
    with open_store(server.store_url(prefix)) as store, server.client() as client:
        store.write("key", b"3")
        assert client.pttl(f"{prefix}key") == -1, "without expire= nothing expires"


def test_what_has_expired_is_absent(server: servers.Redis, prefix: str) -> None:
    with open_store(with_parameters(server.store_url(prefix), "expire=50ms")) as store:
        version = store.write_if("key", b"1", ABSENT)
        deadline = time.monotonic() + 10
        while list(store.list()) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(NotFound):
            store.read("key")
        with pytest.raises(Conflict):
            store.write_if("key", b"2", version)
        store.write_if("key", b"2", ABSENT)


# -- large values ------------------------------------------------------------------------------------------------------

FLAT = """
import io, resource, sys
from kvcache.url import open_store
url, size, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Zeros(io.RawIOBase):
    left = size
    def readable(self): return True
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


def test_memory_stays_flat(redis: servers.Redis, prefix: str, tmp_path: Path) -> None:
    size = 96 * 1024 * 1024
    command = [sys.executable, "-c", FLAT, redis.store_url(prefix), str(size), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "file").stat().st_size == size
    assert int(done.stdout) < 16, f"{done.stdout.strip()} MiB more at the peak"


def test_the_limit_can_be_set(server: servers.Redis, prefix: str) -> None:
    with open_store(with_parameters(server.store_url(prefix), "max-value=2MiB")) as store:
        assert store.capabilities.max_value_bytes == 2 * 1024 * 1024
        with pytest.raises(TooLarge):
            store.write("key", LARGE)
        assert list(store.list()) == []


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_tls_and_users(redis_tls: servers.Redis, prefix: str) -> None:
    assert redis_tls.certificates is not None
    ca = f"ca={redis_tls.certificates.ca}"
    for user in ("app", "other"):
        with open_store(with_parameters(redis_tls.store_url(prefix, user=user), ca)) as store:
            version = store.write_if(user, LARGE, ABSENT)
            assert store.read(user) == LARGE
            assert store.wait_for_change(user, version, 0.1) is False
    untrusted = with_parameters(redis_tls.store_url(prefix), "timeout=500ms")
    with open_store(untrusted) as store, pytest.raises(StoreUnavailable, match="certificate verify failed"):
        store.read("app")
    wrong = with_parameters(redis_tls.store_url(prefix).replace("pass%2Fword", "guess"), ca)
    with open_store(wrong) as store, pytest.raises(StoreUnavailable, match="user and password") as caught:
        store.read("app")
    assert "guess" not in str(caught.value) + repr(caught.value.__cause__) + store.url


def test_a_full_server_keeps_the_old_value(server: servers.Redis, prefix: str) -> None:
    with type(server)("--maxmemory", "4mb") as full, open_store(full.store_url(prefix)) as store:
        version = store.write("key", b"old")
        with full.client() as client:
            with pytest.raises(redis_wire.redis_errors.OutOfMemoryError):
                while True:
                    client.append("filler", bytes(100_000))
            for write in (lambda: store.write_if("key", b"new", version), lambda: store.write("large", LARGE)):
                with pytest.raises(StoreUnavailable, match="maxmemory") as caught:
                    write()
                assert not isinstance(caught.value, AmbiguousWrite)
            assert store.read("key") == b"old"
            client.delete("filler")
        store.write_if("key", b"new", version)


RIGHTS = "+evalsha +eval +time +hmget +hset +hget +hdel +hstrlen +exists +type +get +set +unlink +del +persist +pexpire"
"""As docs/stores-redis.md has them, apart from those for waiting and listing."""


def test_users_need_the_rights_that_the_page_lists(server: servers.Redis, prefix: str) -> None:
    with type(server)(users={"admin": "secret", "app": "other"}) as locked, locked.client() as admin:

        def allow(commands: str) -> None:
            admin.execute_command("ACL", "SETUSER", "app", "reset", "on", ">other", f"~{prefix}*", *commands.split())

        allow(RIGHTS + " +scan +publish +subscribe +unsubscribe &kvcache:*")
        with open_store(locked.store_url(prefix, user="app")) as store:
            version = store.write_if("key", LARGE, ABSENT)
            store.write_if("key", b"1", version)
            assert (store.read("key"), list(store.list())) == (b"1", ["key"])
            assert store.wait_for_change("key", version, 5.0)
        for lacking in ("+evalsha", "+hmget", "+hset", "+time"):
            allow(RIGHTS.replace(lacking, ""))
            with (
                open_store(locked.store_url(prefix, user="app")) as store,
                pytest.raises(StoreUnavailable, match="lacks a right"),
            ):
                store.write("key", b"2")
            assert admin.hget(f"{prefix}key", "body") == b"1"
        allow(RIGHTS.replace("+persist", ""))
        with open_store(locked.store_url(prefix, user="app")) as store:
            version = store.stat("key").version
            with pytest.raises(AmbiguousWrite, match="lacks a right"):  # the script got as far as HSET
                store.write_if("key", b"3", version)
        anonymous = f"redis://{locked.host}:{locked.port}/0"
        with open_store(anonymous) as store, pytest.raises(StoreUnavailable, match="user and password"):
            store.read("key")


def test_a_user_without_the_right_to_publish_can_write(prefix: str) -> None:
    with servers.Redis(users={"admin": "secret", "quiet": "other"}) as server:
        with server.client() as admin:
            admin.acl_setuser("quiet", reset=True, enabled=True, passwords=["+other"], keys=["*"], categories=["+@all"])
        with open_store(server.store_url(prefix, user="quiet")) as store:
            version = store.write_if("key", b"1", ABSENT)
            store.write_if("key", b"2", version)
            began = time.monotonic()
            assert store.wait_for_change("key", version, 30.0), "it may not subscribe either, so it has to poll"
            assert time.monotonic() - began < 10
            assert store.read("key") == b"2"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (redis_wire.redis_errors.ConnectionError("Connection closed by server."), "UNKNOWN"),
        (redis_wire.redis_errors.TimeoutError("Timeout reading from socket"), "UNKNOWN"),
        (redis_wire.redis_errors.RedisClusterException("Redis Cluster cannot be connected"), "UNKNOWN"),
        (redis_wire.redis_errors.BusyLoadingError("Redis is loading"), "NOT_NOW"),
        (redis_wire.redis_errors.ReadOnlyError("You can't write against a read only replica."), "NOT_NOW"),
        (redis_wire.redis_errors.ClusterDownError("The cluster is down"), "NOT_NOW"),
        (redis_wire.redis_errors.MasterDownError("Link with MASTER is down"), "NOT_NOW"),
        (redis_wire.redis_errors.MovedError("1 127.0.0.1:1"), "NOT_NOW"),
        (redis_wire.redis_errors.TryAgainError("Multiple keys request during rehashing of slot"), "NOT_NOW"),
        (redis_wire.redis_errors.SlotNotCoveredError("slot 7 is not covered"), "NOT_NOW"),
        (redis_wire.redis_errors.ResponseError("BUSY Redis is busy running a script."), "NOT_NOW"),
        (redis_wire.redis_errors.OutOfMemoryError("command not allowed"), "NO"),
        (redis_wire.redis_errors.NoPermissionError("this user has no permissions"), "NO"),
        (redis_wire.redis_errors.AuthenticationError("Authentication required."), "NO"),
        (redis_wire.redis_errors.ResponseError("ERR unknown command"), "NO"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_errors_are_judged(error: Exception, verdict: str) -> None:
    assert redis_wire.judge(error).verdict.name == verdict


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://h/x", "database: 'x': expected a number"),
        ("redis://h/1?cluster=true", "database: '1': expected 0"),
        ("redis://h/0?cluster=true&sentinel=m", "sentinel: 'm': expected none"),
        ("redis://h/0?cluster=maybe", "cluster: 'maybe': expected true or false"),
        ("redis://h/0?expire=0s", "expire: '0s': expected a duration above zero"),
        ("redis://h/0?expire=soon", "expire: 'soon'"),
        ("redis://h/0?timeout=0s", "timeout: '0s'"),
        ("redis://h/0?ca=/etc/hosts", "ca: '/etc/hosts': expected rediss://"),
        ("rediss://h/0?ca=/no/such", "ca: '/no/such': expected the path of a PEM file"),
        ("redis://h/0?sentinel=m&sentinels=a", "sentinels: 'a': expected further sentinels as host:port"),
        ("redis://h/0?insecure=true", "unknown parameter 'insecure'"),
        ("rediss://u:pw@h/0?tls-verify=false", "unknown parameter 'tls-verify'"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_opened(url: str, complaint: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        open_store(url)
    assert complaint in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0?cluster=true"])
def test_a_server_that_is_not_there_is_found_out_by_the_first_request(url: str) -> None:
    with open_store(with_parameters(url, "timeout=200ms")) as store:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.read("key")
        assert time.monotonic() - began < 5
