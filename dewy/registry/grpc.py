"""`grpc://host:port`: a registry that somebody runs themselves, behind Dewy v2's `dewy.RegistryService`.

The server knows what is newest for a machine and where its artifact is; the artifact comes from there. Calls go by TLS
unless `no-tls=true`; `ca=FILE` names an authority of one's own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dewy.errors import ConfigError
from dewy.http import user_agent
from dewy.registry import base
from dewy.registry.base import Announced, Fetched, Now, Pending, Progress
from dewy.registry.beside import Beside
from dewy.registry.by_url import Open, home_of, source_of
from dewy.registry.checksums import Mode, is_wanted, vouched_or_pending, with_mode
from dewy.registry.keys import platform_scope
from dewy.registry.platform import Platform
from dewy.registry.url import RegistryURL
from dewy.versions import slot
from kvcache import LoadContext, Loaded, UpstreamError

CALL_WITHIN: Final = 20.0
"""Seconds for one call, with its connection."""

_TARGET: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class GrpcRegistry:
    """What a server of `dewy.RegistryService` announces; see `dewy.registry.base.Registry`. ConfigError.

    `open_url` opens the registries that have the artifacts.
    """

    def __init__(
        self,
        url: RegistryURL,
        env: Mapping[str, str],
        platform: Platform,
        *,
        now: Now,
        open_url: Open,
        checksums: Mode = "auto",
    ) -> None:
        place = url.place.removesuffix("/")
        found = _TARGET.fullmatch(place)
        if found is None or not 0 < int(found["port"]) < 65536:
            raise url.wrong("server", url.place, "grpc://host:port")
        url.reject_unknown(("no-tls", "ca"))
        if "pre-release" in url.params:
            raise url.wrong("parameter", "pre-release", "artifact, ca, calver, no-tls; the server chooses the version")
        tls, ca = not url.flag("no-tls"), url.params.get("ca", "")
        if ca and not tls:
            raise url.wrong("ca", ca, "no-tls=false with it")
        try:
            from dewy.registry import grpc_wire  # with grpcio behind it
        except ImportError as error:
            raise ConfigError("--registry: grpc:// needs grpcio: pip install 'kvcache-dewy[grpc]'") from error
        self._wire = grpc_wire
        self._service = grpc_wire.Service(
            place,
            url.describe,
            _trusted_roots(url, ca, env) if tls else None,
            tls=tls,
            direct=_is_loopback(found["host"]),
            agent=user_agent(),
        )
        self.describe = url.describe
        self.scope = with_mode(url.scope if url.artifact else platform_scope(url.scope, platform), checksums)
        self._artifact = url.artifact
        self._calver = url.calver()
        self._platform = platform
        self._now = now
        self._open_url = open_url
        self._checksums: Mode = checksums

    def close(self) -> None:
        """No connection outlives its call."""

    def current(self, ctx: LoadContext) -> Loaded[dict[str, Any]]:
        request = self._wire.CurrentRequest(arch=self._platform.arch, os=self._platform.os)
        if self._artifact:
            request.arifact_name = self._artifact
        answer = self._service.current(request, min(CALL_WITHIN, ctx.deadline - time.monotonic()))
        if not answer.tag or not answer.artifact_url:
            raise UpstreamError(f"{self.describe}: Current: an answer without a tag or an artifact's URL")
        found = Announced(
            id=answer.id or base.answer_id(self._now()),
            tag=answer.tag,
            artifact_url=answer.artifact_url,
            created_at=_moment(answer),
            slot=slot(answer.tag, self._calver),
        )
        home_of(found)  # whether it can be fetched is better known now than in mid-deploy
        return base.published(self._checked(found, base.previous_answer(ctx), ctx.deadline), ctx)

    def _checked(self, found: Announced, last: Announced | None, deadline: float) -> Announced | Pending:
        """With a digest where one is required; else it is looked for when the artifact is fetched.

        The server tells no digest, and asking at every poll where the artifact is would be asking twice.
        """
        if last is not None and replace(last, id=found.id, digest=None, digest_from=None) == found:
            found = replace(found, digest=last.digest, digest_from=last.digest_from)
        if self._checksums != "require" or not is_wanted(found, "require"):
            return found
        with self.beside(found, deadline=deadline) as files:
            return vouched_or_pending(found, files, "require", None)

    def fetch(
        self,
        announced: Announced,
        path: str | os.PathLike[str],
        progress: Progress | None = None,
        *,
        deadline: float | None = None,
    ) -> Fetched:
        with source_of(announced, self._open_url) as (source, there):
            return source.fetch(there, path, progress, deadline=deadline)

    @contextmanager
    def beside(self, announced: Announced, *, deadline: float) -> Iterator[Beside]:
        with source_of(announced, self._open_url) as (source, there), source.beside(there, deadline=deadline) as files:
            yield files

    def report(self, announced: Announced, command: str) -> None:
        request = self._wire.ReportRequest(id=announced.id, tag=announced.tag, command=command)
        self._service.report(request, CALL_WITHIN)


def _trusted_roots(url: RegistryURL, ca: str, env: Mapping[str, str]) -> bytes | None:
    """Certificates of the authorities to believe, in PEM form: of the file `ca`, else of SSL_CERT_FILE, else of the
    system; None where there are none of these, and grpcio's own have to do. ConfigError.
    """
    named = ca or env.get("SSL_CERT_FILE") or ""
    path = named or ssl.get_default_verify_paths().cafile
    if not path:
        return None
    form = "a file of readable certificates in PEM form"
    try:
        pem = Path(path).read_bytes()
        ssl.create_default_context(cadata=pem.decode("latin-1"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise url.wrong("ca", ca, form) if ca else ConfigError(f"SSL_CERT_FILE: {path!r}: expected {form}") from error
    return pem


def _moment(answer: Any) -> datetime | None:
    if not answer.HasField("created_at"):
        return None
    with suppress(ValueError, OverflowError):  # a time that no calendar has
        return datetime.fromtimestamp(answer.created_at.seconds + answer.created_at.nanos / 1e9, UTC)
    return None


def _is_loopback(host: str) -> bool:
    """Such an address is reached without a proxy, as in Go."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"
