"""`--notifier` URLs. Dewy v2's `slack://`, `mail://` and `smtp://` are read here; every other one goes to Apprise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dewy.errors import ConfigError
from dewy.notify.message import Channel
from dewy.notify.sender import Sender

_SLACK: Final = ("title", "url", "quiet", "thread")
_MAIL: Final = ("username", "password", "from", "to", "subject", "tls", "quiet")
_TRUE: Final = frozenset({"1", "t", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "f", "false", "no", "off", ""})


def open_channel(url: str, sender: Sender, env: Mapping[str, str]) -> Channel:
    """The channel of a URL; connects to nothing. ConfigError, in which no secret is."""
    scheme, mark, _ = url.partition("://")
    if not mark:
        raise ConfigError("--notifier: ***: a URL such as slack://channel or mail://host/to")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"--notifier: {scheme}://***: host[:port] is malformed") from error
    match scheme.lower():
        case "slack" if _is_v2_slack(parts):
            return _slack(parts, sender, env)
        case "mail" | "smtp":
            return _mail(parts, port, sender, env)
    from dewy.notify.others import Others

    return Others(url, sender, quiet=_truth(scheme, dict(parse_qsl(parts.query)), "quiet"))


def _is_v2_slack(parts: SplitResult) -> bool:
    """Apprise's own have a token as host, or in the path, or a user."""
    return (
        not parts.path.strip("/")
        and not parts.netloc.startswith(("xoxb-", "xoxp-", "xoxe"))
        and "@" not in parts.netloc
    )


def _slack(parts: SplitResult, sender: Sender, env: Mapping[str, str]) -> Channel:
    from dewy.notify.slack import Slack, Target

    given = _parameters(parts, _SLACK)
    channel = unquote(parts.netloc)
    if not channel:
        raise ConfigError("--notifier: slack://: a channel, as in slack://general (without #)")
    target = Target(
        channel=channel,
        title=given.get("title", ""),
        url=given.get("url", ""),
        quiet=_truth("slack", given, "quiet"),
        thread=_truth("slack", given, "thread"),
    )
    return Slack(target, sender, env)


def _mail(parts: SplitResult, port: int | None, sender: Sender, env: Mapping[str, str]) -> Channel:
    from dewy.http import trust
    from dewy.notify.mail import DEFAULT_PORT, DEFAULT_SUBJECT, Mail, Target

    given = _parameters(parts, _MAIL)
    username = given.get("username") or env.get("MAIL_USERNAME", "")
    password = given.get("password") or env.get("MAIL_PASSWORD", "")
    to = unquote(parts.path.strip("/")) or given.get("to", "")
    come_from = given.get("from") or env.get("MAIL_FROM", "") or username
    for name, value, where in (
        ("host", parts.hostname, "mail://host/to"),
        ("to", to, "mail://host/to"),
        ("from", come_from, "?from=, MAIL_FROM, or a username"),
    ):
        if not value:
            raise ConfigError(f"--notifier: {parts.scheme}://: {name} not set: {where}")
    if bool(username) != bool(password):
        raise ConfigError(f"--notifier: {parts.scheme}://: username and password belong together: MAIL_PASSWORD")
    addresses = tuple(one.strip() for one in to.split(",") if one.strip())
    for address in (*addresses, come_from):
        if address.count("@") != 1 or address.strip("@") != address or not address.isprintable() or " " in address:
            raise ConfigError(f"--notifier: {parts.scheme}://: {address[:40]!r}: an address such as ops@example.com")
    target = Target(
        host=parts.hostname or "",
        port=port or DEFAULT_PORT,
        to=addresses,
        sender=come_from,
        username=username,
        password=password,
        subject=" ".join((given.get("subject") or DEFAULT_SUBJECT).split()),
        tls=_truth(parts.scheme, given, "tls", default=True),
        quiet=_truth(parts.scheme, given, "quiet"),
    )
    return Mail(target, sender, trust(env))


def _parameters(parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in known:
            raise ConfigError(f"--notifier: {parts.scheme}://: {name[:40]!r}: one of {', '.join(known)}")
    return given


def _truth(scheme: str, given: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = given.get(name, "true" if default else "").lower()
    if value not in _TRUE | _FALSE:
        raise ConfigError(f"--notifier: {scheme}://: {name}: {value[:20]!r}: true or false")
    return value in _TRUE
