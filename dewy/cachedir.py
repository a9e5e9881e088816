"""This node's cache directory: which one it is, and what this application may call its own in it.

    <directory>/current                      names the artifact that runs, for people: `v1.2.3--app_linux_amd64.tar.gz`
    <directory>/v1.2.3--app...tar.gz         artifacts: the local copy of the shared store
    <directory>/.dewy/owner                  the application that was here first; the two lines above are its
    <directory>/apps/<id>/current            the same two for every other application
    <directory>/apps/<id>/v1.2.3--app...tar.gz

Nothing here is ever read to decide what is deployed: a release says that itself.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "DEWY_CACHEDIR"
DEFAULT: Final = Path(".dewy", "cache")
OWNER: Final = Path(".dewy", "owner")


@dataclass(frozen=True, slots=True)
class CacheDir:
    """`path` exists and can be written. `problem` says in one line why it is not the one that was wanted."""

    path: Path
    problem: str | None = None


def choose(env: Mapping[str, str], cwd: Path) -> CacheDir:
    """`DEWY_CACHEDIR`, else `.dewy/cache` under `cwd`; where that cannot be used, a new temporary directory."""
    wanted = cwd / (env.get(VARIABLE) or DEFAULT)
    problem = make_usable(wanted)
    if problem is None:
        return CacheDir(wanted)
    return CacheDir(Path(tempfile.mkdtemp(prefix="dewy-")), problem)


def make_usable(directory: Path) -> str | None:
    """Creates the directory and proves by writing that it can be used; else one line with what to type."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"{directory}: {os.strerror(error.errno or errno.EIO).lower()}{_remedy(directory, error)}"


def _remedy(directory: Path, error: OSError) -> str:
    place = shlex.quote(str(directory))
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"; sudo mkdir -p {place} && sudo chown -R {_user_and_group()} {place} && sudo chmod 755 {place}"
        case errno.ENOSPC | errno.EDQUOT:
            return f"; make room: df -h {place}"
        case errno.EROFS:
            return f"; mount it for writing: findmnt -T {place}"
        case errno.ENOTDIR | errno.EEXIST:
            return f"; a file is in the way: ls -ld {place}"
        case _:
            return ""


def _user_and_group() -> str:
    uid, gid = os.geteuid(), os.getegid()
    user, group = str(uid), str(gid)
    with contextlib.suppress(KeyError):  # a container's user need not have a name
        user = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return f"{user}:{group}"


# -- what is whose ----------------------------------------------------------------------------------------------------


def short_hash(*parts: str) -> str:
    """16 hexadecimal digits that tell `parts` from others."""
    return hashlib.sha256("|".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Place:
    """What one application may call its own in a cache directory."""

    current: Path
    """The file that names the running artifact."""
    artifact_prefix: str
    """Put before `<tag>--<name>` in this directory; empty for the application that was here first."""

    def write_current(self, artifact_key: str) -> None:
        """Replaces the file in one step, without a newline. OSError."""
        self.current.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.current.with_name(f".{self.current.name}.{os.getpid()}")
        try:
            temporary.write_text(artifact_key, encoding="utf-8")
            temporary.replace(self.current)
        finally:
            temporary.unlink(missing_ok=True)


def place_of(directory: Path, scope: str, root: Path) -> Place:
    """The place of the application that deploys `scope` (a registry's) under `root`.

    Who comes first owns the names at the top, for good. Artifacts depend on the scope alone, so that two applications
    that deploy the same one share them. OSError.
    """
    application, source = short_hash(scope, str(root)), short_hash(scope)
    owning_application, owning_source = _owner(directory, application, source)
    top = directory if application == owning_application else directory / "apps" / application
    return Place(top / "current", "" if source == owning_source else f"apps/{source}/")


def _owner(directory: Path, application: str, source: str) -> tuple[str, str]:
    """Who owns the directory; becomes its owner if nobody does."""
    path = directory / OWNER
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = path.with_name(f"owner.{os.getpid()}.{application}")
    claim.write_text(f"{application} {source}", encoding="ascii")
    # A link fails where something is, and brings the content with it: of two that start together exactly one wins.
    # On the rare file system without links nobody owns the top, which is safe.
    with contextlib.suppress(OSError):
        os.link(claim, path)
    claim.unlink()
    with contextlib.suppress(FileNotFoundError):
        match path.read_text(encoding="ascii", errors="replace").split():
            case [owning_application, owning_source]:
                return owning_application, owning_source
    return "", ""
