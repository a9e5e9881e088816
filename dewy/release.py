"""Releases on disk: unpacked beside one another, one of them current.

    ROOT/current -> ROOT/releases/20261124T225300Z      switched by renaming a new link over the old one
    ROOT/releases/20261124T225300Z/                     one release, whole: nothing but what its artifact holds
    ROOT/releases/.20261124T225300Z.json                its marker: which artifact that is
    ROOT/releases/.tmp-XXXXXXXX/                        a release being made, locked by its maker, or one being removed
    ROOT/releases/.lock                                 held while names above are changed, never while unpacking

What is deployed is read from here: the marker of the release that `current` points to. A process may be killed at any
step: a release gets its name only when it is whole and durable, after its marker; what a dead process left behind is
told from a live one's by its lock, which dies with its process, and is swept before the next release is made.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dewy.archive import Limits, extract
from dewy.archive.writer import sync_directory
from dewy.errors import DeployError
from dewy.lockfile import is_held, open_lock, try_lock

KEEP = 7
"""Releases that are kept, the live one among them."""
PATIENCE = 10.0
"""Seconds to wait for another process that changes names; it takes milliseconds unless it is stopped."""

_STAMP = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d{3}))?")
_MAKING = ".tmp-"


@dataclass(frozen=True, slots=True)
class Info:
    """Which artifact a release is made of: its key in the cache, the version's tag, the digest of its file
    (`sha256:<hex>`, or empty) and its size in bytes, None where the marker is of a time when none was written."""

    key: str
    tag: str
    digest: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """One whole release. `info` and `made` are None where no marker tells: it was made by Dewy v2, or by hand."""

    id: str
    path: Path
    info: Info | None = None
    made: datetime | None = None


def utc_now() -> datetime:
    """The time of this host."""
    return datetime.now(UTC)


class Releases:
    """The releases below one root. Any number of these, in any number of processes, may be used at a time.

    Every method raises DeployError, in one line, where the disk or its state is at fault.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        keep: int = KEEP,
        limits: Limits | None = None,
        now: Callable[[], datetime] = utc_now,
        patience: float = PATIENCE,
    ) -> None:
        # Resolved once: the links that are made stay right if the process changes directory, or a link to root moves.
        self.root = Path(root).resolve()
        self.directory = self.root / "releases"
        self.current = self.root / "current"
        self._link_in_making = self.root / "current.tmp"  # v2's name for it, so that one it left is tidied up too
        self._keep = keep
        self._limits = limits
        self._now = now
        self._patience = patience

    def all(self) -> list[Release]:
        """Every whole release, oldest first."""
        return [self._read(id) for id in self._ids()]

    def deployed(self) -> Release | None:
        """The release that `current` points to; None if there is none, or it points elsewhere."""
        id = self._live()
        return None if id is None else self._read(id)

    def last_good(self, good: Sequence[str]) -> Release | None:
        """Of the releases whose ids are `good`, in the order of their service: the last that is there and not live."""
        ids, live = set(self._ids()), self._live()
        return next((self._read(id) for id in reversed(good) if id in ids and id != live), None)

    def find(self, tag: str) -> Release | None:
        """The newest release of a tag, or the one of this id; None: none is on this disk."""
        return next((one for one in reversed(self.all()) if tag in (one.id, one.info and one.info.tag)), None)

    def prepare(self, artifact: Path, name: str, info: Info) -> Release:
        """Unpacks an artifact as a new release, durable but not yet current. `name` tells its format.

        Raises UnsafeArchive and BadArchive, and DeployError for the disk's faults; then nothing new stays on disk.
        """
        self.sweep()
        self.prune()  # where one deploy after another is killed, none comes to prune what they made
        with _failing(f"cannot unpack {name}"), self._making() as making:
            extract(artifact, making / "tree", name=name, limits=self._limits)
            made = self._now()
            _write_marker(making / "marker", info, made)
            with self._names():
                id = next_id(made, self._ids())
                # The marker first, so that no release is ever without one; alone it is litter that `sweep` removes.
                (making / "marker").rename(self._marker(id))
                (making / "tree").rename(self.directory / id)
                sync_directory(self.directory)
        return Release(id, self.directory / id, info, made)

    def switch(self, release: Release) -> Release | None:
        """Makes a release the current one, atomically and durably. Returns the one that was."""
        with _failing(f"cannot switch to {release.id}"), self._names():
            before = self._live()
            self._link(release.id)
        return None if before is None else self._read(before)

    def roll_back(self, failed: Release, to: Release | None) -> bool:
        """Leaves `failed` for an earlier release, or for none, and removes it.

        Whether it was current: where it was not (any more), an operator has switched meanwhile, and that stands.
        """
        with _failing("cannot roll back"):
            with self._names():
                was_live = self._live() == failed.id
                if was_live and to is not None:
                    self._link(to.id)
                elif was_live:
                    self.current.unlink()
                    sync_directory(self.root)
            self._remove(lambda ids, live: [id for id in ids if id == failed.id != live])
        return was_live

    def discard(self, release: Release) -> None:
        """Removes a release that was never switched to, or is no more needed. The live one is refused."""

        def choose(ids: Sequence[str], live: str | None) -> Sequence[str]:
            if release.id == live:
                raise DeployError(f"release {live} is live: switch to another one first")
            return [id for id in ids if id == release.id]

        with _failing(f"cannot remove {release.id}"):
            self._remove(choose)

    def prune(self, keep: int | None = None) -> list[str]:
        """Removes the oldest releases beyond `keep`, never the live one, nor the one just before it.

        Returns the ids of what was removed, oldest first.
        """
        most = self._keep if keep is None else keep
        with _failing("cannot remove old releases"):
            return self._remove(lambda ids, live: sorted(set(ids) - kept(ids, live, most)))

    def sweep(self) -> None:
        """Removes what dead processes left half done. What a live one is making is left alone."""
        with _failing("cannot tidy up"):
            with self._names():
                dead = [path for path in self.directory.glob(_MAKING + "*") if not is_held(path / "lock")]
                for marker in self.directory.glob(".*.json"):
                    if not (self.directory / marker.name[1:-5]).is_dir():
                        marker.unlink(missing_ok=True)
                if self._link_in_making.is_symlink():
                    self._link_in_making.unlink()
            # Nobody comes back to a dead process's directory, so its removal, which takes time, needs no lock.
            for path in dead:
                shutil.rmtree(path, ignore_errors=True)

    def _remove(self, choose: Callable[[Sequence[str], str | None], Sequence[str]]) -> list[str]:
        """Removes what `choose` picks from the ids and the live one. A release loses its name in one step."""
        if not choose(self._ids(), self._live()):
            return []
        with self._making() as trash:
            with self._names():
                victims = list(choose(self._ids(), self._live()))
                for id in victims:
                    (self.directory / id).rename(trash / id)
                    self._marker(id).unlink(missing_ok=True)
            return victims

    def _link(self, id: str) -> None:
        """Points `current` to a release. Only ever replaces a link: a directory there is somebody's work."""
        target = self.directory / id
        if not target.is_dir():
            raise DeployError(f"release {id} is gone")
        for path in (self.current, self._link_in_making):
            if path.exists() and not path.is_symlink():
                raise DeployError(f"{path} is in the way: it is no link to a release. Move it elsewhere")
        self._link_in_making.unlink(missing_ok=True)
        self._link_in_making.symlink_to(target)
        self._link_in_making.rename(self.current)
        sync_directory(self.root)

    def _live(self) -> str | None:
        """The id that `current` points to, if that is a directory among ours."""
        if not self.current.is_symlink():
            return None
        path = self.current.resolve()
        return path.name if path.parent == self.directory.resolve() and path.is_dir() else None

    def _ids(self) -> list[str]:
        """Ids of the whole releases, oldest first. Whatever else an operator keeps there is not looked at."""
        if not self.directory.is_dir():
            return []
        with os.scandir(self.directory) as entries:
            return sorted(e.name for e in entries if _ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False))

    def _marker(self, id: str) -> Path:
        return self.directory / f".{id}.json"

    def _read(self, id: str) -> Release:
        path = self.directory / id
        try:
            marker = json.loads(self._marker(id).read_bytes())
            info = Info(str(marker["key"]), str(marker["tag"]), str(marker["digest"]), _size(marker.get("size")))
            return Release(id, path, info, datetime.fromisoformat(marker["made"]))
        except (OSError, ValueError, LookupError, TypeError):
            # Without a readable marker it is a release of unknown content: it can run, and will be deployed over.
            return Release(id, path)

    @contextlib.contextmanager
    def _making(self) -> Iterator[Path]:
        """A directory of this process alone, for as long as it lives: others see its lock and leave it."""
        making = self.directory / (_MAKING + secrets.token_hex(8))
        with contextlib.ExitStack() as stack:
            with self._names():  # so that no sweep comes between the directory and its lock
                making.mkdir(mode=0o700)
                stack.callback(shutil.rmtree, making, ignore_errors=True)
                fd = stack.enter_context(open_lock(making / "lock"))
                try_lock(fd)  # nobody else knows its name yet
            yield making

    @contextlib.contextmanager
    def _names(self) -> Iterator[None]:
        """Holds the lock under which names of releases, markers and links change, in any process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open_lock(self.directory / ".lock") as fd:
            deadline = time.monotonic() + self._patience
            while not try_lock(fd):
                if time.monotonic() >= deadline:
                    raise DeployError(f"another process has been changing {self.directory} for {self._patience:g}s")
                time.sleep(0.02)
            yield


def next_id(now: datetime, taken: Sequence[str]) -> str:
    """The id of a release made now: later than every one taken, even where the clock has stepped back."""
    stamp = now.astimezone(UTC).strftime(_STAMP)
    newest = max(taken, default="")
    if stamp > newest:
        return stamp
    match = _ID.fullmatch(newest)
    if match is None:
        raise ValueError(f"no release id: {newest!r}")
    base, count = match[1], int(match[2] or "1") + 1
    if count <= 999:
        return f"{base}-{count:03}"
    following = datetime.strptime(base, _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
    return following.strftime(_STAMP)


def kept(ids: Sequence[str], live: str | None, keep: int) -> set[str]:
    """Which of the ids, oldest first, are kept: the newest up to `keep` in all, but first of all the live one and the
    one before it, which may still be finishing its requests and is what a failed deploy rolls back to."""
    at = ids.index(live) if live in ids else None
    result = set() if at is None else set(ids[max(at - 1, 0) : at + 1])
    for id in reversed(ids):
        if len(result) >= keep:
            break
        result.add(id)
    return result


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turns the disk's errors into one line of ours."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise DeployError(f"{what}: {error.strerror or error}{where}") from error


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _write_marker(path: Path, info: Info, made: datetime) -> None:
    """Writes a marker durably."""
    known = {"key": info.key, "tag": info.tag, "digest": info.digest, "size": info.size}
    marker = {"format": 1, **known, "made": made.isoformat()}
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(marker, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
