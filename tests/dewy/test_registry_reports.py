"""Reports back to the registry: where they go, that they do not pile up, and that one which fails is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dewy.registry import Announced, Registry, ghr, open_registry
from dewy.registry.ghr import GitHubReleases
from kvcache import UpstreamError
from tests.dewy.github_repo import LINUX, MOMENT, NAME, TOKEN, Repo, announced, ask

REPORT = "shipped_to_{host}_{command}_at_{at}.000000000Z.txt"


def node(repo: Repo, host: str, minutes: int = 0) -> Registry:
    return open_registry(
        f"ghr://{repo.name}",
        env=TOKEN | repo.server.env,
        platform=LINUX,
        hostname=host,
        now=lambda: MOMENT + timedelta(minutes=minutes),
    )


def published(repo: Repo) -> Announced:
    repo.publish("v1.0.0", {NAME: b"data"})
    return announced(ask(repo.open()))


def test_github_has_one_report_of_a_host_and_command(repo: Repo) -> None:
    """R4: however often it deploys the same release."""
    found = published(repo)
    for host, command, minutes in [
        ("web-1", "server", 0), ("web-1", "server", 1), ("WEB-1", "server", 2), ("web-1", "assets", 3),
        ("web-10", "server", 4), ("web-1", "assets", 5), ("web", "server", 6),
    ]:  # fmt: skip
        node(repo, host, minutes).report(found, command)
    assets = repo.publish("v1.0.0", {}, name="same")["assets"]
    assert [asset["name"] for asset in assets[1:]] == [
        REPORT.format(host="web-1", command="server", at="20260501T000000"),
        REPORT.format(host="web-1", command="assets", at="20260501T000300"),
        REPORT.format(host="web-10", command="server", at="20260501T000400"),
        REPORT.format(host="web", command="server", at="20260501T000600"),
    ]
    assert len(repo.calls(host="uploads")) == 4


def test_reports_leave_room_for_artifacts(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: GitHub's limit is on all files of a release."""
    monkeypatch.setattr(ghr, "MOST_ASSETS", 3)
    found = published(repo)
    node(repo, "web-1").report(found, "server")
    node(repo, "web-2").report(found, "server")
    with pytest.raises(UpstreamError, match=r"^release v1\.0\.0 has 3 files: no report is added to it$"):
        node(repo, "web-3").report(found, "server")
    assert len(repo.calls(host="uploads")) == 2


def test_an_enterprise_server_gets_its_reports_itself(repo: Repo) -> None:
    """R1: the address is the one that the API gives, and the token goes nowhere else."""
    found = published(repo)
    registry = node(repo, "web-1")
    assert isinstance(registry, GitHubReleases)
    assert not registry._github.base.startswith("https://api.github.com")
    registry.report(found, "server")
    (upload,) = repo.calls(host="uploads")
    assert (upload["status"], upload["token"]) == (201, "ghp_secret")


def test_a_directory_has_one_report_of_a_host_and_command(tmp_path: Path) -> None:
    directory = tmp_path / "v1.0.0"
    directory.mkdir()
    (directory / NAME).write_bytes(b"data")
    found = Announced("", "v1.0.0", f"file://{directory}/{NAME}", None)
    for minutes, (host, command) in enumerate([("a", "server"), ("a", "server"), ("ab", "server"), ("a", "assets")]):
        registry = open_registry(
            f"file://{tmp_path}?report=true",
            env={},
            platform=LINUX,
            hostname=host,
            now=lambda minutes=minutes: MOMENT + timedelta(minutes=minutes),
        )
        registry.report(found, command)
    assert sorted(path.name for path in directory.iterdir()) == [
        NAME,
        REPORT.format(host="a", command="assets", at="20260501T000300"),
        REPORT.format(host="a", command="server", at="20260501T000000"),
        REPORT.format(host="ab", command="server", at="20260501T000200"),
    ]


@pytest.mark.parametrize("place", ["s3://us-east-1/bucket/p", "gs://bucket/p"])
def test_a_report_that_a_bucket_does_not_take_is_told(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R8."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-tests")
    url = f"{place}?endpoint=http://127.0.0.1:1&timeout=1s&report=true"
    registry = open_registry(url, env={}, platform=LINUX)
    with pytest.raises(UpstreamError, match=f"^{place}.*: ") as caught:
        registry.report(Announced("", "v1.0.0", f"{place}/v1.0.0/{NAME}", None), "server")
    assert "\n" not in str(caught.value)
    registry.close()
