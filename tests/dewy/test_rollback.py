"""Releases that prove bad on a real node: the old one serves on, and they are not tried again before they change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dewy.history import History
from dewy.state import StateFile
from tests.dewy.node import Directory, Node, archive, broken, web
from tests.dewy.supervised import WEB, wait_for
from tests.load.load import Load


@pytest.fixture
def registry(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "registry")


def wrapped(version: str, script: str) -> bytes:
    """A release whose command is a shell script before the application, `$app`."""
    text = f'#!/bin/sh\napp="$(dirname "$0")/app.py"\n{script}\n'
    files: dict[str, bytes | str] = {"web.py": text, "app.py": WEB.read_bytes(), "VERSION": version}
    return archive(files, executable=["web.py", "app.py"])


def deeds(node: Node) -> list[str]:
    return [deed["what"] for deed in History(StateFile(node.root).directory).read()]


def test_a_release_that_is_not_healthy_is_left_and_not_tried_again(tmp_path: Path, registry: Directory) -> None:
    """B5. Not even by the next dewy."""
    registry.publish("v1.0.0", web("v1.0.0"))
    health = {"DEWY_HEALTH_PATH": "/healthz", "DEWY_HEALTH_TIMEOUT": "5s"}
    node = Node(tmp_path / "node", "server", registry.url, env=health)
    with node:
        node.wait_logged("Start notification")
        before = node.wait_served("v1.0.0")
        with Load("127.0.0.1", node.port, clients=2) as load:
            registry.publish("v1.1.0", wrapped("v1.1.0", 'WEB_HEALTH=503 exec "$app"'))
            node.wait_logged("Rolled back")
            assert "GET /healthz: HTTP status 503" in node.wait_logged("Dewy run failure")["error"]
            node.wait_logged("Deploy skipped", reason="rejected before")
        assert load.stop().failed == 0
        assert node.wait_served("v1.0.0") == before
    with node:
        node.wait_logged("Start notification", count=2)
        node.wait_logged("Deploy skipped", count=2, reason="rejected before")
        assert len(node.logged("Extract archive")) == 2, "one of each release"
        registry.publish("v1.2.0", web("v1.2.0"))
        node.wait_logged("Keep releases", count=2)
        assert node.wait_served("v1.2.0")
    assert deeds(node) == ["deployed", "rolled back", "failed", "started", "deployed"]


def test_a_release_that_crashes_again_and_again_is_left(tmp_path: Path, registry: Directory) -> None:
    """B5: it came up, so the old one was told to finish; but it has not run well yet."""
    registry.publish("v1.0.0", web("v1.0.0"))
    after = "echo $DEWY_TAG $DEWY_PREVIOUS_TAG >> after"
    with Node(tmp_path / "node", "server", registry.url, env={"DEWY_AFTER_DEPLOY_HOOK": after}) as node:
        node.wait_logged("Start notification")
        registry.publish("v1.1.0", wrapped("v1.1.0", "sleep 1.3; exit 3"))
        node.wait_logged("Server run failure", count=3)
        told = node.wait_logged("Roll-back notification")
        assert told["message"] == "Rolled back from `v1.1.0` to `v1.0.0`: crashed 3 times in a row"
        node.wait_served("v1.0.0")
        node.wait_logged("Deploy skipped", count=3, reason="rejected before")
        assert (node.root / "after").read_text().splitlines() == ["v1.0.0", "v1.1.0 v1.0.0", "v1.0.0 v1.1.0"]
    assert deeds(node) == ["deployed", "deployed", "rolled back"]


def test_without_anything_better_a_release_is_started_again_but_not_unpacked_again(
    tmp_path: Path, registry: Directory
) -> None:
    """B6."""
    registry.publish("v1.0.0", broken("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Error count", count=2)
        assert len(node.logged("Extract archive")) == len(node.releases()) == 1
        registry.publish("v1.1.0", web("v1.1.0"))
        node.wait_served("v1.1.0")
        node.wait_logged("Error count reset")


def test_an_application_that_is_not_to_be_rolled_back_is_not(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url, env={"DEWY_ROLLBACK": "false"}) as node:
        node.wait_logged("Start notification")
        registry.publish("v1.1.0", broken("v1.1.0"))
        node.wait_logged("Error count")
        assert node.deployed() == "v1.1.0" and node.logged("Rolled back") == []
        assert node.served() is not None, "the old process serves on all the same"


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_hooks_know_their_deploy_and_the_after_hook_finds_it_serving(tmp_path: Path, registry: Directory) -> None:
    """B9."""
    ask = (
        "import json, os, sys, urllib.request as r; "
        "n = {k: v for k, v in os.environ.items() if k in sys.argv[2:]}; "
        "ask = lambda: json.load(r.urlopen(sys.argv[1], timeout=20))['version']; "
        "n['serves'] = ask() if n['DEWY_HOOK'] == 'after-deploy' else ''; "
        "n['there'] = os.path.exists(n['DEWY_RELEASE'] + '/VERSION'); "
        "n['current'] = os.path.realpath('current') == n['DEWY_RELEASE']; "
        "print(json.dumps(n), file=open('hooks', 'a'))"
    )
    names = "DEWY_HOOK DEWY_TAG DEWY_KEY DEWY_RELEASE DEWY_PREVIOUS_TAG"
    node = Node(tmp_path / "node", "server", registry.url)
    hook = f'{sys.executable} -c "{ask}" http://127.0.0.1:{node.port}/ {names}'
    node.env |= {"DEWY_BEFORE_DEPLOY_HOOK": hook, "DEWY_AFTER_DEPLOY_HOOK": hook}
    registry.publish("v1.0.0", web("v1.0.0"))
    with node:
        node.wait_logged("Keep releases")
        registry.publish("v1.1.0", web("v1.1.0"))
        node.wait_logged("Keep releases", count=2)
    told = [json.loads(line) for line in (node.root / "hooks").read_text().splitlines()]
    first, second = (str(node.root / "releases" / id) for id in node.releases())
    key = "--app_linux_amd64.tar.gz"

    def expected(hook: str, tag: str, release: str, previous: str) -> dict[str, object]:
        done = hook == "after-deploy"
        return {
            "DEWY_HOOK": hook,
            "DEWY_TAG": tag,
            "DEWY_KEY": tag + key,
            "DEWY_RELEASE": release,
            "DEWY_PREVIOUS_TAG": previous,
            "serves": tag if done else "",
            "there": True,
            "current": done,
        }

    assert told[0] == expected("before-deploy", "v1.0.0", first, "")
    assert told[1] == expected("after-deploy", "v1.0.0", first, "")
    assert told[2] == expected("before-deploy", "v1.1.0", second, "v1.0.0")
    # The old worker may answer one more request while it finishes.
    assert {**told[3], "serves": "v1.1.0"} == expected("after-deploy", "v1.1.0", second, "v1.0.0")


def test_a_before_hook_may_refuse_a_release(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", archive({"VERSION": "v1.0.0"}))
    hook = "test $DEWY_TAG = v1.0.0 || test -e allowed"
    env = {"DEWY_BEFORE_DEPLOY_HOOK": hook, "DEWY_BEFORE_HOOK_VETOES": "true"}
    with Node(tmp_path / "node", "assets", registry.url, env=env) as node:
        node.wait_deployed("v1.0.0")
        registry.publish("v1.1.0", archive({"VERSION": "v1.1.0"}))
        error = node.wait_logged("Dewy run failure")["error"]
        assert error.endswith("the before-deploy hook refused it: exit code 1")
        node.wait_logged("Deploy skipped", reason="failed before, waiting to try again")
        assert node.deployed() == "v1.0.0" and len(node.releases()) == 1, "nothing of it stays"
        (node.root / "allowed").touch()
        node.wait_deployed("v1.1.0")
    assert deeds(node)[:2] == ["deployed", "failed"]


def test_a_hook_that_hangs_is_ended(tmp_path: Path, registry: Directory) -> None:
    """B10."""
    registry.publish("v1.0.0", archive({"VERSION": "v1.0.0"}))
    env = {"DEWY_AFTER_DEPLOY_HOOK": "echo begun; sleep 600", "DEWY_HOOK_TIMEOUT": "1s"}
    with Node(tmp_path / "node", "assets", registry.url, env=env) as node:
        ended = node.wait_logged("Execute hook failed")
        assert ended["stdout"] == "begun" and ended["exit_code"] is None
        node.wait_ticks()
        wait_for(lambda: node.deployed() == "v1.0.0", "the deploy stands")
