"""The proxies between real clients and real servers: transparent, and faults end as they do in the field."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import pytest
import redis as redis_py
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.proxy import (
    CutBody,
    DelayReply,
    DelayRequest,
    DropReply,
    DropRequest,
    Duplicate,
    Fault,
    HttpProxy,
    Outage,
    TcpProxy,
    refusal,
)
from tests.servers.process import direct

BIG = bytes(20 * 1024 * 1024)


@pytest.fixture
def s3(seaweedfs):
    """A boto3 client by way of a proxy, the proxy, and a bucket."""
    bucket = seaweedfs.create_bucket()
    with HttpProxy(seaweedfs.port) as proxy:
        yield seaweedfs.client(proxy.url), proxy, bucket


def test_s3_passes_signatures_conditions_and_large_bodies(s3):
    client, _, bucket = s3
    etag = client.put_object(Bucket=bucket, Key="a b/ü", Body=b"value", IfNoneMatch="*")["ETag"]
    assert client.get_object(Bucket=bucket, Key="a b/ü")["Body"].read() == b"value"
    client.put_object(Bucket=bucket, Key="a b/ü", Body=BIG, IfMatch=etag)
    assert client.get_object(Bucket=bucket, Key="a b/ü")["Body"].read() == BIG
    assert [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b/ü"]


@pytest.mark.parametrize("action", [DropReply(), DropReply(reset=True), Duplicate("second")])
def test_s3_refuses_the_retry_of_a_write_that_had_landed(s3, action):
    client, proxy, bucket = s3
    proxy.plan = [Fault(action, method="PUT", times=1)]
    try:
        client.put_object(Bucket=bucket, Key="key", Body=b"mine", IfNoneMatch="*")
    except ConnectionClosedError:
        with pytest.raises(ClientError, match="PreconditionFailed"):
            client.put_object(Bucket=bucket, Key="key", Body=b"mine", IfNoneMatch="*")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"mine"
    assert [status for entry in proxy.journal if entry.method == "PUT" for status in entry.upstream] == [200, 412]


def test_s3_reads_refusals_in_its_own_words(s3):
    client, proxy, bucket = s3
    for status, code in ((409, "ConditionalRequestConflict"), (412, "PreconditionFailed"), (503, "SlowDown")):
        proxy.plan = [Fault(refusal("s3", status))]
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=bucket, Key="key", Body=b"value")
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_s3_keeps_nothing_of_a_part_that_was_cut_off(s3):
    client, proxy, bucket = s3
    client.put_object(Bucket=bucket, Key="key", Body=b"old")
    proxy.plan = [Fault(CutBody(after=100_000, where="request"), method="PUT")]
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="key", Body=BIG)
    proxy.wait_idle()
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"old"


def test_gcs_passes_conditions(fake_gcs):
    bucket = fake_gcs.create_bucket()
    with HttpProxy(fake_gcs.port) as proxy:
        assert upload(proxy.url, bucket, b"one", generation=0) == 200
        assert upload(proxy.url, bucket, b"two", generation=0) == 412
        proxy.plan = [Fault(refusal("gcs", 429))]
        assert upload(proxy.url, bucket, b"two", generation=0) == 429
    with direct.open(f"{fake_gcs.url}/storage/v1/b/{bucket}/o/key?alt=media") as answer:
        assert answer.read() == b"one"


def upload(url, bucket, value, generation):
    """Status of a conditional upload in the one form that fake-gcs-server checks."""
    parts = [("application/json", json.dumps({"name": "key"}).encode()), ("application/octet-stream", value)]
    body = b"".join(b"--b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (kind.encode(), data) for kind, data in parts) + b"--b--"
    query = f"uploadType=multipart&ifGenerationMatch={generation}"
    target = f"{url}/upload/storage/v1/b/{bucket}/o?{query}"
    try:
        with direct.open(
            urllib.request.Request(target, body, {"Content-Type": "multipart/related; boundary=b"})
        ) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_consul_blocking_queries_pass(consul):
    with HttpProxy(consul.port) as proxy:
        put = urllib.request.Request(f"{proxy.url}/v1/kv/proxy/key", b"value", method="PUT")
        with direct.open(put) as answer:
            assert answer.read().strip() == b"true"
        with direct.open(f"{proxy.url}/v1/kv/proxy/key") as answer:
            index = answer.headers["X-Consul-Index"]
        began = time.monotonic()
        with direct.open(f"{proxy.url}/v1/kv/proxy/key?index={index}&wait=500ms") as answer:
            assert json.load(answer)[0]["ModifyIndex"] == int(index)
        assert time.monotonic() - began >= 0.5


def test_azure_passes(azurite):
    container = azurite.create_container()
    with HttpProxy(azurite.port) as proxy, azurite.client(proxy.url) as client:
        blob = client.get_blob_client(container, "folder/key")
        blob.upload_blob(BIG)
        assert blob.download_blob().readall() == BIG


# -- Redis, over TCP --------------------------------------------------------------------------------------------------

SET = r"\r\nSET\r\n"


@pytest.fixture
def tcp(redis):
    """A redis-py client by way of a proxy, the proxy, and one that goes straight to the server."""
    with TcpProxy(redis.port) as proxy, redis.client(proxy.port) as client, redis.client() as behind:
        behind.delete("proxied")
        client.ping()
        yield client, proxy, behind


def test_redis_passes_large_values_and_subscriptions(tcp):
    client, _, behind = tcp
    client.set("proxied", BIG)
    assert client.get("proxied") == BIG
    with client.pubsub() as subscriber:
        subscriber.subscribe("proxied")
        assert subscriber.get_message(timeout=10)["type"] == "subscribe"
        behind.publish("proxied", "news")
        assert subscriber.get_message(timeout=10)["data"] == b"news"


@pytest.mark.parametrize("action", [DropReply(), DropReply(reset=True), DropReply(after=2)])
def test_redis_carries_out_what_it_cannot_answer(tcp, action):
    client, proxy, behind = tcp
    proxy.plan = [Fault(action, path=SET, times=1)]
    with pytest.raises(redis_py.ConnectionError):
        client.set("proxied", "value")
    assert behind.get("proxied") == b"value"
    assert client.get("proxied") == b"value"


def test_redis_loses_the_answer_after_a_command_of_many_blocks(tcp):
    client, proxy, behind = tcp
    client.set("proxied", BIG)
    proxy.plan = [Fault(DropReply(), path=SET, times=1)]
    with pytest.raises(redis_py.ConnectionError):
        client.set("proxied", "small")
    assert behind.get("proxied") == b"small"
    assert all(entry.over for entry in proxy.journal)


def test_redis_never_sees_a_dropped_request(tcp):
    client, proxy, behind = tcp
    proxy.plan = [Fault(DropRequest(), path=SET, times=1)]
    with pytest.raises(redis_py.ConnectionError):
        client.set("proxied", "value")
    assert behind.get("proxied") is None
    assert client.set("proxied", "value")


@pytest.mark.parametrize(("action", "landed"), [(DropRequest(silent=True), None), (DropReply(silent=True), b"value")])
def test_redis_that_says_nothing_runs_into_the_time_out(redis, tcp, action, landed):
    _, proxy, behind = tcp
    proxy.plan = [Fault(action, path=SET, times=1)]
    with (
        redis_py.Redis(port=proxy.port, socket_timeout=0.2, retry=None) as impatient,
        pytest.raises(redis_py.TimeoutError),
    ):
        impatient.set("proxied", "value")
    proxy.wait_idle()
    assert behind.get("proxied") == landed


def test_redis_hears_nothing_on_a_connection_that_fell_silent(tcp):
    _, proxy, behind = tcp
    proxy.plan = [Fault(DropReply(silent=True), path="PING", times=1)]
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(b"PING\r\n")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        raw.sendall(b"SET proxied value\r\n")
    proxy.wait_idle()
    assert behind.get("proxied") is None


def test_redis_gets_a_delayed_request_after_the_client_gave_up(tcp):
    _, proxy, behind = tcp
    proxy.plan = [Fault(DelayRequest(0.5), path=SET, times=1)]
    with (
        redis_py.Redis(port=proxy.port, socket_timeout=0.2, retry=None) as impatient,
        pytest.raises(redis_py.TimeoutError),
    ):
        impatient.set("proxied", "late")
    assert behind.get("proxied") is None
    proxy.wait_idle()
    assert behind.get("proxied") == b"late"


def test_redis_answers_late_and_through_an_outage(tcp):
    client, proxy, behind = tcp
    proxy.plan = [Fault(DelayReply(0.3), path=SET, nth=1), Fault(Outage(0.3), path=SET, nth=2)]
    began = time.monotonic()
    client.set("proxied", "1")
    assert time.monotonic() - began >= 0.3
    with pytest.raises(redis_py.ConnectionError):
        client.set("proxied", "2")
    assert behind.get("proxied") == b"1"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            client.set("proxied", "3")
            break
        except redis_py.ConnectionError:
            time.sleep(0.02)
    assert behind.get("proxied") == b"3"


def test_a_fault_that_is_not_for_tcp_fails_the_test(redis):
    proxy = TcpProxy(redis.port, [Fault(refusal("plain", 500))]).start()
    with redis.client(proxy.port) as client, pytest.raises(redis_py.ConnectionError):
        client.ping()
    with pytest.raises(RuntimeError, match="the proxy failed"):
        proxy.close()
