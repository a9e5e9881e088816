"""Where releases are announced: `open_registry` gives the registry that a URL names."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dewy.registry.base import (
    MAX_ARTIFACT,
    Announced,
    Fetched,
    InvalidAnswer,
    Now,
    Pending,
    Registry,
    artifact_not_found,
)
from dewy.registry.checksums import Mode
from dewy.registry.keys import cache_key, registry_scope, source_scope
from dewy.registry.platform import Platform, this_platform
from dewy.registry.url import parse_registry_url

__all__ = [
    "Announced",
    "Fetched",
    "InvalidAnswer",
    "Pending",
    "Platform",
    "Registry",
    "artifact_not_found",
    "cache_key",
    "open_registry",
    "registry_scope",
    "source_scope",
    "this_platform",
]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_registry(
    url: str,
    *,
    calver: str | None = None,
    slot: str = "",
    fallback: bool = False,
    env: Mapping[str, str],
    platform: Platform | None = None,
    hostname: str | None = None,
    max_artifact: int = MAX_ARTIFACT,
    checksums: Mode = "auto",
    now: Now = _utc_now,
) -> Registry:
    """The registry that a URL names, before anything is asked of it.

    `calver` is the format of calendar versions, which goes before the URL's; `slot` and `fallback` are explained in
    `dewy.registry.choice`. `env` holds credentials, proxies and the like; nothing else is read from the environment.
    `platform` and `hostname` are this machine's unless given, `max_artifact` is in bytes; `checksums` says when a
    release's checksums file is read. ConfigError: whatever can be wrong without asking anybody.
    """
    parsed = parse_registry_url(url, calver, slot=slot, fallback=fallback)
    parsed.calver()  # a bad format is reported whatever the scheme
    machine = platform or this_platform()
    host = hostname or socket.gethostname()
    options: dict[str, Any] = {"now": now, "checksums": checksums}
    sized: dict[str, Any] = {"hostname": host, "max_artifact": max_artifact}
    match parsed.scheme:
        case "ghr":
            from dewy.registry.ghr import GitHubReleases  # with urllib3 behind it

            return GitHubReleases(parsed, env, machine, **options, **sized)
        case "file":
            from dewy.registry.file import open_file

            return open_file(parsed, machine, **options, **sized)
        case "s3" | "gs":
            from dewy.registry.bucket import open_bucket  # with a cloud client behind it

            return open_bucket(parsed, machine, **options, **sized)
        case "grpc":
            from dewy.registry.grpc import GrpcRegistry  # with grpcio behind it

            open_url = partial(open_registry, env=env, platform=machine, **options, **sized)
            return GrpcRegistry(parsed, env, machine, open_url=open_url, **options)
        case scheme:
            raise AssertionError(f"{scheme} is no scheme of dewy.registry.url")
