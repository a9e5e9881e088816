"""`dewy rollback`, `pin`, `unpin`, `status`, `history`: on a node whose dewy runs, and on one whose dewy does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from dewy.cli import main
from dewy.release import Info, Releases
from dewy.state import StateFile
from tests.dewy.node import ROOT, Directory, Node, archive, web
from tests.dewy.supervised import WEB, wait_for


@pytest.fixture
def registry(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "registry")


@dataclass
class Done:
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


def dewy(root: Path, *args: str) -> Done:
    """A command line, in this process."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as end:
        main([*args, "-C", str(root)])
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())


def said(root: Path, *args: str) -> str:
    done = dewy(root, *args)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.strip()


def refused(root: Path, *args: str) -> str:
    done = dewy(root, *args)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("dewy: ")
    return done.stderr.strip().removeprefix("dewy: ")


def status(root: Path, *args: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(said(root, "status", "--json", *args))
    return facts


# -- dewy runs ---------------------------------------------------------------------------------------------------------


def test_an_operator_rolls_a_running_server_back_and_forward(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Start notification")
        registry.publish("v1.1.0", web("v1.1.0"))
        node.wait_logged("Restart notification")
        node.wait_ticks()

        facts = status(node.root)
        assert facts["running"] and facts["pid"] == node.process.pid and facts["mode"] == "server"
        assert facts["deployed"]["tag"] == facts["application"]["tag"] == facts["known"]["tag"] == "v1.1.0"
        assert facts["application"]["running"] and facts["application"]["generation"] == 2
        assert facts["known"]["state"] == "fresh" and facts["next_poll_at"] is not None
        assert [(one["tag"], one["good"]) for one in facts["releases"]] == [("v1.0.0", True), ("v1.1.0", True)]
        assert facts["pin"] is None and facts["rejected"] == []
        text = said(node.root, "status", "--check")
        assert f"runs, pid {node.process.pid}" in text and "v1.1.0 serves, pid" in text

        out = said(node.root, "rollback")
        assert out == f"rolled back from v1.1.0 to v1.0.0; dewy (pid {node.process.pid}) follows"
        node.wait_served("v1.0.0")
        node.wait_logged("Deploy skipped", count=3, reason="rejected before")
        assert [one["tag"] for one in status(node.root)["rejected"]] == ["v1.1.0"]
        assert "there is no release to go back to from v1.0.0" in refused(node.root, "rollback")

        out = said(node.root, "pin", "v1.1.0")  # an operator's word lifts the rejection
        assert out.startswith("pinned to v1.1.0; dewy")
        node.wait_served("v1.1.0")
        registry.publish("v1.2.0", web("v1.2.0"))
        node.wait_logged("Deploy skipped", count=2, reason="another release is pinned")
        assert "pinned       v1.1.0" in said(node.root, "status")

        assert said(node.root, "unpin").startswith("unpinned from v1.1.0; dewy")
        node.wait_served("v1.2.0")
        node.wait_logged("Keep releases", count=3)
    assert len(node.logged("Extract archive")) == 3
    what = [json.loads(line)["what"] for line in said(node.root, "history", "--json").splitlines()]
    assert what == ["deployed", "deployed", "rolled back", "pinned", "unpinned", "deployed"]
    assert "rolled back  from v1.1.0 to v1.0.0: an operator's word" in said(node.root, "history")
    assert status(node.root)["running"] is False and "does not run here" in said(node.root, "status")
    assert dewy(node.root, "status", "--check").returncode == 1


def test_a_running_dewy_is_woken(tmp_path: Path, registry: Directory) -> None:
    """Assets, at an interval of hours: the after-hook runs for what an operator has switched to, at once."""
    registry.publish("v1.0.0", archive({"VERSION": "v1.0.0"}))
    hook = {"DEWY_AFTER_DEPLOY_HOOK": "echo $DEWY_TAG $DEWY_PREVIOUS_TAG >> after"}
    node = Node(tmp_path / "node", "assets", registry.url, env=hook)
    with node:
        node.wait_deployed("v1.0.0")
        registry.publish("v1.1.0", archive({"VERSION": "v1.1.0"}))
        node.wait_logged("Keep releases", count=2)
    args = ["-i", "5h", "-l", "debug", "-f", "json"]
    with Node(tmp_path / "node", "assets", registry.url, *args, env=hook) as node:
        wait_for(lambda: status(node.root)["next_poll_at"], "the first tick is over")
        said(node.root, "rollback", "v1.0.0")
        after = node.root / "after"
        expected = ["v1.0.0", "v1.1.0 v1.0.0", "v1.0.0 v1.1.0"]
        wait_for(lambda: after.read_text().splitlines() == expected, "the after-hook")
        assert node.deployed() == "v1.0.0"


def test_a_failed_release_has_another_chance_at_an_operators_word(tmp_path: Path, registry: Directory) -> None:
    """What failed for a reason outside (a database that was down) is not held against the release for ever."""
    registry.publish("v1.0.0", web("v1.0.0"))
    with Node(tmp_path / "node", "server", registry.url) as node:
        node.wait_logged("Start notification")
        flag = node.root / "database-is-up"
        script = "#!/bin/sh\ntest -e database-is-up || exit 7\nexec ./current/app.py\n"
        files: dict[str, bytes | str] = {"web.py": script, "app.py": WEB.read_bytes(), "VERSION": "v1.1.0"}
        registry.publish("v1.1.0", archive(files, executable=["web.py", "app.py"]))
        node.wait_logged("Deploy skipped", reason="rejected before")
        flag.touch()
        assert said(node.root, "unpin").startswith("no pin; v1.1.0 may be tried again; dewy")
        node.wait_served("v1.1.0")


def test_a_second_dewy_in_one_directory_is_refused(tmp_path: Path, registry: Directory) -> None:
    """The two would undo each other's deploys for ever."""
    registry.publish("v1.0.0", archive({"VERSION": "v1.0.0"}))
    with Node(tmp_path / "node", "assets", registry.url) as node:
        node.wait_deployed("v1.0.0")
        command = [sys.executable, "-m", "dewy", "assets", "--registry", registry.url]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=node.root, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"dewy: another dewy (pid {node.process.pid}) runs in {node.root}"


# -- dewy does not run -------------------------------------------------------------------------------------------------


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A node with v1, v2 and v3, of which v3 is deployed, and no dewy."""
    root = tmp_path / "node"
    releases, state = Releases(root), StateFile(root)
    for tag in ("v1", "v2", "v3"):
        path = tmp_path / f"{tag}.tar.gz"
        path.write_bytes(archive({"VERSION": tag}))
        release = releases.prepare(path, path.name, Info(f"{tag}--app.tar.gz", tag, "", path.stat().st_size))
        releases.switch(release)
        state.change(lambda before, id=release.id: before.served(id))
    return root


def test_without_a_dewy_the_next_one_starts_from_it(still: Path) -> None:
    assert said(still, "rollback") == "rolled back from v3 to v2"
    assert said(still, "rollback") == "rolled back from v2 to v1"
    assert (still / "current" / "VERSION").read_text() == "v1"
    assert "no release to go back to from v1" in refused(still, "rollback")
    assert said(still, "rollback", "v3") == "rolled back from v1 to v3"
    assert refused(still, "rollback", "v3") == "v3 is deployed already"
    assert refused(still, "rollback", "v9") == "v9: no release of it on this node: there are v3, v2, v1"
    assert [one["tag"] for one in status(still)["rejected"]] == ["v2", "v1"]
    assert said(still, "unpin") == "no pin; v1, v2 may be tried again"


def test_a_pin_moves_with_a_roll_back(still: Path) -> None:
    assert said(still, "pin", "v2") == "pinned to v2"
    assert (still / "current" / "VERSION").read_text() == "v2"
    said(still, "rollback", "v1")
    assert status(still)["pin"] == "v1"
    assert refused(still, "pin", "v9") == "v9: no release of it on this node: there are v3, v2, v1"
    assert said(still, "unpin") == "unpinned from v1; v2 may be tried again"
    assert status(still)["pin"] is None


def test_releases_of_dewy_v2_can_be_gone_back_to(still: Path) -> None:
    """No marker, no state: then the one that was made before."""
    for path in (still / "releases").glob(".*.json"):
        path.unlink()
    StateFile(still).path.unlink()
    ids = sorted(path.name for path in (still / "releases").iterdir() if not path.name.startswith("."))
    assert said(still, "rollback") == f"rolled back from {ids[2]} to {ids[1]}"
    assert said(still, "pin", ids[0]) == f"pinned to {ids[0]}"


@pytest.mark.parametrize("args", [("status",), ("rollback",), ("pin", "v1")])
def test_where_no_dewy_ever_was(tmp_path: Path, args: tuple[str, ...]) -> None:
    message = refused(tmp_path, *args)
    assert str(tmp_path) in message or "there are none" in message
    assert list(tmp_path.iterdir()) == [], "to look is not to change"


def test_wrong_usage(tmp_path: Path) -> None:
    for args in (("pin",), ("rollback", "v1", "v2"), ("status", "--nope")):
        done = dewy(tmp_path, *args)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
    done = dewy(tmp_path / "absent", "status")
    assert done.returncode == 2 and "absent" in done.stderr


def test_a_state_that_is_not_ours_is_one_line(still: Path) -> None:
    StateFile(still).path.write_text("{")
    assert "not readable; move it away" in refused(still, "status")


# -- the shared store --------------------------------------------------------------------------------------------------


def test_status_looks_into_the_shared_store(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", archive({"VERSION": "v1.0.0"}))
    cache = f"file://{tmp_path}/cache?locking=flock&registry-ttl=30s"
    with Node(tmp_path / "node", "assets", registry.url, env={"DEWY_CACHE": cache}) as node:
        node.wait_ticks()
        shared = status(node.root, "--cache", cache)["shared"]
        assert shared["key"].startswith("registry-cache/") and 0 <= shared["age"] < 60 and shared["lock"] is None
        assert "lock free" in said(node.root, "status", "--cache", cache)
        assert "shared" not in said(node.root, "status")
        record = tmp_path / "cache" / shared["key"]
        assert record.exists()
        facts = json.loads(record.read_text())
        facts |= {"locked_at": "2026-01-01T00:00:00.123456789Z", "locked_by": "host:7"}
        facts["kvcache"] |= {"lease": 1e9, "failure": {"count": 3, "message": "HTTP 500"}}
        record.write_text(json.dumps(facts))
        words = said(node.root, "status", "--cache", cache)
        assert "lock held by host:7" in words and "upstream failed 3 time(s): HTTP 500" in words
        record.write_text("not JSON")
        assert "not readable; the next refresh replaces it" in said(node.root, "status", "--cache", cache)
