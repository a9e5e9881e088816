"""`grpc://host:port`, against a server in a process of its own which knows nothing of our messages."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import dewy.registry
from dewy.errors import ConfigError
from dewy.registry import Announced, Pending, Platform, Registry, open_registry
from dewy.registry.grpc import CALL_WITHIN
from dewy.registry.landing import WrongBytes
from kvcache import NOT_MODIFIED, LoadContext, SharedCache, UpstreamError, UpstreamUnavailable, open_store
from tests.dewy.github_repo import TOKEN, Repo
from tests.dewy.node import Directory, Node, web
from tests.dewy.supervised import wait_for
from tests.fakes.grpc_registry import FakeGrpcRegistry
from tests.servers.certificates import Certificates, make

LINUX = Platform("linux", "amd64", "gnu")
NAME = "app_linux_amd64.tar.gz"
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
DATA = b"an artifact"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeGrpcRegistry]:
    with FakeGrpcRegistry() as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates) -> Iterator[FakeGrpcRegistry]:
    with FakeGrpcRegistry((certificates.cert, certificates.key)) as running:
        yield running


def opened(server: FakeGrpcRegistry, query: str = "no-tls=true", env: Any = None, **options: Any) -> Registry:
    url = f"grpc://{server.target}?{query}"
    return open_registry(url, env=env or {}, platform=LINUX, hostname="web-1", now=lambda: MOMENT, **options)


def ask(registry: Registry, last: Announced | None = None, seconds: float = 60.0) -> tuple[Announced, Pending | None]:
    value, extra = (last.to_value(), last.extra()) if last else (None, None)
    loaded = registry.current(LoadContext(value, None, extra, time.monotonic() + seconds))
    assert loaded is not NOT_MODIFIED
    return Announced.from_value(loaded.value, loaded.extra), Pending.from_extra(loaded.extra)


def published(top: Path, files: dict[str, bytes] | None = None) -> str:
    """A version in a directory; the URL of its artifact."""
    directory = top / "releases" / "v1.2.3"
    directory.mkdir(parents=True)
    for name, data in {NAME: DATA, **(files or {})}.items():
        (directory / name).write_bytes(data)
    return f"file://{directory}/{NAME}"


# -- what is announced -------------------------------------------------------------------------------------------------


def test_the_server_s_answer_is_announced(server: FakeGrpcRegistry) -> None:
    server.announce("v1.2.3+blue", f"s3://tokyo/bucket/v1.2.3/{NAME}", "20260501T000000Z", (1_700_000_000, 500_000_000))
    announced, pending = ask(opened(server))
    assert announced == Announced(
        id="20260501T000000Z",
        tag="v1.2.3+blue",
        artifact_url=f"s3://tokyo/bucket/v1.2.3/{NAME}",
        created_at=datetime.fromtimestamp(1_700_000_000.5, UTC),
        slot="blue",
    )
    assert pending is None
    assert server.calls()[-1]["method"] == "Current"
    assert server.calls()[-1]["fields"] == {"1": "amd64", "2": "linux"}


def test_the_artifact_s_name_is_asked_for(server: FakeGrpcRegistry) -> None:
    server.announce("v1.2.3", f"gs://bucket/v1.2.3/{NAME}", id="")
    announced, _ = ask(opened(server, f"no-tls=true&artifact={NAME}"))
    assert server.calls()[-1]["fields"] == {"1": "amd64", "2": "linux", "3": NAME}
    assert (announced.created_at, announced.id) == (None, "20260501T000000Z")


def test_the_slot_of_a_calendar_version(server: FakeGrpcRegistry) -> None:
    server.announce("2026.05.1+green", f"gs://bucket/2026.05.1/{NAME}")
    assert ask(opened(server, "no-tls=true&calver=YYYY.0M.MICRO"))[0].slot == "green"


@pytest.mark.parametrize(
    ("tag", "url", "message"),
    [
        ("", f"gs://bucket/v1/{NAME}", "an answer without a tag or an artifact's URL"),
        ("v1.0.0", "", "an answer without a tag or an artifact's URL"),
        ("v1.0.0", "https://example.com/app.tar.gz", r"https://example\.com/app\.tar\.gz: expected ghr://owner"),
        ("v1.0.0", f"ghr://owner/{NAME}", "expected ghr://owner/repo/tag/TAG/FILE"),
        ("v1.0.0", f"gs://{NAME}", "expected ghr://owner/repo/tag/TAG/FILE"),
    ],
)
def test_answers_that_are_no_use(server: FakeGrpcRegistry, tag: str, url: str, message: str) -> None:
    server.announce(tag, url)
    with pytest.raises(UpstreamError, match=message):
        ask(opened(server))


def test_bytes_that_are_no_message(server: FakeGrpcRegistry) -> None:
    server.garble(b"\xff\xff\xff\xff")
    with pytest.raises(UpstreamError, match=r"^grpc://127\.0\.0\.1:\d+\?no-tls=true: Current: internal: ") as caught:
        ask(opened(server))
    assert "\n" not in str(caught.value)


# -- how it fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "considered"),
    [("UNAVAILABLE", False), ("RESOURCE_EXHAUSTED", False), ("PERMISSION_DENIED", True), ("NOT_FOUND", True)],
)
def test_a_status_becomes_one_line(server: FakeGrpcRegistry, code: str, considered: bool) -> None:
    server.fail(code, "first line\nsecond line", pushback=1500)
    with pytest.raises(UpstreamError) as caught:
        ask(opened(server))
    words = code.lower().replace("_", " ")
    assert str(caught.value) == f"grpc://{server.target}?no-tls=true: Current: {words}: first line second line"
    assert (caught.value.authoritative, caught.value.retry_after) == (considered, 1.5)


def test_a_server_that_hangs_ends_with_the_deadline(server: FakeGrpcRegistry) -> None:
    server.hang()
    began = time.monotonic()
    with pytest.raises(UpstreamError, match="Current: deadline exceeded"):
        ask(opened(server), seconds=0.5)
    assert time.monotonic() - began < CALL_WITHIN / 2
    with pytest.raises(UpstreamError, match="no time left to ask"):
        ask(opened(server), seconds=-1)


def test_a_server_that_is_down_comes_back(tmp_path: Path) -> None:
    with FakeGrpcRegistry() as server:
        server.announce("v1.0.0", f"gs://bucket/v1.0.0/{NAME}")
        registry = opened(server)
        assert ask(registry)[0].tag == "v1.0.0"
        server.kill()
        for _ in range(3):  # no back-off of the library's own stands in the way afterwards
            with pytest.raises(UpstreamError, match="Current: unavailable"):
                ask(registry)
        (server.state / "ready").unlink()
        server.start()
        assert ask(registry)[0].tag == "v1.0.0"


def test_of_a_fleet_one_node_asks(server: FakeGrpcRegistry) -> None:
    server.announce("v1.0.0", f"gs://bucket/v1.0.0/{NAME}")
    seen = len(server.calls())
    with open_store("memory://grpc-fleet") as store:
        for _ in range(4):
            assert SharedCache(store, ttl=60.0).get("answer", opened(server).current).value["Tag"] == "v1.0.0"
        assert len(server.calls()) == seen + 1
        server.fail("PERMISSION_DENIED", "not you")
        with pytest.raises(UpstreamUnavailable, match="not you"):
            SharedCache(store, ttl=60.0).get("another", opened(server).current)


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_by_an_authority_of_one_s_own(tls_server: FakeGrpcRegistry, certificates: Certificates) -> None:
    """R7."""
    tls_server.announce("v1.0.0", f"gs://bucket/v1.0.0/{NAME}")
    assert ask(opened(tls_server, f"ca={certificates.ca}"))[0].tag == "v1.0.0"
    assert ask(opened(tls_server, "", {"SSL_CERT_FILE": str(certificates.ca)}))[0].tag == "v1.0.0"


def test_a_certificate_by_nobody_known_is_refused(tls_server: FakeGrpcRegistry) -> None:
    """R7: TLS is the default, and it is verified: by the system's authorities, who do not know this one."""
    tls_server.announce("v1.0.0", f"gs://bucket/v1.0.0/{NAME}")
    seen = len(tls_server.calls())
    with pytest.raises(UpstreamError, match="Current: unavailable"):
        ask(opened(tls_server, ""))
    assert len(tls_server.calls()) == seen


