"""The fake GitHub keeps count, behaves, and misbehaves as it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.github import FakeGitHub
from tests.servers.process import direct


@pytest.fixture(scope="module")
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        yield server


def get(url: str, **headers: str) -> tuple[int, Any, Any]:
    asked = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with direct.open(asked, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


REQUIRED = {
    # as required by the API's published schema
    "release": "url assets_url upload_url html_url id node_id tag_name target_commitish name draft author prerelease"
    " created_at published_at assets tarball_url zipball_url body",
    "asset": "url browser_download_url id node_id name label state content_type size download_count created_at"
    " updated_at",
    "user": "login id node_id avatar_url gravatar_id url html_url followers_url following_url gists_url starred_url"
    " subscriptions_url organizations_url repos_url events_url received_events_url type site_admin",
}


def test_releases_look_as_they_do_at_github(github: FakeGitHub) -> None:
    github.publish("v1.0.0", {"app.tar.gz": b"data"}, repo="acme/shape")
    _, headers, body = get(f"{github.url}/repos/acme/shape/releases")
    (release,) = json.loads(body)
    (asset,) = release["assets"]
    assert set(REQUIRED["release"].split()) <= set(release)
    assert set(REQUIRED["asset"].split()) <= set(asset)
    assert set(REQUIRED["user"].split()) == set(release["author"]) == set(asset["uploader"])
    assert asset["digest"] == "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert release["upload_url"].endswith("/assets{?name,label}")
    assert "{base}" not in body.decode()
    assert headers["x-ratelimit-limit"] == "60"


def test_it_counts_calls_and_what_they_cost(github: FakeGitHub) -> None:
    github.publish("v1.0.0", {}, repo="acme/count")
    since = len(github.calls())
    url = f"{github.url}/repos/acme/count/releases"
    _, headers, _ = get(url, Authorization="Bearer mine")
    left = github.remaining("mine")
    assert get(url, Authorization="Bearer mine", If_None_Match=headers["ETag"])[0] == 304
    assert github.remaining("mine") == left
    assert get(url, Authorization="Bearer yours", If_None_Match=headers["ETag"])[0] == 200  # an ETag is one token's
    calls = github.polls(since=since)
    assert [(c["status"], c["counted"], c["token"], c["conditional"]) for c in calls] == [
        (200, True, "mine", False),
        (304, False, "mine", True),
        (200, True, "yours", True),
    ]
    assert [call["at"] for call in calls] == sorted(call["at"] for call in calls)
    assert abs(calls[-1]["mono"] - time.monotonic()) < 60


def test_drafts_are_for_insiders(github: FakeGitHub) -> None:
    github.publish("v1.0.0", {}, repo="acme/drafts", draft=True)
    url = f"{github.url}/repos/acme/drafts/releases"
    assert json.loads(get(url)[2]) == []
    assert len(json.loads(get(url, Authorization="Bearer x")[2])) == 1


def test_a_fault_ends_by_count_or_by_word(github: FakeGitHub) -> None:
    github.publish("v1.0.0", {}, repo="acme/faults")
    url = f"{github.url}/repos/acme/faults/releases"
    github.mode("outage", times=2, status=502)
    assert [get(url)[0] for _ in range(3)] == [502, 502, 200]
    github.mode("rate-limited", reset_in=30)
    status, headers, _ = get(url)
    assert (status, headers["x-ratelimit-remaining"]) == (403, "0")
    assert 25 < int(headers["x-ratelimit-reset"]) - time.time() < 35
    github.mode("hang")
    statuses: list[int] = []
    caller = threading.Thread(target=lambda: statuses.append(_status_or_zero(url)))
    caller.start()
    time.sleep(0.3)
    assert statuses == []
    github.mode("healthy")
    caller.join(20)
    assert statuses == [0]  # whoever was kept waiting gets nothing
    assert get(url)[0] == 200


def _status_or_zero(url: str) -> int:
    try:
        return get(url)[0]
    except OSError:
        return 0


def test_it_goes_on_where_it_was_killed() -> None:
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app.tar.gz": b"data"})
        url = f"{github.url}/repos/acme/app/releases"
        number = json.loads(get(url)[2])[0]["assets"][0]["id"]
        github.mode("outage")
        get(url)
        github.kill()
        with pytest.raises(OSError, match="refused"):
            get(url)
        github.start()
        assert [call["status"] for call in github.polls()] == [200, 500]
        assert get(url)[0] == 500
        github.mode("healthy")
        status, _, data = get(f"{url}/assets/{number}", Accept="application/octet-stream")
        assert (status, data) == (200, b"data")
        assert github.publish("v1.1.0")["id"] > number


def test_forty_clients_at_once(github: FakeGitHub) -> None:
    github.publish("v1.0.0", {"app.tar.gz": b"x" * 100_000}, repo="acme/many")
    since = len(github.calls())
    url = f"{github.url}/repos/acme/many/releases"
    number = json.loads(get(url)[2])[0]["assets"][0]["id"]
    good: list[bool] = []

    def work() -> None:
        for _ in range(3):
            status, _, data = get(f"{url}/assets/{number}", Accept="application/octet-stream", Authorization="Bearer x")
            good.append((status, len(data)) == (200, 100_000))

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [True] * 120
    assert len(github.downloads(since=since)) == 120


def test_it_runs_by_hand(tmp_path: Path) -> None:
    program = Path(__file__).with_name("github.py")
    command = [sys.executable, str(program), "--port", "0", "--state", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert get(f"http://127.0.0.1:{port}/repos/acme/app/releases")[0] == 404
        process.terminate()
        assert process.wait(20) == 0
