"""What each server does with conditions, seen on the wire: what our other tests may conclude from it, and what not.

A new version of a server that behaves otherwise fails here first, with its name.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import pytest
import redis as redis_py
from botocore.exceptions import ClientError
from redis.exceptions import MovedError

from tests.servers import Redis, RedisCluster
from tests.servers.process import direct

pytestmark = pytest.mark.servers


def http(method, url, body=None, **headers):
    """Status, headers and body of one request."""
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with direct.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


# -- S3 ---------------------------------------------------------------------------------------------------------------


def status_of(call, **arguments):
    """HTTP status of one boto3 call."""
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


S3_CONDITIONS = {
    # server       PUT create-only, exists | PUT stale | PUT on absent | DELETE stale | GET, not changed
    "seaweedfs": (412, 412, 412, 412, 304),
    "moto": (412, 412, 404, 412, 304),
    "localbucket": (412, 200, 200, 204, 200),
    "nanio": (200, 200, 200, 204, 200),
    "s3rver": (200, 200, 200, 204, 304),
}


@pytest.mark.parametrize("name", S3_CONDITIONS)
def test_s3_conditions(name, request):
    server = request.getfixturevalue(name)
    client, bucket = server.client(), server.create_bucket()
    key = {"Bucket": bucket, "Key": "folder/key"}
    stale = client.put_object(**key, Body=b"one")["ETag"]
    current = client.put_object(**key, Body=b"two")["ETag"]
    unchanged = client.put_object(Bucket=bucket, Key="unchanged", Body=b"same")["ETag"]
    assert client.get_object(**key)["Body"].read() == b"two"
    assert status_of(client.put_object, **key, Body=b"two", IfMatch=current) == 200
    assert (
        status_of(client.put_object, **key, Body=b"two", IfNoneMatch="*"),
        status_of(client.put_object, **key, Body=b"two", IfMatch=stale),
        status_of(client.put_object, Bucket=bucket, Key="absent", Body=b"two", IfMatch=stale),
        status_of(client.delete_object, **key, IfMatch=stale),
        status_of(client.get_object, Bucket=bucket, Key="unchanged", IfNoneMatch=unchanged),
    ) == S3_CONDITIONS[name]


def test_seaweedfs_lets_one_of_many_creators_win(seaweedfs):
    bucket, won, together = seaweedfs.create_bucket(), [], threading.Barrier(8)

    def create(name):
        client = seaweedfs.client()
        together.wait()
        if status_of(client.put_object, Bucket=bucket, Key="race", Body=name, IfNoneMatch="*") == 200:
            won.append(name)

    threads = [threading.Thread(target=create, args=(b"%d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert seaweedfs.client().get_object(Bucket=bucket, Key="race")["Body"].read() == won[0]


# -- Google Cloud Storage ---------------------------------------------------------------------------------------------


def gcs_upload(server, bucket, kind, generation):
    """Status of an upload of `key` that is conditional on `generation`."""
    url = f"{server.url}/upload/storage/v1/b/{bucket}/o?uploadType={kind}&name=key&ifGenerationMatch={generation}"
    if kind == "media":
        return http("POST", url, b"value", **{"Content-Type": "application/octet-stream"})[0]
    parts = [b"Content-Type: application/json\r\n\r\n" + json.dumps({"name": "key"}).encode()]
    parts.append(b"Content-Type: application/octet-stream\r\n\r\nvalue")
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--"
    return http("POST", url, body, **{"Content-Type": "multipart/related; boundary=b"})[0]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("fake_gcs", "multipart", [412, 412]),
        ("fake_gcs", "media", [200, 200]),
        ("gcp_emulator", "multipart", [200, 200]),
        ("gcp_emulator", "media", [200, 200]),
    ],
)
def test_gcs_conditions(name, kind, expected, request):
    server = request.getfixturevalue(name)
    bucket = server.create_bucket()
    assert gcs_upload(server, bucket, kind, 0) == 200
    assert [gcs_upload(server, bucket, kind, generation) for generation in (0, 1)] == expected


def test_fake_gcs_ignores_the_condition_of_a_delete(fake_gcs):
    bucket = fake_gcs.create_bucket()
    gcs_upload(fake_gcs, bucket, "multipart", 0)
    assert http("DELETE", f"{fake_gcs.url}/storage/v1/b/{bucket}/o/key?ifGenerationMatch=1")[0] == 200


# -- Redis ------------------------------------------------------------------------------------------------------------

COMPARE_AND_SET = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('SET', KEYS[1], ARGV[2]) end"


@pytest.mark.parametrize("name", ["redis", "redis_tls", "valkey"])
def test_redis_compares_and_sets_in_a_script(name, request):
    with request.getfixturevalue(name).client() as client:
        client.set("servers:key", "one")
        script = client.register_script(COMPARE_AND_SET)
        assert script(keys=["servers:key"], args=["stale", "two"]) is None
        assert script(keys=["servers:key"], args=["one", "two"]) in (b"OK", "OK")
        assert client.get("servers:key") == b"two"


def test_only_valkey_knows_ifeq(redis, valkey):
    with valkey.client() as client:
        client.set("servers:key", "one")
        assert client.execute_command("SET", "servers:key", "two", "IFEQ", "stale") is None
        assert client.execute_command("SET", "servers:key", "two", "IFEQ", "one")
    with redis.client() as client, pytest.raises(redis_py.ResponseError, match="syntax error"):
        client.execute_command("SET", "servers:key", "two", "IFEQ", "one")


def test_redis_with_tls_and_users_takes_nothing_less(redis_tls):
    ca = {"ssl": True, "ssl_ca_certs": str(redis_tls.certificates.ca)}
    for kind, arguments in (
        (redis_py.ConnectionError, {}),  # no TLS
        (redis_py.ConnectionError, {"ssl": True}),  # an authority that it does not trust
        (redis_py.AuthenticationError, ca),
        (redis_py.AuthenticationError, ca | {"username": "app", "password": "wrong"}),
    ):
        with redis_py.Redis(port=redis_tls.port, retry=None, **arguments) as stranger, pytest.raises(kind):
            stranger.ping()
    with redis_py.Redis.from_url(redis_tls.store_url(user="other"), ssl_ca_certs=ca["ssl_ca_certs"]) as other:
        assert other.acl_whoami() == "other"


def test_redis_cluster_serves_all_slots(redis_cluster):
    with redis_cluster.client() as client:
        for number in range(50):
            client.set(f"servers:{number}", number)
        assert [int(client.get(f"servers:{number}")) for number in range(50)] == list(range(50))
    homes = {redis_cluster.primary_of(redis_cluster.slot_of(f"servers:{number}")).port for number in range(50)}
    assert len(homes) == 3


def test_redis_cluster_moves_a_slot_under_a_client(redis_cluster):
    slot = redis_cluster.slot_of("{moved}")
    source = redis_cluster.primary_of(slot)
    target = next(node for node in redis_cluster.nodes if node is not source)
    with redis_cluster.client() as client:
        client.set("{moved}:1", "one")
        with redis_cluster.half_moved(slot, target):
            assert client.get("{moved}:1") == b"one"
            client.set("{moved}:2", "two")  # new keys are made in the new home already
            with target.client() as direct_to_target, pytest.raises(MovedError):
                direct_to_target.get("{moved}:2")
        assert redis_cluster.primary_of(slot) is target
        assert (client.get("{moved}:1"), client.get("{moved}:2")) == (b"one", b"two")
        redis_cluster.move_slot(slot, source)
        assert (client.get("{moved}:1"), client.get("{moved}:2")) == (b"one", b"two")


def test_a_replica_takes_over_from_a_killed_primary():
    with RedisCluster(replicas=1) as cluster:
        slot = cluster.slot_of("key")
        with cluster.client() as client:
            client.set("key", "value")
            assert client.execute_command("WAIT", 1, 10_000, target_nodes=[client.get_node_from_key("key")])
            dead = cluster.kill_primary(slot)
            heir = cluster.await_takeover(slot, dead)
            assert heir is not dead
            assert client.get("key") == b"value"
            dead.start()
            cluster.await_whole()
            assert cluster.primary_of(slot) is heir


# -- Consul and Azure -------------------------------------------------------------------------------------------------


def test_consul_conditions_are_in_the_body_of_a_200(consul):
    url = f"{consul.url}/v1/kv/servers/key"
    http("DELETE", url)
    answers = [http("PUT", f"{url}?cas=0", b"one"), http("PUT", f"{url}?cas=0", b"two")]
    index = json.loads(http("GET", url)[2])[0]["ModifyIndex"]
    answers += [http("PUT", f"{url}?cas={index + 1}", b"two"), http("PUT", f"{url}?cas={index}", b"two")]
    answers += [http("PUT", f"{url}-absent?cas={index}", b"two"), http("DELETE", f"{url}?cas={index}")]
    assert [status for status, _, _ in answers] == [200] * 6
    assert [json.loads(body) for _, _, body in answers] == [True, False, False, True, False, False]


def test_consul_takes_half_a_mebibyte_and_not_a_byte_more(consul):
    url = f"{consul.url}/v1/kv/servers/large"
    assert http("PUT", url, bytes(512 * 1024))[0] == 200
    # It hangs up without reading the rest, which may reset the connection before the answer is read.
    with contextlib.suppress(OSError):
        assert http("PUT", url, b"1" * (512 * 1024 + 1))[0] == 413
    assert http("GET", f"{url}?raw")[2] == bytes(512 * 1024)


def test_consul_wakes_a_blocking_query_on_a_write(consul):
    url = f"{consul.url}/v1/kv/servers/watched"
    http("PUT", url, b"one")
    index = http("GET", url)[1]["X-Consul-Index"]
    threading.Timer(0.2, http, ("PUT", url, b"two")).start()
    began = time.monotonic()
    assert http("GET", f"{url}?index={index}&wait=60s&raw")[2] == b"two"
    assert time.monotonic() - began < 30


def test_azure_conditions(azurite):
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError

    with azurite.client() as client:
        blob = client.get_blob_client(azurite.create_container(), "key")

        def put(**condition):
            try:
                return blob.upload_blob(b"value", overwrite=True, **condition)["etag"]
            except HttpResponseError as error:
                return error.status_code

        stale = put()
        current = put()
        assert put(etag=stale, match_condition=MatchConditions.IfNotModified) == 412
        assert put(match_condition=MatchConditions.IfMissing) == 409
        assert put(etag=current, match_condition=MatchConditions.IfNotModified) not in (409, 412)


# -- store URLs and environments --------------------------------------------------------------------------------------


def test_store_urls_say_where_and_how(seaweedfs, fake_gcs, redis, redis_tls, redis_cluster, consul, azurite):
    assert seaweedfs.store_url("bucket", "a/b") == f"s3://us-east-1/bucket/a/b?endpoint={seaweedfs.url}"
    assert seaweedfs.store_url("bucket", endpoint="http://p:1") == "s3://us-east-1/bucket/?endpoint=http://p:1"
    assert fake_gcs.store_url("bucket") == f"gs://bucket/?endpoint={fake_gcs.url}"
    assert redis.store_url("a/b") == f"redis://127.0.0.1:{redis.port}/0?prefix=a/b"
    assert redis.store_url(port=1) == "redis://127.0.0.1:1/0"
    assert redis_tls.store_url() == f"rediss://app:pass%2Fword@127.0.0.1:{redis_tls.port}/0"
    assert redis_cluster.store_url("p").endswith("/0?cluster=true&prefix=p")
    assert consul.store_url("a", port=2) == "consul://127.0.0.1:2/a"
    assert azurite.store_url("container", "p") == "abfs://container/p"
    assert seaweedfs.env["AWS_ACCESS_KEY_ID"] == "test"


def test_a_redis_of_ones_own_can_be_killed_without_harm_to_the_session(redis):
    with Redis() as own:
        assert own.port != redis.port
        own.kill()
        with own.client() as client, pytest.raises(redis_py.ConnectionError):
            client.ping()
    assert redis.client().ping()
