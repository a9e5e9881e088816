"""What an archive may hold: the decision, entry by entry. Pure: it knows names and kinds, no file system.

`Tree` is the directory as it will be once everything admitted so far is in place. Entries are placed in a fresh
private directory that nobody else writes to, so what the tree says is what the disk holds, and no check can be
overtaken by a change on disk. Two rules carry the safety:

* an entry is placed only below directories, never below (through) a link or a file;
* symbolic links are placed last, when the tree is complete, and only if following them - through every other
  link of the tree, as the kernel would - never climbs above its root.
"""

from __future__ import annotations

import enum
import os
import re
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from dewy.archive.limits import Limits
from dewy.errors import UnsafeArchive

MAX_HOPS = 40
"""Links that one path may lead through; the kernel of Linux gives up after as many."""

SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_DRIVE = re.compile(r"[A-Za-z]:")


class Kind(enum.Enum):
    """The kinds of entry that are placed at all; devices, FIFOs and sockets are refused where they are read."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the archive tells it; nothing of it is trusted yet."""

    name: str
    kind: Kind
    mode: int = 0o644
    """Permission bits; of a symbolic link they mean nothing."""
    size: int = 0
    mtime: float | None = None
    """Seconds since the Unix epoch, or None where the archive does not tell."""
    target: str = ""
    """Where a link leads: relative to its own directory if symbolic, to the archive's root if hard."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Where an entry goes: `path` relative to the root ("" is the root itself), and the directories to make first."""

    path: str
    parents: tuple[str, ...] = ()
    target: str = ""


def exact(name: str) -> str:
    """The key of a name on a file system that tells every two names apart."""
    return name


