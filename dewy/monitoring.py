"""Metrics, status and health of one run: gathered always, shown where `--telemetry` and its like ask for it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from dewy.admin import AdminServer, Page
from dewy.config import Config
from dewy.errors import DewyError
from dewy.events import Listener
from dewy.log import Log
from dewy.options import DEFAULT_ADMIN_PORT
from dewy.pulse import Pulse
from dewy.registry import Registry
from dewy.registry.rate import RateLimit, RateLimited
from dewy.release import Releases
from dewy.supervisor import Supervisor
from dewy.telemetry import instruments as i
from dewy.telemetry.metrics import Metrics
from dewy.telemetry.observe import Observer
from dewy.telemetry.text import CONTENT_TYPE, exposition
from dewy.telemetry.view import Seen, View
from kvcache import KVCacheError, Staging, scrub

_COMMANDS: Final = {"server": 0, "assets": 1}
"""Dewy v2's numbers for its commands."""


class Monitoring:
    """What is known of a node, by those who tell it, and those who ask. `with` it, then `start`."""

    def __init__(self, config: Config, *, version: str, log: Log, hide: Callable[[str], str]) -> None:
        """`hide` takes secrets out of a text. ConfigError."""
        self._config = config
        self._hide = hide
        self._version = version
        self._log = log
        self._stack = ExitStack()
        self._metrics = Metrics()
        self._view = View()
        self.observer: Final = Observer(self._metrics, config.mode, version=version, interval=config.interval)
        self._exporter = None
        if config.otlp_endpoint:
            from dewy.telemetry.otlp import open_exporter  # with OpenTelemetry behind it

            self._exporter = open_exporter(config.otlp_endpoint, insecure=config.otlp_insecure)

    def __enter__(self) -> Monitoring:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """To be told what happens on the node."""
        return (self.observer.on_node, self._view.on_node)

    def start(
        self,
        *,
        registry: Registry,
        staging: Staging,
        releases: Releases,
        supervisor: Supervisor | None,
        pulse: Pulse,
    ) -> None:
        """Shows what there is, where it is asked for. What goes wrong is logged."""
        wanted = self._config.telemetry or self._config.admin_port is not None or self._exporter is not None
        if not wanted:
            return
        self._watch(registry, staging)
        if tag := _tag(releases):
            self.observer.release(tag)
        self._log.info("Telemetry enabled")
        if self._exporter is not None:
            from dewy.telemetry.otlp import Push

            push = Push(self._metrics, self._exporter, self._resource(), self._log)
            push.start()
            self._stack.callback(push.close)

        def status() -> Page:
            running = supervisor is not None and supervisor.snapshot().running
            seen = self._view.seen
            seen = replace(seen, error=scrub(self._hide(seen.error)))
            return Page.of_json(status_of(self._config, seen, _tag(releases), running, self._version))

        def health() -> Page:
            return health_page(pulse.beats(), pulse.silent_for)

        self._serve(
            {
                "/metrics": lambda: Page(exposition(self._metrics.collect()), CONTENT_TYPE),
                "/healthz": health,
                "/api/status": status,
                "/api/containers": lambda: Page.of_json({"containers": None}),
            }
        )

    def _serve(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        server = AdminServer(pages, self._log)
        self._stack.callback(server.close)
        server.open(self._config.admin_host, self._config.admin_port or DEFAULT_ADMIN_PORT)
        if server.port is not None:
            self._log.info("Prometheus metrics endpoint enabled", path="/metrics", port=server.port)

    def _watch(self, registry: Registry, staging: Staging) -> None:
        def size() -> float | None:
            with suppress(KVCacheError, OSError):
                return staging.size()
            return None

        self._metrics.watch(i.STAGED_BYTES, size)
        if not isinstance(registry, RateLimited):
            return
        limited = registry

        def told(part: Callable[[RateLimit], int]) -> Callable[[], float | None]:
            return lambda: part(limited.rate_limit) if limited.rate_limit is not None else None

        self._metrics.watch(i.RATE_LIMIT, told(lambda rate: rate.limit))
        self._metrics.watch(i.RATE_LEFT, told(lambda rate: rate.remaining))
        self._metrics.watch(i.RATE_RESET, told(lambda rate: rate.reset))

    def _resource(self) -> dict[str, str]:
        return {
            "service.name": "dewy",
            "service.version": self._version,
            "service.instance.id": f"{socket.gethostname()}:{self._config.root}",
            "host.name": socket.gethostname(),
        }


def status_of(config: Config, seen: Seen, tag: str, running: bool, version: str) -> dict[str, Any]:
    """What /api/status says: Dewy v2's five fields, and what an operator asks next. Times in RFC 3339."""
    facts = {name: _time(value) if name.endswith("_at") else value for name, value in asdict(seen).items()}
    facts.pop("tag")
    return {
        "command": _COMMANDS[config.mode],
        "current_version": tag or seen.tag,
        "is_running": running,
        "name": name_of(config.registry),
        "proxy_backends": 0,
        "mode": config.mode,
        "version": version,
        "interval": config.interval,
        **facts,
    }


def health_page(well: bool, silent_for: float) -> Page:
    """What /healthz says: 503 where the loop no longer turns."""
    body = {"status": "ok" if well else "stuck", "silent_for": round(silent_for, 3)}
    return Page.of_json(body, 200 if well else 503)


def name_of(registry: str) -> str:
    """The last part of the path of a registry's URL, as Dewy v2 calls an application."""
    parts = urlsplit(registry)
    return parts.path.rstrip("/").rpartition("/")[2] or parts.hostname or ""


def _tag(releases: Releases) -> str:
    """Of what is in place on disk; empty where there is nothing, or it cannot be told."""
    with suppress(DewyError, OSError):
        release = releases.deployed()
        if release is not None:
            return release.info.tag if release.info is not None else release.id
    return ""


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
