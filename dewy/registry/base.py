"""What every registry gives, and the answer that a fleet shares.

An answer's value has the five fields of Dewy v2, so that a mixed fleet reads one another's. What else we know of an
artifact (digest, size) travels beside it as `extra`, which v2 neither reads nor keeps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, Self, TypeAlias

from dewy.errors import ArtifactNotFound, DewyError
from dewy.registry.beside import Beside
from kvcache import LoadContext, Loaded, NotModified, UpstreamUnavailable

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes written so far."""
Now: TypeAlias = Callable[[], datetime]
"""The wall clock, aware."""

FETCH_WITHIN: Final = 3600.0
"""Seconds after which a download is given up, however much of it has come, unless the caller sets a deadline."""
MAX_ARTIFACT: Final = 4 * 2**30
"""Bytes. No artifact beyond it is fetched, unless the caller of `open_registry` says otherwise."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ZERO_YEAR: Final = 1  # Go's zero time: no time at all


class InvalidAnswer(DewyError, ValueError):
    """A shared answer that is no announcement: something else wrote under the key. The next refresh replaces it."""


@dataclass(frozen=True, slots=True)
class Announced:
    """One artifact for this machine, of the newest release."""

    id: str
    """When it was looked up, as `20260501T000000Z`."""
    tag: str
    """The version, exactly as the registry writes it."""
    artifact_url: str
    """Where it is, as v2 writes it: `ghr://owner/repo/tag/v1.2.3/app.tar.gz`. Names it; credentials never follow it."""
    created_at: datetime | None
    slot: str = ""
    digest: str | None = None
    """`sha256:<hex>` where the registry vouches for the bytes."""
    size: int | None = None
    """In bytes."""
    asset: int | None = None
    """The registry's own number for it, where it has one."""
    newest: str = ""
    """A newer version that has no artifact for this machine, so that `--fallback` took this one."""
    digest_from: str | None = None
    """Where the digest came from, if from a checksums file of the release: `<file>@<mark>`, see `checksums`."""

    @property
    def name(self) -> str:
        """The file name: what follows the last slash of the URL, without a query."""
        return self.artifact_url.partition("?")[0].rpartition("/")[2]

    @property
    def key(self) -> str:
        """Under which the artifact is cached: `v1.2.3--app_linux_amd64.tar.gz`."""
        return f"{self.tag}--{self.name}"

    @property
    def edition(self) -> str:
        """What tells it from other bytes under its key: the digest, else the date, as far as anything does."""
        return self.digest or (time_text(self.created_at) if self.created_at is not None else "")

    def to_value(self) -> dict[str, Any]:
        """The fields of Dewy v2, in its order."""
        return {
            "ID": self.id,
            "Tag": self.tag,
            "ArtifactURL": self.artifact_url,
            "CreatedAt": None if self.created_at is None else time_text(self.created_at),
            "Slot": self.slot,
        }

    def extra(self) -> dict[str, Any]:
        """What v2 has no field for."""
        known = {
            "digest": self.digest,
            "size": self.size,
            "asset": self.asset,
            "newest": self.newest or None,
            "digest_from": self.digest_from,
        }
        return {name: value for name, value in known.items() if value is not None}

    @classmethod
    def from_value(cls, value: Any, extra: Any = None) -> Self:
        """An answer out of a record, of ours or of v2's (then without `extra`). InvalidAnswer.

        Names match in any case, as Go's reader has it; what of `extra` is not as it should be is done without.
        """
        fields = {str(name).lower(): field for name, field in value.items()} if isinstance(value, Mapping) else {}
        tag, url = fields.get("tag"), fields.get("artifacturl")
        if not (isinstance(tag, str) and tag and isinstance(url, str) and "://" in url):
            raise InvalidAnswer("the shared answer under this registry's key is no announcement of an artifact")
        more = extra if isinstance(extra, Mapping) else {}
        digest, digest_from = more.get("digest"), more.get("digest_from")
        return cls(
            id=str(fields.get("id") or ""),
            tag=tag,
            artifact_url=url,
            created_at=parse_time(fields.get("createdat")),
            slot=str(fields.get("slot") or ""),
            digest=digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None,
            size=_count(more.get("size")),
            asset=_count(more.get("asset")),
            newest=str(more.get("newest") or ""),
            digest_from=digest_from if isinstance(digest_from, str) else None,
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """The newest release has no artifact for this machine yet, so the answer given is still the last one.

    It travels in an answer's `extra`: such an answer is as fresh as any other, and costs no more to keep so. v2's nodes
    see the last artifact.
    """

    tag: str
    message: str
    release_time: datetime | None

    def to_extra(self) -> dict[str, Any]:
        at = None if self.release_time is None else time_text(self.release_time)
        return {"pending": {"tag": self.tag, "message": self.message, "release_time": at}}

    @classmethod
    def from_extra(cls, extra: Any) -> Self | None:
        """What an answer's `extra` says is pending; None most of the time."""
        pending = extra.get("pending") if isinstance(extra, Mapping) else None
        if not isinstance(pending, Mapping):
            return None
        return cls(str(pending.get("tag")), str(pending.get("message")), parse_time(pending.get("release_time")))

    def error(self) -> ArtifactNotFound:
        """The same as an error."""
        return ArtifactNotFound(self.message, self.release_time)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written: `size` in bytes, `digest` as `sha256:<hex>`."""

    size: int
    digest: str


class Registry(Protocol):
    """Where releases are announced. Safe to use from any number of threads."""

    scope: str
    """What an answer depends on, as a URL: nodes of one scope and platform share answers (see `keys`)."""
    describe: str
    """The registry for logs and errors, without secrets."""

    def current(self, ctx: LoadContext) -> Loaded[dict[str, Any]] | Literal[NotModified.NOT_MODIFIED]:
        """The newest artifact for this machine: a load for `SharedCache.get`.

        The value is that of `Announced.to_value`. Where the newest release has no artifact that fits, the previous
        answer stands, with a `Pending` in `extra`; without a previous answer ArtifactNotFound is raised (see
        `artifact_not_found` for those who get it second-hand). UpstreamError: the registry failed.
        Makes no call that ends later than `ctx.deadline`.
        """

    def fetch(
        self,
        announced: Announced,
        path: str | os.PathLike[str],
        progress: Progress | None = None,
        *,
        deadline: float | None = None,
    ) -> Fetched:
        """Streams the artifact to `path`, which appears whole and checked or not at all; nobody else may write there.

        Its length and digest are those announced, as far as they are known; memory stays flat. `deadline` is on the
        clock of `time.monotonic()`; None: FETCH_WITHIN from now. UpstreamError: it failed, or the bytes are wrong.
        """

    def beside(self, announced: Announced, *, deadline: float) -> AbstractContextManager[Beside]:
        """The other files of its release, to be read inside the `with`. UpstreamError."""

    def report(self, announced: Announced, command: str) -> None:
        """Tells the registry that this host has deployed it, where there is a way to; once for each release and
        command, since what it leaves there stays. UpstreamError."""

    def close(self) -> None:
        """Gives back connections."""


def published(found: Announced | Pending, ctx: LoadContext, validator: Any = None) -> Loaded[dict[str, Any]]:
    """What `current` returns for what it found. ArtifactNotFound: only a pending release, and nothing before it."""
    if isinstance(found, Announced):
        return Loaded(found.to_value(), validator, found.extra() or None)
    last = previous_answer(ctx)
    if last is None:
        raise found.error()
    return Loaded(ctx.previous, validator, last.extra() | found.to_extra())


def previous_answer(ctx: LoadContext) -> Announced | None:
    """The answer that this load is to replace, if there is one that can be read."""
    try:
        return None if ctx.previous is None else Announced.from_value(ctx.previous, ctx.extra)
    except InvalidAnswer:
        return None


def artifact_pending(name: str, tag: str, release_time: datetime | None, what: str = "artifact") -> Pending:
    """A release without the artifact `name` ("" where none was asked for by name), or without what belongs to it.

    Its message begins like v2's.
    """
    when = "" if release_time is None else f", published {time_text(release_time)}"
    return Pending(tag, f"{what} not found: {name or 'none for this platform'} (release {tag}{when})", release_time)


_PUBLISHED: Final = re.compile(r", published (\S+)\)$")


def artifact_not_found(error: UpstreamUnavailable) -> ArtifactNotFound | None:
    """ArtifactNotFound out of the failure that a leader, here or on another node, recorded; None for other failures."""
    if error.kind != ArtifactNotFound.__name__:
        return None
    when = _PUBLISHED.search(error.failure)
    return ArtifactNotFound(error.failure, parse_time(when[1]) if when else None)


# -- forms that v2 reads ----------------------------------------------------------------------------------------------


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, without trailing zeros in the fraction: `2026-05-01T00:00:00.12Z`."""
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def parse_time(text: Any) -> datetime | None:
    """An RFC 3339 time, aware; None for Go's zero time and for whatever is no time."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None or moment.year <= _ZERO_YEAR else moment


def answer_id(now: datetime) -> str:
    """The ID of an answer: `20260501T000000Z`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def report_name(text: str) -> str:
    """The name of the file that a report becomes: `shipped_to_web-1_server_at_20260501T000000.000000000Z.txt`."""
    return f"{text.replace(' ', '_')}.txt"


def report_start(text: str) -> str:
    """How the names of all reports of one host and command begin."""
    return f"{text.rpartition(' ')[0]} ".replace(" ", "_")


def report_text(hostname: str, command: str, now: datetime) -> str:
    """What v2 writes of a deployment: `shipped to web-1 server at 20260501T000000.000000000Z`."""
    at = now.astimezone(UTC)
    return f"shipped to {hostname.lower()} {command} at {at:%Y%m%dT%H%M%S}.{at.microsecond * 1000:09d}Z"


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
