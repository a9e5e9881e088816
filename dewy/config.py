"""What an operator asked for, checked in full before anything starts.

`configure` turns the texts of options, arguments and environment into one frozen `Config`, or raises `ConfigError`:
one line, `<part>: <value>: <accepted form>`. It opens nothing, connects to nothing and creates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from dewy.errors import ConfigError
from dewy.ports import Listen, parse_ports
from kvcache import InvalidURL, parse_duration, redact, store_options

Mode: TypeAlias = Literal["server", "assets"]
LogFormat: TypeAlias = Literal["text", "json"]
Level: TypeAlias = Literal["DEBUG", "INFO", "WARN", "ERROR"]

DEFAULT_INTERVAL: Final = "10"
DEFAULT_LOG_LEVEL: Final = "info"
DEFAULT_LOG_FORMAT: Final = "text"
SHORTEST_INTERVAL: Final = 0.1
"""Seconds. Below it a poll is no poll but a load test."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `server` and `assets` as they were typed; an empty text is one that was not given."""

    registry: str = ""
    cache: str = ""
    notifier: str = ""
    interval: str = DEFAULT_INTERVAL
    port: tuple[str, ...] = ()
    slot: str = ""
    calver: str = ""
    log_level: str = DEFAULT_LOG_LEVEL
    log_format: str = DEFAULT_LOG_FORMAT
    before_deploy_hook: str = ""
    after_deploy_hook: str = ""
    telemetry: tuple[str, ...] = ()
    """Names of the options about telemetry that were given."""


@dataclass(frozen=True, slots=True)
class Config:
    """One run of `dewy server` or `dewy assets`. Times in seconds, sizes in bytes."""

    mode: Mode
    registry: str = field(repr=False)  # either URL may carry a secret
    cache: str = field(repr=False)
    registry_ttl: float | None
    """Seconds for which the fleet shares one answer of the registry; None: every node asks by itself."""
    max_size: int
    """Most bytes of artifacts that this node keeps locally."""
    notifier: str = field(repr=False)
    interval: float
    listen: tuple[Listen, ...]
    slot: str
    calver: str | None
    log_level: Level
    log_format: LogFormat
    before_deploy_hook: str
    after_deploy_hook: str
    command: tuple[str, ...]
    """The application and its arguments; empty in assets mode."""
    root: Path
    """Where `releases/` and `current` stand: the working directory at the start."""
    ignored: tuple[tuple[str, str], ...] = ()
    """(option, why) of what was given and has no effect; for one warning each."""


def configure(mode: Mode, options: Options, command: Sequence[str], *, cwd: Path) -> Config:
    """The configuration in force. ConfigError."""
    assert mode in get_args(Mode), mode
    if not options.registry:
        raise ConfigError("--registry: not set: a URL such as ghr://owner/repo or file:///dir")
    if "://" not in options.registry:
        raise ConfigError(f"--registry: {redact(options.registry)!r}: scheme://..., such as ghr://owner/repo")
    level, log_format = parse_log_options(options.log_level, options.log_format)
    listen = parse_ports(options.port)
    if mode == "server" and (not command or not command[0]):
        raise ConfigError(
            "COMMAND: not set: the application to run, as in dewy server --registry URL -- COMMAND ARG..."
        )
    try:
        shared = store_options(options.cache)
    except InvalidURL as error:
        raise ConfigError(f"--cache: {error}") from error
    return Config(
        mode=mode,
        registry=options.registry,
        cache=options.cache,
        registry_ttl=shared.registry_ttl or None,
        max_size=shared.max_size,
        notifier=options.notifier,
        interval=_interval(options.interval),
        listen=listen if mode == "server" else (),
        slot=options.slot,
        calver=options.calver or None,
        log_level=level,
        log_format=log_format,
        before_deploy_hook=options.before_deploy_hook,
        after_deploy_hook=options.after_deploy_hook,
        command=tuple(command) if mode == "server" else (),
        root=cwd,
        ignored=tuple(_without_effect(mode, options, command)),
    )


def _without_effect(mode: Mode, options: Options, command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Dewy v2 takes these without a word; an operator should know."""
    if mode == "assets":
        if options.port:
            yield "--port", "assets starts no application"
        if command:
            yield "COMMAND", "assets starts no application"
    for name in options.telemetry:
        yield name, "this version has no telemetry"


def parse_log_options(level: str, log_format: str) -> tuple[Level, LogFormat]:
    """Level and format of the log, in any case. ConfigError."""
    levels: dict[str, Level] = {"debug": "DEBUG", "info": "INFO", "warn": "WARN", "warning": "WARN", "error": "ERROR"}
    formats: dict[str, LogFormat] = {"text": "text", "json": "json"}
    if level.lower() not in levels:
        raise ConfigError(f"--log-level: {level!r}: debug, info, warn or error")
    if log_format.lower() not in formats:
        raise ConfigError(f"--log-format: {log_format!r}: text or json")
    return levels[level.lower()], formats[log_format.lower()]


def _interval(text: str) -> float:
    try:
        seconds = parse_duration(text, plain_seconds=True)
    except ValueError as error:
        raise ConfigError(f"--interval: {error}") from error
    if seconds < SHORTEST_INTERVAL:
        raise ConfigError(f"--interval: {text!r}: at least 100ms, such as 10 (seconds), 30s or 1m")
    return seconds
