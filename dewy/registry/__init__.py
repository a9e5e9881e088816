"""Where releases are announced: `open_registry` gives the registry that a URL names."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime

from dewy.errors import ConfigError
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
from dewy.registry.keys import cache_key, registry_scope
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
    "this_platform",
]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_registry(
    url: str,
    *,
    calver: str | None = None,
    env: Mapping[str, str],
    platform: Platform | None = None,
    hostname: str | None = None,
    max_artifact: int = MAX_ARTIFACT,
    now: Now = _utc_now,
) -> Registry:
    """The registry that a URL names, before anything is asked of it.

    `calver` is the format of calendar versions, which goes before the URL's. `env` holds credentials, proxies and the
    like; nothing else is read from the environment. `platform` and `hostname` are this machine's unless given,
    `max_artifact` is in bytes. ConfigError: whatever can be wrong without asking anybody.
    """
    parsed = parse_registry_url(url, calver)
    parsed.calver()  # a bad format is reported whatever the scheme
    machine = platform or this_platform()
    host = hostname or socket.gethostname()
    match parsed.scheme:
        case "ghr":
            from dewy.registry.ghr import GitHubReleases  # with urllib3 behind it

            return GitHubReleases(parsed, env, machine, now=now, hostname=host, max_artifact=max_artifact)
        case "file":
            from dewy.registry.file import open_file

            return open_file(parsed, machine, now=now, hostname=host, max_artifact=max_artifact)
        case "s3" | "gs":
            from dewy.registry.bucket import open_bucket  # with a cloud client behind it

            return open_bucket(parsed, machine, now=now, hostname=host, max_artifact=max_artifact)
        case _:
            raise ConfigError(
                f"--registry: {parsed.describe}: unsupported registry: expected ghr://, s3://, gs:// or file://"
            )
