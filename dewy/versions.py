"""The order of version names: semantic versions and calendar versions, as Dewy v2 reads them. Pure.

A name is kept as it is written, since a tag, a directory or a key is looked up by its exact text; what is read out of
it serves for comparison alone. Build metadata (`+blue`) has no part in the order: it names the *slot* of a release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import total_ordering
from typing import Final, TypeAlias

Identifier: TypeAlias = tuple[int, int, str]
"""One dot-separated part of a pre-release: (0, number, "") or (1, 0, text), so that numbers come before words."""
Order: TypeAlias = tuple[tuple[int, ...], int, tuple[Identifier, ...]]
"""(segments, 0 for a pre-release or 1, identifiers of the pre-release)."""

_NUMBER: Final = r"[0-9]{1,255}"  # no name of a tag or file is longer, and Python refuses to read numbers far beyond
_SUFFIX: Final = r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+(?P<build>[0-9A-Za-z.-]+))?"
_SEMVER: Final = re.compile(rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER}){_SUFFIX}")
_DIGITS: Final = re.compile(_NUMBER)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version name that was understood. Equal and ordered by precedence, so `1.0.0+a == v1.0.0+b`."""

    text: str
    """The name exactly as it was given."""
    pre_release: str | None
    build: str | None
    order: Order = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.order == other.order

    def __lt__(self, other: Version) -> bool:
        return self.order < other.order

    def __hash__(self) -> int:
        return hash(self.order)


def parse_semver(text: str) -> Version | None:
    """A semantic version: `1.2.3`, `v1.2.3-rc.1+build.5`. Leading zeros are tolerated. None for anything else."""
    return _version(text, _SEMVER.fullmatch(text))


# Longest specifiers first where one begins with another; the order in which a format is read.
_SEGMENTS: Final = {
    "YYYY": "[0-9]{4}",
    "0Y": "[0-9]{2,3}",
    "YY": "[0-9]{1,3}",
    "0M": "[0-9]{2}",
    "MM": "[0-9]{1,2}",
    "0W": "[0-9]{2}",
    "WW": "[0-9]{1,2}",
    "0D": "[0-9]{2}",
    "DD": "[0-9]{1,2}",
    "MICRO": _NUMBER,
}
_SPECIFIER: Final = re.compile("|".join(_SEGMENTS))


class InvalidFormat(ValueError):
    """A CalVer format without any specifier. The message names it and what was expected, on one line."""


class CalVer:
    """A calendar version format such as `YYYY.0M.MICRO`: specifiers, and between them literal text.

    InvalidFormat: `text` is empty or has no specifier.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise InvalidFormat("calver format is empty")
        if not _SPECIFIER.search(text):
            expected = ", ".join(_SEGMENTS)
            raise InvalidFormat(f"calver format {text!r} contains no valid specifiers (expected {expected})")
        self.text = text
        pattern, end = "v?", 0
        for found in _SPECIFIER.finditer(text):
            pattern += f"{re.escape(text[end : found.start()])}({_SEGMENTS[found[0]]})"
            end = found.end()
        self._pattern = re.compile(f"{pattern}{re.escape(text[end:])}{_SUFFIX}")

    def parse(self, text: str) -> Version | None:
        """The version in `text`, or None where it does not have this format."""
        return _version(text, self._pattern.fullmatch(text))

    def __repr__(self) -> str:
        return f"CalVer({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CalVer) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def ranked(names: Iterable[str], *, pre_release: bool = False, calver: CalVer | None = None) -> list[Version]:
    """The versions among `names`, the newest first; equal ones stay in the order in which they were given.

    Names that are no version (of the format `calver`, or else semantic) do not count, and pre-releases only where
    `pre_release` asks for them.
    """
    read = calver.parse if calver else parse_semver
    versions = [version for version in map(read, names) if version is not None]
    return sorted((v for v in versions if pre_release or v.pre_release is None), reverse=True)


def slot(name: str, calver: CalVer | None = None) -> str:
    """The build metadata of a version name (`blue` of `v1.2.3+blue`), or "". A `calver` format is tried first."""
    version = (calver.parse(name) if calver else None) or parse_semver(name)
    return (version.build or "") if version else ""


def _version(text: str, match: re.Match[str] | None) -> Version | None:
    if match is None:
        return None
    segments = tuple(int(match[index]) for index in range(1, match.re.groups - 1))  # the last two are the suffix
    pre: str | None = match["pre"]
    identifiers = tuple(map(_identifier, pre.split("."))) if pre is not None else ()
    return Version(text, pre, match["build"], (segments, 0 if pre is not None else 1, identifiers))


def _identifier(text: str) -> Identifier:
    return (0, int(text), "") if _DIGITS.fullmatch(text) else (1, 0, text)
