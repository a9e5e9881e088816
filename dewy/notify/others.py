"""All other services, by Apprise (`pip install kvcache-dewy[notify]`): Teams, Discord, ntfy, webhooks, and so on."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote

from dewy.errors import ConfigError
from dewy.notify.message import Message, NotSent, Weight
from dewy.notify.sender import Sender, cut
from kvcache import scrub

_KINDS: Final = {Weight.NEWS: "info", Weight.IMPORTANT: "success", Weight.FAILURE: "failure"}
_SHORTEST: Final = 4
"""Characters. A part of a URL that is shorter is no secret, and hiding it would blot out ordinary words."""
_logger: Final = logging.getLogger("apprise")


class Others:
    """One service that Apprise knows. ConfigError: it does not, or it is not installed."""

    failure = "Notification failure"

    def __init__(self, url: str, sender: Sender, *, quiet: bool) -> None:
        try:
            import apprise
        except ImportError as error:
            raise ConfigError(f"--notifier: {_scheme(url)}: needs pip install 'kvcache-dewy[notify]'") from error
        # What it logs may have tokens in it; its reasons are taken below, without them.
        _logger.propagate = False
        self._title = f"Dewy on {sender.host}"
        self._parts = sorted({part for part in map(unquote, re.split(r"[/:@?&=#]+", url)) if len(part) >= _SHORTEST})
        self._service: Any = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if self._service is None:
            raise ConfigError(
                f"--notifier: {_scheme(url)}: slack://channel, mail://host/to, or a URL that Apprise takes"
            )
        self.quiet = quiet
        self.name = f"{_scheme(url)}#{_identity(url)}"

    def send(self, message: Message) -> None:
        with _reasons() as reasons:
            sent = self._service.notify(body=body_of(message), title=self._title, notify_type=_KINDS[message.weight])
        if not sent:
            why = self._without_secrets("; ".join(reasons)) or "Apprise gives no reason"
            raise NotSent(f"{self.name}: {why}")

    def close(self) -> None:
        """Nothing is kept open."""

    def _without_secrets(self, text: str) -> str:
        for part in sorted(self._parts, key=len, reverse=True):
            text = text.replace(part, "***")
        return scrub(text)


def body_of(message: Message) -> str:
    """The text, and for a hook what it wrote."""
    if message.hook is None:
        return message.text
    run = message.hook
    code = "none" if run.exit_code is None else run.exit_code
    outputs = (
        f"{name}:\n{cut(text)}" for name, text in (("stdout", run.stdout), ("stderr", run.stderr)) if text.strip()
    )
    return "\n".join((f"{message.text}: {run.command} (exit code {code}, {run.duration:.3f}s)", *outputs))


def _scheme(url: str) -> str:
    return f"{url.partition('://')[0]}://"


def _identity(url: str) -> str:
    """Tells services apart, the same on all nodes."""
    return hashlib.sha256(url.encode()).hexdigest()[:8]


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """What Apprise logs of trouble in this thread."""
    reasons: list[str] = []
    mine = threading.get_ident()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == mine:
                reasons.append(record.getMessage())

    handler = Keep(logging.WARNING)
    _logger.addHandler(handler)
    try:
        yield reasons
    finally:
        _logger.removeHandler(handler)