def folded(name: str) -> str:
    """The key of a name on a file system that ignores case and Unicode normal form, as those of macOS do."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def split(name: str, limits: Limits) -> list[str]:
    """The components of an entry's name, or UnsafeArchive if it could mean a place outside of the archive's root."""

    def refuse(why: str) -> UnsafeArchive:
        return UnsafeArchive(why, entry=name)

    if "\0" in name:
        raise refuse("NUL in a name")
    if name.startswith("/"):
        raise refuse("absolute path")
    if "\\" in name:
        raise refuse("backslash in a name")
    if _DRIVE.match(name):
        raise refuse("drive letter in a name")
    parts = [part for part in name.split("/") if part and part != "."]
    if ".." in parts:
        raise refuse("path traversal")
    if len(parts) > limits.depth:
        raise refuse(f"deeper than {limits.depth} directories")
    try:
        lengths = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        raise refuse("a name that this system cannot write") from None
    if lengths and max(lengths) > limits.component:
        raise refuse(f"a name longer than {limits.component} bytes")
    if sum(lengths) + len(lengths) > limits.path:
        raise refuse(f"a path longer than {limits.path} bytes")
    return parts


class Tree:
    """The names that were admitted so far. `key` tells which names the file system takes for one."""

    def __init__(self, limits: Limits, key: Callable[[str], str] = exact) -> None:
        self._limits = limits
        self._key = key
        self._nodes: dict[str, Kind] = {"": Kind.DIRECTORY}
        self._links: dict[str, tuple[str, Entry]] = {}

    def admit(self, entry: Entry) -> Admitted:
        """Decides on one entry: where to place it, or UnsafeArchive. An admitted name is taken from then on."""
        parts = split(entry.name, self._limits)
        if entry.mode & SPECIAL_BITS and entry.kind is not Kind.SYMLINK:
            raise UnsafeArchive("setuid, setgid or sticky bit", entry=entry.name)
        if entry.size < 0:
            raise UnsafeArchive("negative size", entry=entry.name)
        if not parts:
            if entry.kind is Kind.DIRECTORY:
                return Admitted("")
            raise UnsafeArchive(f"a {entry.kind.value} in place of the archive's root", entry=entry.name)
        if entry.kind is not Kind.DIRECTORY and entry.name.endswith(("/", "/.")):
            raise UnsafeArchive(f"a {entry.kind.value} with the name of a directory", entry=entry.name)

        parents = self._enter(parts[:-1], entry)
        path = "/".join(parts)
        key = self._key(path)
        standing = self._nodes.get(key)
        if standing is not None and not (standing is entry.kind is Kind.DIRECTORY):
            raise UnsafeArchive(f"duplicate name (of a {standing.value})", entry=entry.name)
        target = ""
        if entry.kind is Kind.HARDLINK:
            target = self._hard_link_target(entry)
        elif entry.kind is Kind.SYMLINK:
            self._check_target(entry)
            self._links[key] = (path, entry)
        self._nodes[key] = entry.kind
        return Admitted(path, parents, target)

    def symlinks(self) -> list[tuple[str, Entry]]:
        """Every symbolic link and its path, to be placed now that all else is; UnsafeArchive if one leaves."""
        for path, entry in self._links.values():
            self._follow(path, entry)
        return list(self._links.values())

    def _enter(self, parents: list[str], entry: Entry) -> tuple[str, ...]:
        """The directories above an entry that are not there yet, outermost first. None of them may be anything else."""
        missing: list[str] = []
        for depth in range(len(parents), 0, -1):
            path = "/".join(parents[:depth])
            standing = self._nodes.get(self._key(path))
            if standing is Kind.DIRECTORY:
                break
            if standing is Kind.SYMLINK:
                raise UnsafeArchive("would be written through a symbolic link", entry=entry.name)
            if standing is not None:
                raise UnsafeArchive("a file where a directory is needed", entry=entry.name)
            missing.append(path)
        for path in missing:
            self._nodes[self._key(path)] = Kind.DIRECTORY
        missing.reverse()
        return tuple(missing)

    def _hard_link_target(self, entry: Entry) -> str:
        """The file an admitted hard link names. Names below a link are never nodes, so a lookup is the whole check."""
        try:
            target = "/".join(split(entry.target, self._limits))
        except UnsafeArchive as error:
            raise UnsafeArchive(f"hard link that leaves the directory ({error})", entry=entry.name) from error
        if self._nodes.get(self._key(target)) not in (Kind.FILE, Kind.HARDLINK):
            raise UnsafeArchive("hard link to what is no file of this archive before it", entry=entry.name)
        return target

    def _check_target(self, entry: Entry) -> None:
        """What can be said of a symbolic link before the tree is complete."""
        target = entry.target
        if not target or "\0" in target or "\\" in target or _DRIVE.match(target):
            raise UnsafeArchive("symbolic link with a malformed target", entry=entry.name)
        if target.startswith("/"):
            raise UnsafeArchive("symbolic link that leaves the directory", entry=entry.name)
        try:
            length = len(os.fsencode(target))
        except UnicodeEncodeError:
            raise UnsafeArchive("symbolic link with a target that this system cannot write", entry=entry.name) from None
        if length > self._limits.path:
            raise UnsafeArchive(f"symbolic link with a target longer than {self._limits.path} bytes", entry=entry.name)

    def _follow(self, path: str, entry: Entry) -> None:
        """Walks a link as the kernel would. What does not exist counts as a directory, so it cannot hide a climb."""
        here = path.split("/")[:-1]
        todo = entry.target.split("/")[::-1]
        hops = 1
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    raise UnsafeArchive("symbolic link that leaves the directory", entry=entry.name)
                here.pop()
                continue
            here.append(part)
            through = self._links.get(self._key("/".join(here)))
            if through is not None:
                hops += 1
                # Counted over the whole walk: links to links to links double the length of a walk with each one.
                if hops > MAX_HOPS:
                    raise UnsafeArchive("symbolic link that leads through too many others", entry=entry.name)
                here.pop()
                todo.extend(through[1].target.split("/")[::-1])
