"""What an operator asked for, checked in full before anything starts.

`configure` turns settings, arguments and working directory into one frozen `Config`, or raises `ConfigError`: one line,
`<part>: <value>: <accepted form>`. It opens nothing, connects to nothing and creates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from dewy.errors import ConfigError
from dewy.minisign import PublicKey
from dewy.options import Checksums, Level, LogFormat, Mode
from dewy.ports import Listen
from dewy.registry.url import parse_registry_url
from dewy.settings import Settings, Source
from kvcache import store_options

__all__ = ["Checksums", "Config", "Level", "LogFormat", "Mode", "checked", "configure", "without_effect"]


@dataclass(frozen=True, slots=True)
class Config:
    """One run of `dewy server` or `dewy assets`. Times in seconds, sizes in bytes.

    A field of an option has the option's name and is explained in `dewy.options`.
    """

    mode: Mode
    command: tuple[str, ...] = field(repr=False)
    """The application and its arguments; empty in assets mode."""
    root: Path
    """Where `releases/` and `current` stand: the working directory at the start."""

    registry: str = field(repr=False)  # any URL, and a hook, may carry a secret
    interval: float
    tick_timeout: float
    slot: str
    calver: str | None
    fallback: bool
    checksums: Checksums
    signature_key: tuple[PublicKey, ...]
    """Any of them will do. Empty: signatures are not checked."""
    keep: int
    rollback: bool

    cache: str = field(repr=False)
    registry_ttl: float | None
    """Of `cache`: seconds for which the fleet shares one answer of the registry; None: every node asks by itself."""
    max_size: int
    """Of `cache`: most bytes of artifacts that this node keeps locally."""

    listen: tuple[Listen, ...]
    health_path: str
    """Empty: no health check."""
    health_timeout: float
    health_port: int | None
    """None: the first that is listened on."""
    drain_time: float

    before_deploy_hook: str = field(repr=False)
    after_deploy_hook: str = field(repr=False)
    hook_timeout: float
    before_hook_vetoes: bool

    notifier: tuple[str, ...] = field(repr=False)
    notify_once: bool

    telemetry: bool
    otlp_endpoint: str = field(repr=False)
    otlp_insecure: bool
    admin_port: int | None
    """None: `dewy.options.DEFAULT_ADMIN_PORT`, and only where something else asks for telemetry."""
    admin_host: str

    log_level: Level
    log_format: LogFormat

    ignored: tuple[tuple[str, str], ...] = ()
    """(option, why) of what was given and has no effect; for one warning each."""


def configure(mode: Mode, settings: Settings, *, cwd: Path) -> Config:
    """The configuration in force. ConfigError."""
    assert mode in get_args(Mode), mode
    values = checked(settings)
    if not values["registry"]:
        raise ConfigError("--registry: not set: a URL such as ghr://owner/repo or file:///dir")
    if mode == "server" and not any(settings.command[:1]):
        raise ConfigError(
            "COMMAND: not set: the application to run, as in dewy server --registry URL -- COMMAND ARG..."
        )
    for setting in settings.by_name.values():
        if setting.option.only not in (None, mode):
            values[setting.option.field] = setting.option.kind.read(setting.option.default_texts)
    shared = store_options(values["cache"])
    return Config(
        mode=mode,
        command=settings.command if mode == "server" else (),
        root=cwd,
        registry_ttl=shared.registry_ttl or None,
        max_size=shared.max_size,
        ignored=tuple(without_effect(mode, settings)),
        **values,
    )


def checked(settings: Settings) -> dict[str, Any]:
    """The value of every option, by its field. ConfigError: one of them is wrong; none need be there."""
    values = settings.values()
    if values["registry"]:
        try:
            parse_registry_url(values["registry"], values["calver"]).rule()
        except ConfigError as error:
            raise settings.located(error) from error
    return values


def without_effect(mode: Mode | None, settings: Settings) -> Iterator[tuple[str, str]]:
    """(name, why) of what was given and has no effect. Dewy v2 says no word; an operator should know.

    Without a mode: in whatever mode.
    """
    for setting in settings.by_name.values():
        if mode is not None and setting.source is not Source.DEFAULT and setting.option.only not in (None, mode):
            yield setting.place, setting.option.why_not
    if mode == "assets" and settings.command:
        yield "COMMAND", "assets starts no application"
    if settings["registry"].texts[-1].startswith("grpc://") and settings["fallback"].value():
        yield settings["fallback"].place, "the server of a grpc:// registry chooses the version"
    for variable, near in settings.misspelt:
        yield variable, f"no such option; did you mean {near}?"
