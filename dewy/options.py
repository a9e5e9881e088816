"""The table of options of `dewy server` and `dewy assets`: the one place where an option is written down.

From a row come the option of the command line, the variable `DEWY_<NAME>`, the key of the TOML file, a line of
`dewy config`, a section of docs/reference-options.md, and a value of `dewy.config.Config`, in the field of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from dewy import values as v
from dewy.values import Kind

Mode: TypeAlias = Literal["server", "assets"]
LogFormat: TypeAlias = Literal["text", "json"]
Level: TypeAlias = Literal["DEBUG", "INFO", "WARN", "ERROR"]
Checksums: TypeAlias = Literal["auto", "require", "off"]

DEFAULT_ADMIN_PORT: Final = 17539


def _plain(text: str) -> str:
    return text


def _without_password(text: str) -> str:
    from kvcache import redact

    return redact(text)


def _scheme_alone(text: str) -> str:
    """Services of notifications have tokens anywhere in their URLs."""
    scheme, mark, rest = text.partition("://")
    return f"{scheme}://***" if mark and rest else "***"


def _scrubbed(text: str) -> str:
    from kvcache import scrub

    return scrub(text)


@dataclass(frozen=True, slots=True)
class Option:
    """One row. Texts are as they are typed; `dewy.settings` reads them."""

    name: str
    """As in `--name`."""
    kind: Kind
    about: str
    """One or two sentences for the help text."""
    default: str = ""
    """As it would be typed."""
    default_shown: str = ""
    """Told as the default where there is more to it than its text."""
    short: str = ""
    """A letter."""
    repeatable: bool = False
    only: Mode | None = None
    """The command in which it has an effect, where not in both."""
    why_not: str = ""
    """Why it has none in the other one."""
    in_file: bool = True
    to: str = ""
    """The field of `Config`, where that has another name."""
    show: Callable[[str], str] = _plain
    """A value without its secrets."""

    @property
    def key(self) -> str:
        """The name as an identifier, and of the field of `Config`."""
        return self.name.replace("-", "_")

    @property
    def field(self) -> str:
        return self.to or self.key

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return f"DEWY_{self.key.upper()}"

    @property
    def secret(self) -> bool:
        """Whether a value may hold what must not be shown."""
        return self.show is not _plain

    @property
    def default_texts(self) -> tuple[str, ...]:
        if self.repeatable:
            return (self.default,) if self.default else ()
        return (self.default,)


_LEVELS: Final = {"debug": "DEBUG", "info": "INFO", "warn": "WARN", "warning": "WARN", "error": "ERROR"}


def _of_server(name: str, kind: Kind, about: str, default: str = "", **more: Any) -> Option:
    """A row about the application."""
    return Option(name, kind, about, default, only="server", why_not="assets starts no application", **more)


GROUPS: Final[Mapping[str, tuple[Option, ...]]] = {
    "Releases": (
        Option(
            "registry",
            v.REGISTRY,
            "Where releases are announced: ghr://owner/repo, s3://region/bucket/prefix, gs://bucket/prefix, "
            "grpc://host:port, file:///dir. Required.",
            show=_without_password,
        ),
        Option(
            "interval",
            v.duration(0.1, example="10 (seconds), 30s or 1m"),
            "Time between two polls: 10 (seconds), 30s, 1m.",
            "10",
            short="i",
        ),
        Option("tick-timeout", v.duration(1, example="30m"), "Most time for one poll, with all that follows.", "1h"),
        Option("slot", v.text("NAME"), "Only versions with this build metadata: blue for v1.2.3+blue.", short="s"),
        Option("calver", v.CALVER, "Versions are calendar versions, such as YYYY.0M.MICRO."),
        Option(
            "fallback",
            v.FLAG,
            "Where the newest version has no artifact for this platform, or is of another slot, take the newest one "
            "that fits.",
            "false",
        ),
        Option(
            "checksums",
            v.choice("WHEN", dict.fromkeys(("auto", "require", "off")), "auto, require or off"),
            "Check artifacts against a release's checksums file: auto (where it has one), require or off.",
            "auto",
        ),
        Option(
            "signature-key",
            v.SIGNATURE_KEYS,
            "The minisign public key that artifacts have to be signed with, or several with commas; not checked "
            "unless set.",
        ),
        Option("keep", v.whole("N", 1, 10_000), "Releases that stay on disk.", "7"),
        Option(
            "rollback",
            v.FLAG,
            "Go back to the last good release when a new one does not come up or is not healthy.",
            "true",
        ),
    ),
    "Sharing": (
        Option(
            "cache",
            v.STORE,
            "Where artifacts and answers are shared: s3://, gs://, redis://, consul://, file://, ...; "
            "the cache directory unless set.",
            short="c",
            show=_without_password,
        ),
    ),
    "Application": (
        _of_server(
            "port",
            v.PORTS,
            "What the application listens on: 8000, 127.0.0.1:8000, 8000-8003, or several with commas. Repeatable.",
            short="p",
            repeatable=True,
            to="listen",
        ),
        _of_server(
            "health-path",
            v.text("PATH"),
            "What a new release has to answer before it counts as good: /healthz, or tcp for any connection; "
            "not asked unless set.",
        ),
        _of_server("health-timeout", v.duration(0.1, example="30s"), "Time that it has for that.", "30s"),
        _of_server(
            "health-port", v.whole("PORT", 1, 65535, empty=None), "Where it is asked; the first --port unless set."
        ),
        _of_server(
            "drain-time",
            v.duration(0.1, example="30s"),
            "Time that the old release has to finish what it began.",
            "30s",
        ),
    ),
    "Hooks": (
        Option("before-deploy-hook", v.text("SHELL"), "Run before a release is put in place.", show=_scrubbed),
        Option("after-deploy-hook", v.text("SHELL"), "Run when a new release is in place and running.", show=_scrubbed),
        Option("hook-timeout", v.duration(0.1, example="5m"), "Time that a hook may take.", "5m"),
        Option("before-hook-vetoes", v.FLAG, "A before-hook that fails stops the deploy.", "false"),
    ),
    "Notifications": (
        Option(
            "notifier",
            v.texts("URL", "a URL such as slack://channel or mail://host/to"),
            "Whom to tell: slack://channel, mail://host/to, and all that Apprise knows; the log alone unless set. "
            "Repeatable.",
            repeatable=True,
            show=_scheme_alone,
        ),
        Option("notify-once", v.FLAG, "One message for the fleet rather than one from each node, by --cache.", "false"),
    ),
    "Monitoring": (
        Option("telemetry", v.FLAG, "Serve /metrics, /healthz and /api/status on --admin-port.", "false"),
        Option(
            "otlp-endpoint",
            v.text("URL"),
            "Push metrics there by OTLP: collector:4317; switches --telemetry on.",
            show=_without_password,
        ),
        Option("otlp-insecure", v.FLAG, "Push without TLS.", "false"),
        Option(
            "admin-port",
            v.whole("PORT", 0, 65535, empty=None, absent=0),
            "Where they are served, or on one of the nine ports after it; switches --telemetry on.",
            default_shown=str(DEFAULT_ADMIN_PORT),
        ),
        Option("admin-host", v.text("ADDRESS"), "And on which address of this host.", "localhost"),
    ),
    "Log and configuration": (
        Option(
            "log-level",
            v.choice("LEVEL", _LEVELS, "debug, info, warn or error"),
            "debug, info, warn or error.",
            "info",
            short="l",
        ),
        Option(
            "log-format",
            v.choice("FORMAT", dict.fromkeys(("text", "json")), "text or json"),
            "text or json.",
            "text",
            short="f",
        ),
        Option("config", v.FILE, "A TOML file with any of these options, and the command.", in_file=False),
    ),
}
"""The rows under their headings, in the order of the help text."""

OPTIONS: Final = tuple(option for rows in GROUPS.values() for option in rows)
BY_NAME: Final = {option.name: option for option in OPTIONS}
