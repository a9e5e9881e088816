"""Every error that dewy raises to its own callers. What the store raises stands in `kvcache.errors`.

    DewyError
    ├── ConfigError            wrong usage or configuration; correct it. Found before anything starts; exit code 2
    ├── ArtifactNotFound       the newest release has no artifact for this machine (yet); a later tick may find it
    ├── ArchiveError           the artifact cannot be unpacked; nothing of it was left on disk
    │   ├── UnsafeArchive      an entry, or the whole archive, breaks the policy of `dewy.archive`; names the entry
    │   └── BadArchive         truncated, corrupt, encrypted, or of a kind that this host cannot read
    ├── Untrusted              the artifact is not signed by whom it has to be; nothing of it was deployed
    ├── DeployError            this release could not be put in place; the old one is still the current one
    └── StartFailed            the new release did not come up; the old one is still running

All but ConfigError belong to one tick: it is reported, the old release goes on, and the next try follows a back-off.
"""

from __future__ import annotations

from datetime import datetime


class DewyError(Exception):
    """Base of every error of dewy. `str(error)` is one line, fit for a log or a notification, free of secrets."""


class ConfigError(DewyError, ValueError):
    """Wrong usage or configuration. One line that names the part, the value and the accepted form; exit code 2."""


class ArtifactNotFound(DewyError, LookupError):
    """No artifact of the release fits this machine.

    `release_time` is when the release was published (aware, UTC), or None where the registry does not tell: within
    the grace that follows it the artifact may still be on its way, so this is news rather than a failure.
    """

    def __init__(self, message: str, release_time: datetime | None = None) -> None:
        super().__init__(message)
        self.release_time = release_time


class ArchiveError(DewyError):
    """An artifact could not be unpacked. Nothing of it is left on disk; the same bytes will fail again.

    `entry` is the name of the offending entry as it stands in the archive, or None where it is no single entry.
    """

    def __init__(self, message: str, *, entry: str | None = None) -> None:
        super().__init__(message if entry is None else f"{message}: {printable(entry)}")
        self.entry = entry


class UnsafeArchive(ArchiveError):
    """An entry, or the archive as a whole, breaks the policy: it would leave the directory, or exceed a limit."""


class BadArchive(ArchiveError):
    """The archive is truncated, corrupt or encrypted, or its format cannot be read."""


class Untrusted(DewyError):
    """An artifact whose signature is wrong, or does not fit it. Nothing of it was unpacked."""


class DeployError(DewyError):
    """A release could not be put in place or switched to. The release that was current still is."""


class StartFailed(DewyError):
    """The new release was started and did not come up. The old one was not told to stop.

    `host`: it was not even executed, for want of something that is no part of it (processes, descriptors, memory).
    """

    def __init__(self, message: str, *, host: bool = False) -> None:
        super().__init__(message)
        self.host = host


def printable(name: str, limit: int = 200) -> str:
    """A hostile name on one line of log: quoted where it holds control or other unprintable characters, and cut."""
    shown = name if len(name) <= limit else name[:limit] + "…"
    return shown if shown.isprintable() and shown == shown.strip() and shown else ascii(shown)
