"""`--notifier` URLs: Dewy v2's grammar, Apprise's, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dewy.errors import ConfigError
from dewy.notify import Sender, open_channel

SENDER = Sender("web-1", "deploy", Path("/srv/app"), "v1")
SLACK = {"SLACK_TOKEN": "xoxb-secret-token"}


def opened(url: str, env: dict[str, str] | None = None) -> Any:
    channel = open_channel(url, SENDER, env or {})
    channel.close()
    return channel


@pytest.mark.parametrize(
    ("url", "name", "quiet"),
    [
        ("slack://general", "slack://general", False),
        ("slack://general?title=App&url=https://a.example&quiet=1&thread=true", "slack://general", True),
        ("slack://C0123ABC?quiet=t", "slack://C0123ABC", True),
        ("slack://general?quiet=false", "slack://general", False),
    ],
)
def test_slack(url: str, name: str, quiet: bool) -> None:
    channel = opened(url, SLACK)
    assert type(channel).__name__ == "Slack" and (channel.name, channel.quiet) == (name, quiet)


@pytest.mark.parametrize(
    ("url", "env"),
    [
        ("mail://mx.example.com/ops@example.com?username=u&password=hunter22&from=d@example.com", {}),
        ("smtp://mx.example.com:2525/ops@example.com?from=d@example.com", {}),
        ("mail://mx.example.com?to=ops@example.com", {"MAIL_USERNAME": "d@example.com", "MAIL_PASSWORD": "hunter22"}),
        ("mail://mx.example.com/ops@example.com?to=other@example.com", {"MAIL_FROM": "d@example.com"}),
    ],
)
def test_mail(url: str, env: dict[str, str]) -> None:
    channel = opened(url, env)
    assert channel.name == "mail://mx.example.com/ops@example.com"


@pytest.mark.parametrize(
    "url",
    [
        "slack://xoxb-1234-1234-abcdefabcdef/#general",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7/#general",
        "discord://123456789012/abcdefabcdefabcdef",
        "json://localhost:8080/hook?quiet=true",
        "mailtos://user:hunter22@example.com",
        "ntfy://topic",
    ],
)
def test_everything_else_goes_to_apprise(url: str) -> None:
    channel = opened(url, SLACK)
    assert type(channel).__name__ == "Others" and channel.quiet == ("quiet" in url)
    for part in ("hunter22", "abcdefabcdef", "TIiajkdnlazkcOXrIdevi7"):
        assert part not in channel.name
    assert opened(url).name == channel.name  # the same on every node


@pytest.mark.parametrize(
    ("url", "env", "parts"),
    [
        ("slack", {}, ["--notifier", "slack://channel"]),
        ("hunter22", {}, ["--notifier", "***"]),
        ("slack://general", {}, ["SLACK_TOKEN", "not set"]),
        ("slack://", SLACK, ["a channel"]),
        ("slack://x?colour=red", SLACK, ["'colour'", "title, url, quiet, thread"]),
        ("slack://x?quiet=maybe", SLACK, ["quiet", "'maybe'", "true or false"]),
        ("slack://x", {**SLACK, "SLACK_API_URL": "ftp://x"}, ["SLACK_API_URL", "https://"]),
        ("mail://h/ops@example.com", {}, ["from not set", "MAIL_FROM"]),
        ("mail://h?from=a@b.example", {}, ["to not set"]),
        ("mail:///ops@example.com?from=a@b.example", {}, ["host not set"]),
        ("mail://h/ops?from=a@b.example", {}, ["'ops'", "ops@example.com"]),
        ("mail://h/ops@example.com?username=a@b.example", {}, ["username and password"]),
        ("mail://h/ops@example.com?from=a@b.example&ssl=1", {}, ["'ssl'", "tls"]),
        ("mail://h:x/ops@example.com?password=hunter22", {}, ["mail://***"]),
        ("nosuch://hunter22/x", {}, ["nosuch://", "Apprise"]),
        ("discord://hunter22", {}, ["discord://"]),
    ],
)
def test_what_is_refused_in_one_line(url: str, env: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        opened(url, env)
    text = str(refused.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text and "hunter22" not in text and "secret-token" not in text


def test_no_secret_in_a_repr() -> None:
    url = "mail://mx.example.com/ops@example.com?username=u&password=hunter22&from=d@example.com"
    assert "hunter22" not in repr(opened(url)._target)
