"""`slack://channel?title=&url=&quiet=&thread=` with SLACK_TOKEN, as in Dewy v2: chat.postMessage of Slack's Web API.

Apprise has a Slack of its own, for webhooks and tokens in the URL. This one is for what it does not say: the channel
without a token, one thread for each release, the host in the footer, and a hook with its output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from dewy.errors import ConfigError
from dewy.http import CallFailed, Client
from dewy.notify.message import TIMEOUT, HookRun, Message, NotSent, Weight
from dewy.notify.sender import Sender, color_of, cut

API: Final = "https://slack.com/api/"
THREAD_FILE: Final = ".slack-thread-ts"
"""In a release: the message under which all that is said of it belongs."""
GOOD: Final = "#36a64f"
BAD: Final = "#dd0000"
_PASSING: Final = frozenset({"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable"})
"""Slack's words for what may go by itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says."""

    channel: str
    title: str = ""
    url: str = ""
    quiet: bool = False
    thread: bool = False


class Slack:
    """One channel of Slack. ConfigError: without a token, or with an address that cannot be.

    SLACK_API_URL takes the place of the public API, for Slack's government cloud, or a proxy in between.
    """

    failure = "Slack postMessage failure"

    def __init__(
        self, target: Target, sender: Sender, env: Mapping[str, str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._target = target
        self._sender = sender
        self._token = env.get("SLACK_TOKEN", "")
        if not self._token:
            raise ConfigError("SLACK_TOKEN: not set: a token of Slack, which --notifier slack:// needs")
        self._api = env.get("SLACK_API_URL", API).rstrip("/") + "/"
        if urlsplit(self._api).scheme not in ("http", "https"):
            raise ConfigError("SLACK_API_URL: expected a URL such as https://slack-gov.com/api/")
        self._http = Client(env, connect_within=TIMEOUT, silent_at_most=TIMEOUT)
        self._now = now
        self.quiet = target.quiet
        self.name = f"slack://{target.channel}"

    def send(self, message: Message) -> None:
        body = payload(message, self._target, self._sender, self._now(), self._thread())
        headers = {"Content-Type": "application/json; charset=utf-8", "Accept-Encoding": "identity"}
        try:
            answer = self._http.call(
                "POST",
                f"{self._api}chat.postMessage",
                deadline=time.monotonic() + 2 * TIMEOUT,
                headers=headers,
                body=json.dumps(body).encode(),
                credential=f"Bearer {self._token}",
            )
        except CallFailed as error:
            raise NotSent(str(error)) from error
        if answer.status != 200:
            again = answer.status == 429 or answer.status >= 500
            raise NotSent(f"Slack: HTTP {answer.status}", again=again, pause=_seconds(answer.headers))
        try:
            said = json.loads(answer.body)
            ok, why = said.get("ok") is True, str(said.get("error", "no reason given"))
        except (ValueError, AttributeError) as error:
            raise NotSent("Slack: not an answer of its API", again=False) from error
        if not ok:
            raise NotSent(f"Slack: {why[:100]}", again=why in _PASSING)

    def close(self) -> None:
        self._http.close()

    def _thread(self) -> str:
        """Read each time, since it comes with the release that is current."""
        if not self._target.thread:
            return ""
        with suppress(OSError, UnicodeDecodeError):
            return (self._sender.root / "current" / THREAD_FILE).read_text().strip()
        return ""


def payload(message: Message, target: Target, sender: Sender, now: float, thread: str) -> dict[str, Any]:
    """The arguments of chat.postMessage. `now` in seconds since the Unix epoch; `thread` "": none."""
    attachment = _of_hook(message.hook) if message.hook is not None else _of_text(message, sender)
    attachment |= {"footer": _footer(target, sender), "ts": int(now)}
    body: dict[str, Any] = {
        "channel": target.channel,
        "username": "Dewy",
        "icon_emoji": ":seedling:",
        "attachments": [attachment],
    }
    if thread:
        body["thread_ts"] = thread
        if message.weight is Weight.FAILURE:
            body["reply_broadcast"] = True
    return body


def _of_text(message: Message, sender: Sender) -> dict[str, Any]:
    text = escaped(message.text)
    return {"color": color_of(sender.host), "text": text, "fallback": text, "mrkdwn_in": ["text"]}


def _of_hook(run: HookRun) -> dict[str, Any]:
    fields = [
        {"title": title, "value": f"```{escaped(cut(output))}```", "short": False}
        for title, output in (("Stdout", run.stdout), ("Stderr", run.stderr))
        if output.strip()
    ]
    fields.append(
        {"title": "Exit Code", "value": "none" if run.exit_code is None else str(run.exit_code), "short": True}
    )
    fields.append({"title": "Duration", "value": f"{run.duration:.3f}s", "short": True})
    return {
        "color": GOOD if run.succeeded else BAD,
        "title": run.title,
        "text": f"```{escaped(run.command)}```",
        "fallback": f"{run.title} {'succeeded' if run.succeeded else 'failed'}",
        "fields": fields,
        "mrkdwn_in": ["text", "fields"],
    }


def _footer(target: Target, sender: Sender) -> str:
    if not target.title:
        return escaped(sender.host)
    title = escaped(target.title)
    return f"<{target.url}|{title}>/{escaped(sender.host)}" if target.url else f"{title}/{escaped(sender.host)}"


def escaped(text: str) -> str:
    """As Slack wants it: the three characters that start something else there."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after") or ""
    return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else None
