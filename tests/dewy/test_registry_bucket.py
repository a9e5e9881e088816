"""`s3://` and `gs://` registries, on SeaweedFS and on Google Cloud Storage's double."""

from __future__ import annotations

import hashlib
import time

import pytest

import kvcache
from dewy.errors import ArtifactNotFound, ConfigError
from dewy.registry import Announced, Platform, open_registry
from dewy.registry.landing import WrongBytes
from kvcache import LoadContext

LINUX = Platform("linux", "amd64")
ASSET = "app_linux_amd64.tar.gz"


@pytest.fixture(params=["seaweedfs", "fake_gcs"])
def place(request, monkeypatch):
    server = request.getfixturevalue(request.param)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return server.store_url(server.create_bucket(), "releases")


pytestmark = pytest.mark.servers


def context():
    return LoadContext(None, None, None, time.monotonic() + 60)


def opened(url, **options):
    return open_registry(url, env={}, platform=LINUX, hostname="Host-A", **options)


def test_the_newest_version_its_artifact_and_a_report(place, tmp_path):
    store = kvcache.open_store(place)
    for version in ("v1.9.0", "v1.10.0", "v2.0.0-rc.1"):
        store.write(f"{version}/{ASSET}", version.encode())
        store.write(f"{version}/app_darwin_arm64.tar.gz", b"another platform's")
    registry = opened(place)
    found = registry.current(context())
    announced = Announced.from_value(found.value, found.extra)
    assert announced.tag == "v1.10.0"
    assert announced.name == ASSET and announced.size == len("v1.10.0")
    assert announced.artifact_url.startswith(place.partition("?")[0])
    assert abs(announced.created_at.timestamp() - time.time()) < 600
    if place.startswith("s3:"):
        assert "?endpoint=http://127.0.0.1:" in announced.artifact_url  # as Dewy v2 writes it
    fetched = registry.fetch(announced, tmp_path / "artifact")
    assert (tmp_path / "artifact").read_bytes() == b"v1.10.0"
    assert fetched.digest == f"sha256:{hashlib.sha256(b'v1.10.0').hexdigest()}"
    registry.report(announced, "server")
    reports = [key for key in store.list("v1.10.0/") if "shipped_to_host-a_server_at_" in key]
    assert len(reports) == 1 and reports[0].endswith("Z.txt")
    registry.report(announced, "server")  # R4
    assert len(list(store.list("v1.10.0/"))) == 3
    assert Announced.from_value(registry.current(context()).value).name == ASSET  # a report is no artifact
    rc = open_registry(f"{place}{'&' if '?' in place else '?'}pre-release=true", env={}, platform=LINUX)
    assert Announced.from_value(rc.current(context()).value).tag == "v2.0.0-rc.1"


def test_a_checksum_and_a_signature_beside_the_artifact(place, tmp_path):
    """R3."""
    store = kvcache.open_store(place)
    store.write(f"v1.0.0/{ASSET}", b"data")
    right, wrong = hashlib.sha256(b"data").hexdigest(), "0" * 64
    store.write("v1.0.0/SHA256SUMS", f"{right}  {ASSET}\n".encode())
    store.write("v1.0.0/SHA256SUMS.minisig", b"of a signer")
    registry = opened(place)
    first = registry.current(context())
    announced = Announced.from_value(first.value, first.extra)
    assert announced.digest == f"sha256:{right}"
    with registry.beside(announced, deadline=time.monotonic() + 60) as files:
        assert files.read("SHA256SUMS.minisig", 100) == b"of a signer"
        with pytest.raises(kvcache.UpstreamError, match="larger than the 5 bytes"):
            files.read("SHA256SUMS.minisig", 5)
    store.write("v1.0.0/SHA256SUMS", f"{wrong}  {ASSET}\n".encode())
    last = LoadContext(first.value, None, first.extra, time.monotonic() + 60)
    found = registry.current(last)
    announced = Announced.from_value(found.value, found.extra)
    assert announced.digest == f"sha256:{wrong}"
    with pytest.raises(WrongBytes, match="its digest is"):
        registry.fetch(announced, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_version_without_an_artifact_for_this_machine(place):
    kvcache.open_store(place).write("v1.0.0/app_darwin_arm64.tar.gz", b"x")
    with pytest.raises(ArtifactNotFound, match="artifact not found") as error:
        opened(place).current(context())
    assert abs(error.value.release_time.timestamp() - time.time()) < 600


def test_an_empty_bucket_has_no_version(place):
    with pytest.raises(kvcache.UpstreamError, match="no valid versioned object found"):
        opened(place).current(context())


def test_a_mistyped_bucket_is_said_at_the_start(place):
    scheme, _, rest = place.partition("://")
    parts = rest.split("/")
    parts[1 if scheme == "s3" else 0] = "no-such-bucket-anywhere"
    with pytest.raises(ConfigError, match="no-such-bucket-anywhere"):
        opened(f"{scheme}://{'/'.join(parts)}")


def test_a_registry_that_cannot_be_reached_now_may_come_back(seaweedfs, monkeypatch):
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)
    registry = opened("s3://us-east-1/bucket/p?endpoint=http://127.0.0.1:1&timeout=1s")
    with pytest.raises(kvcache.UpstreamError):
        registry.current(context())
    registry.close()


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("s3://us-east-1", "bucket"),
        ("gs://", "bucket"),
        ("s3://us-east-1/bucket?artefact=x", "artefact"),
        ("gs://bucket?profile=x", "profile"),
        ("s3://us-east-1/bucket?pre-release=maybe", "pre-release"),
        ("s3://us-east-1/bucket?timeout=soon", "timeout"),
    ],
)
def test_wrong_urls_are_found_before_anything_is_asked(url, part):
    with pytest.raises(ConfigError, match=part) as error:
        opened(url)
    assert "\n" not in str(error.value)
