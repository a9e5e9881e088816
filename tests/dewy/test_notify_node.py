"""Messages of whole nodes: `dewy` as processes of their own, and what reaches people."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dewy.inbox import Inbox, MailServer
from tests.dewy.monitoring_page import get
from tests.dewy.node import ROOT, Directory, Node, archive
from tests.dewy.supervised import free_port, wait_for

OPTIONS = ["-l", "debug", "-f", "json"]


def site(version: str) -> bytes:
    return archive({"VERSION": version})


@pytest.fixture
def registry(tmp_path: Path) -> Directory:
    registry = Directory(tmp_path / "registry")
    registry.publish("v1.0.0", site("v1.0.0"))
    return registry


def test_from_start_to_stop(tmp_path: Path, registry: Directory) -> None:
    with Inbox() as inbox, MailServer() as mail:
        port = free_port()
        args = ["--notifier", "slack://deploys?title=shop", "--before-deploy-hook", "echo about to, $DB_PASSWORD"]
        args += ["--notifier", f"mail://127.0.0.1:{mail.port}/ops@example.com?from=dewy@example.com&quiet=true"]
        args += ["--admin-port", str(port), *OPTIONS]
        env = {**inbox.env, "DB_PASSWORD": "correct-horse"}
        with Node(tmp_path / "node", "assets", registry.url, *args, env=env) as node:
            inbox.wait_text("Downloaded artifact for `v1.0.0`")
            registry.publish("v1.1.0", b"no archive")
            inbox.wait_text("Error occurred (count: 1)")
            status = get(port, "/api/status")
            assert (status["command"], status["current_version"], status["is_running"]) == (1, "v1.0.0", False)
            assert status["failed_tag"] == "v1.1.0"
            assert re.search(r'dewy_deployment_errors_total{command="assets"} [1-9]', get(port, "/metrics"))
            assert get(port, "/healthz")["status"] == "ok"
            registry.publish("v1.1.0", site("v1.1.0"))
            inbox.wait_text("Works again after")
            assert node.stop() == 0
        texts = inbox.texts()
        assert texts[0].startswith("Automatic shipping started by *Dewy*")
        assert texts[-1] == "Stop receiving by `terminated` signal"
        assert [text for text in texts if "Downloaded artifact for `v1.1.0`" in text]
        hook = next(body["attachments"][0] for body in inbox.bodies() if "title" in body["attachments"][0])
        assert (hook["title"], hook["fields"][0]["value"]) == ("Before Deploy Hook", "```about to, ***```")
        letters = [letter.get_content() for _, letter in mail.letters]
        assert len([text for text in letters if text.startswith("Error occurred (count: 1)")]) == 1
        assert [text for text in letters if text.startswith("Works again")] and len(letters) < len(texts)
    for secret in ("xoxb-0123456789-secret", "correct-horse"):
        assert secret not in node.log.read_text() and secret not in str(inbox.bodies()) + str(letters)


def test_a_service_that_hangs_holds_up_no_deploy_and_no_stop(tmp_path: Path, registry: Directory) -> None:
    with Inbox() as inbox:
        inbox.hold.clear()
        args = ["--notifier", "slack://deploys", *OPTIONS]
        with Node(tmp_path / "node", "assets", registry.url, *args, env=inbox.env) as node:
            wait_for(lambda: inbox.requests, "the first message")
            node.wait_deployed("v1.0.0")
            node.wait_ticks()
            assert node.stop() == 0
        assert len(inbox.requests) == 1
    assert node.logged("Notifications left unsent")[0]["count"] >= 2
    assert node.logged("Telemetry enabled") == [] == node.logged("Admin API server started")  # nobody asked for it


def test_one_message_for_a_fleet(tmp_path: Path, registry: Directory) -> None:
    with Inbox() as inbox:
        cache = f"file://{tmp_path}/cache?locking=flock"
        args = ["--notifier", "slack://deploys", "--notify-once", "--cache", cache, "--telemetry", *OPTIONS]
        nodes = [Node(tmp_path / f"node-{n}", "assets", registry.url, *args, env=inbox.env) for n in range(3)]
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_deployed("v1.0.0")
        registry.publish("v1.1.0", site("v1.1.0"))
        for node in nodes:
            node.wait_deployed("v1.1.0")
            node.wait_ticks()
        inbox.wait_text("Downloaded artifact for `v1.1.0`")
        for node in nodes:
            assert node.stop() == 0
        texts = inbox.texts()
    assert len(texts) == len(set(texts)), texts
    assert [text for text in texts if "Downloaded" in text] == [
        "Downloaded artifact for `v1.0.0`",
        "Downloaded artifact for `v1.1.0`",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--notifier", "slack://deploys"], "SLACK_TOKEN: not set"),
        (["--otlp-endpoint", "ftp://u:hunter22@c"], "--otlp-endpoint: 'ftp://u:***@c': "),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    tmp_path: Path, registry: Directory, options: list[str], told: str
) -> None:
    """B1."""
    command = [sys.executable, "-m", "dewy", "assets", "--registry", registry.url, *options]
    ran = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 2 and ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert told in line and "hunter22" not in line
    assert not (tmp_path / "releases").exists()