def test_the_name_in_the_certificate_counts(tls_server: FakeGrpcRegistry, certificates: Certificates) -> None:
    """It is of 127.0.0.1; the server listens on 127.0.0.2 too."""
    registry = open_registry(f"grpc://127.0.0.2:{tls_server.port}?ca={certificates.ca}", env={}, platform=LINUX)
    with pytest.raises(UpstreamError, match=r"Hostname Verification Check failed|not in peer certificate"):
        ask(registry)


def test_no_tls_does_not_talk_to_tls_and_the_other_way_round(
    server: FakeGrpcRegistry, tls_server: FakeGrpcRegistry
) -> None:
    for target, query in ((tls_server, "no-tls=true"), (server, "")):
        with pytest.raises(UpstreamError, match="Current: unavailable"):
            ask(opened(target, query))


# -- what is wrong before anything is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("grpc://host", "server: 'host': expected grpc://host:port"),
        ("grpc://host:0", "server: 'host:0': expected grpc://host:port"),
        ("grpc://host:99999", "server: 'host:99999': expected grpc://host:port"),
        ("grpc://host:1/path", "server: 'host:1/path': expected grpc://host:port"),
        ("grpc://host:1?no-tls=maybe", "no-tls: 'maybe': expected true or false"),
        ("grpc://host:1?pre-release=true", "expected artifact, ca, calver, no-tls; the server chooses the version"),
        ("grpc://host:1?tls=true", "parameter: 'tls': expected artifact, ca, calver, no-tls"),
        ("grpc://host:1?no-tls=true&ca=/x", "ca: '/x': expected no-tls=false with it"),
        ("grpc://host:1?ca=/does/not/exist", "ca: '/does/not/exist': expected a file of readable certificates"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_registry(url, env={}, platform=LINUX)
    assert str(caught.value).startswith(f"--registry: {url}: ")
    assert message in str(caught.value)


def test_a_ca_file_that_holds_none(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: .*: expected a file of readable certificates in PEM form$"):
        open_registry("grpc://host:1", env={"SSL_CERT_FILE": str(file)}, platform=LINUX)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:9000?no-tls=true", "grpc://[::1]:9000?no-tls=1", "grpc://a.b:1"])
def test_right_urls(url: str) -> None:
    """Dewy v2 refuses the first."""
    open_registry(url, env={}, platform=LINUX).close()


def test_without_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dewy.registry.grpc_wire", raising=False)
    monkeypatch.delattr(dewy.registry, "grpc_wire", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"grpc:// needs grpcio: pip install 'kvcache-dewy\[grpc\]'"):
        open_registry("grpc://host:1", env={}, platform=LINUX)


# -- its artifacts -----------------------------------------------------------------------------------------------------


def test_the_artifact_comes_from_where_it_is(server: FakeGrpcRegistry, tmp_path: Path) -> None:
    server.announce("build-17", published(tmp_path))  # the tag need not be the directory's name
    registry = opened(server)
    fetched = registry.fetch(ask(registry)[0], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    assert (fetched.size, fetched.digest) == (len(DATA), DIGEST)


def test_an_artifact_of_github(server: FakeGrpcRegistry, repo: Repo, tmp_path: Path) -> None:
    repo.publish("v1.2.3", {NAME: DATA})
    server.announce("v1.2.3", f"ghr://{repo.name}/tag/v1.2.3/{NAME}")
    registry = opened(server, env=TOKEN | repo.server.env)
    assert registry.fetch(ask(registry)[0], tmp_path / "out").digest == DIGEST


@pytest.mark.parametrize("checksums", ["auto", "require"])
def test_a_checksum_beside_the_artifact_counts(server: FakeGrpcRegistry, tmp_path: Path, checksums: Any) -> None:
    server.announce("v1.2.3", published(tmp_path, {"SHA256SUMS": f"{'0' * 64}  {NAME}\n".encode()}))
    registry = opened(server, checksums=checksums)
    with pytest.raises(WrongBytes, match="announced was sha256:000"):
        registry.fetch(ask(registry)[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_required_checksum_is_looked_for_once(server: FakeGrpcRegistry, tmp_path: Path) -> None:
    sums = f"{DIGEST.removeprefix('sha256:')}  {NAME}\n".encode()
    server.announce("v1.2.3", published(tmp_path, {"SHA256SUMS": sums}))
    registry = opened(server, checksums="require")
    announced, pending = ask(registry)
    assert (announced.digest, pending) == (DIGEST, None)
    (tmp_path / "releases" / "v1.2.3" / "SHA256SUMS").unlink()
    assert ask(registry, announced)[0] == announced
    server.announce("v1.2.3", announced.artifact_url, created=(1, 0))  # published again
    assert ask(registry, announced)[1] is not None


def test_an_artifact_that_is_not_there(server: FakeGrpcRegistry, tmp_path: Path) -> None:
    registry = opened(server)
    server.announce("v1.0.0", f"file://{tmp_path}/none/{NAME}")
    with pytest.raises(UpstreamError, match="not found: none/app"):
        registry.fetch(ask(registry)[0], tmp_path / "out")
    announced = Announced("", "v1.0.0", f"file://relative/none/{NAME}", None)
    with pytest.raises(UpstreamError, match=r"file://relative/none/.*: expected file:///absolute/dir"):
        registry.fetch(announced, tmp_path / "out")
    with pytest.raises(UpstreamError, match=r"expected ghr://"):
        registry.fetch(replace(announced, artifact_url=f"grpc://host:1/none/{NAME}"), tmp_path / "out")


def test_the_deployment_is_reported(server: FakeGrpcRegistry) -> None:
    server.announce("v1.0.0", f"gs://bucket/v1.0.0/{NAME}", id="answer-7")
    registry = opened(server)
    registry.report(ask(registry)[0], "server")
    assert server.calls()[-1]["method"] == "Report"
    assert server.calls()[-1]["fields"] == {"1": "answer-7", "2": "v1.0.0", "3": "server"}
    server.fail("UNAVAILABLE")
    with pytest.raises(UpstreamError, match="Report: unavailable"):
        registry.report(Announced("", "v1.0.0", "gs://b/v/x", None), "server")


# -- the whole thing ---------------------------------------------------------------------------------------------------


def test_a_node_follows_it(tls_server: FakeGrpcRegistry, certificates: Certificates, tmp_path: Path) -> None:
    """Through the command line, by TLS; the old release serves while the registry fails."""
    releases = Directory(tmp_path / "releases")
    releases.publish("v1.0.0", web("v1.0.0"))
    tls_server.announce("v1.0.0", f"{releases.url}/v1.0.0/{NAME}", id="first")
    with Node(tmp_path / "node", "server", f"grpc://{tls_server.target}?ca={certificates.ca}") as node:
        node.wait_served("v1.0.0")
        wait_for(lambda: reported(tls_server) == {"1": "first", "2": "v1.0.0", "3": "server"}, "the report")
        tls_server.fail("UNAVAILABLE", "closed for today")
        warned = node.wait_logged("upstream registry failed; serving stale cache")
        assert "Current: unavailable: closed for today" in warned["error"]
        assert node.wait_served("v1.0.0")
        releases.publish("v2.0.0", web("v2.0.0"))
        tls_server.announce("v2.0.0", f"{releases.url}/v2.0.0/{NAME}")
        node.wait_served("v2.0.0")


def reported(server: FakeGrpcRegistry) -> dict[str, str] | None:
    """What the last report said."""
    reports = [call["fields"] for call in server.calls() if call["method"] == "Report"]
    return reports[-1] if reports else None
