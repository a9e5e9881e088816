"""docs/migrate-from-dewy-v2.md knows every option, variable, message and metric of Dewy v2, and what became of it."""

from __future__ import annotations

import re
from typing import Final

import pytest
from click.testing import CliRunner

from dewy.cli import dewy
from tests.docs.pages import ROOT, rows

PAGE: Final = ROOT / "docs" / "migrate-from-dewy-v2.md"

OPTIONS: Final = {
    "--registry": ("ghr://owner/repo",),
    "--cache": ("s3://ap-northeast-1/bucket/p?registry-ttl=30s",),
    "-c": ("file:///srv/cache",),
    "--notifier": ("slack://general?quiet=true",),
    "--interval": ("30",),
    "-i": ("10",),
    "--port": ("8000",),
    "-p": ("8000-8003,9000",),
    "--slot": ("blue",),
    "-s": ("blue",),
    "--calver": ("YYYY.0M.MICRO",),
    "--log-level": ("WARN",),
    "-l": ("info",),
    "--log-format": ("JSON",),
    "-f": ("json",),
    "--before-deploy-hook": ("echo before",),
    "--after-deploy-hook": ("echo after",),
    "--telemetry": (),
    "--otlp-endpoint": ("localhost:4317",),
    "--otlp-insecure": (),
    "--admin-port": ("17540",),
    "--help": (),
    "-h": (),
    "--version": (),
    "-v": (),
}
"""Every option of v2's `server` and `assets`, with a value that v2 takes."""

GONE: Final = ("--name", "--replicas", "--cmd", "--runtime", "--proxy-idle-timeout")
OF_CONTAINER: Final = ("--health-path", "--health-timeout", "--drain-time")

VARIABLES: Final = (
    "DEWY_CACHEDIR",
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GITHUB_API_URL",
    "GITHUB_ENDPOINT",
    "GITHUB_ARTIFACT",
    "GITHUB_APP_ID",
    "GITHUB_APP_INSTALLATION_ID",
    "GITHUB_APP_PRIVATE_KEY",
    "GITHUB_APP_PRIVATE_KEY_PATH",
    "SLACK_TOKEN",
    "MAIL_USERNAME",
    "MAIL_PASSWORD",
    "MAIL_FROM",
    "AWS_ENDPOINT_URL",
    "ENVDIR",
    "KILL_OLD_DELAY",
    "ENABLE_AUTO_RESTART",
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
)

MESSAGES: Final = (
    "Dewy start notification",
    "Download notification",
    "Start notification",
    "Restart notification",
    "Shutdown notification",
    "Start server",
    "Extract archive",
    "Create symlink",
    "Keep releases",
    "Cached artifact",
    "Execute hook",
    "Execute hook failed",
    "Registry result cache enabled",
    "Registry result refreshed from upstream",
    "registry-ttl set but cache backend does not support atomic writes; ignoring",
    "upstream registry failed; serving stale cache",
    "failed to read shared registry cache",
    "failed to claim registry cache lock",
    "failed to publish refreshed registry cache",
    "failed to release registry cache lock",
    "Failed to stage S3 object locally",
    "Failed to stage GCS object locally",
    "Current failure",
    "Dewy run failure",
    "Error count",
    "Error count reset",
    "Before deploy hook failure",
    "After deploy hook failure",
    "Report shipping failure",
    "Keep releases failure",
    "Preserve failure",
    "Deploy skipped",
    "Deploy skipped: slot mismatch",
    "Artifact not found within grace period",
    "Send SIGHUP for server restart",
    "Starter failure",
    "Server failure",
    "Server run failure",
    "Registry failure",
    "Notifier failure",
    "Scheduler failure",
    "Slack postMessage failure",
    "Mail send failure",
    "Notification error",
    "Admin API server started",
    "Admin API port bound successfully",
    "Prometheus metrics endpoint enabled",
    "Telemetry enabled",
    "Using privileged port may require root privileges",
    "First download attempt, waiting for CDN auth stabilization",
    "Write file",
    "Write S3 object",
    "Write GCS object",
    "Downloaded from S3",
    "Downloaded from GS",
    "Artifact downloaded",
    "GitHub App: installation token acquired",
)
METRICS: Final = (
    "dewy_deployments_total",
    "dewy_deployment_duration_seconds",
    "dewy_deployment_errors_total",
    "dewy_server_restarts_total",
)
PATHS: Final = ("/metrics", "/api/status", "/api/containers", "releases/<time>/", "current", ".slack-thread-ts")

VERDICTS: Final = {"same", "better", "gone", "new"}


def table() -> list[list[str]]:
    return rows(PAGE, "Dewy v2")


def named() -> dict[str, str]:
    """What stands in code in the first column -> the verdict."""
    return {name: row[1] for row in table() for name in re.findall(r"`([^`]+)`", row[0])}


def word(name: str) -> str:
    """An option without its value, a path without its method."""
    return name.removeprefix("GET ").split(" ")[0] if name.startswith(("-", "GET ")) else name


def test_each_row_has_a_verdict_and_what_is_not_the_same_has_a_reason() -> None:
    assert len(table()) > 80
    for first, verdict, why in table():
        assert verdict in VERDICTS, first
        assert why or verdict == "same" or "`" in first, first
        assert bool(first) is (verdict != "new")


@pytest.mark.parametrize("names", [OPTIONS, GONE, OF_CONTAINER, VARIABLES, MESSAGES, METRICS, PATHS])
def test_everything_that_v2_has_is_in_the_table(names: tuple[str, ...]) -> None:
    known = {word(name) for name in named()}
    assert not [name for name in names if name not in known]


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_of_v2_is_accepted(option: str) -> None:
    values = OPTIONS[option]
    for line in ([option, *values], [f"{option}={value}" for value in values] or [option]):
        command = ["config", "server", "--registry", "ghr://owner/repo", *line, "--", "./current/app"]
        if option in ("--version", "-v"):
            command = line
        result = CliRunner().invoke(dewy, command, standalone_mode=False)
        assert result.exception is None, (command, result.output, result.exception)


@pytest.mark.parametrize("option", GONE)
def test_what_is_gone_is_refused(option: str) -> None:
    result = CliRunner().invoke(dewy, ["config", option, "x"], standalone_mode=False)
    assert result.exception is not None


def test_a_message_that_is_said_to_be_the_same_is_still_written() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dewy").rglob("*.py"))
    kept = {name for name, verdict in named().items() if name in MESSAGES and verdict in ("same", "better")}
    composed = {
        "upstream registry failed; serving stale cache",
        "Before deploy hook failure",
        "After deploy hook failure",
    }
    assert not [name for name in kept - composed if f'"{name}"' not in source]
    gone = {name for name, verdict in named().items() if name in MESSAGES and verdict == "gone"}
    assert not [name for name in gone if f'"{name}"' in source]
    assert not [name for name in METRICS if named()[name] == "gone"]
