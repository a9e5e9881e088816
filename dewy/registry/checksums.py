"""SHA-256 checksums that a release carries in a file of its own, for registries that know no digest themselves.

    app.tar.gz.sha256, app.tar.gz.sha256sum         of one artifact
    SHA256SUMS, SHASUMS256.txt, sha256sums.txt      of the whole release
    checksums.txt, app_1.2.3_checksums.txt, ...

in the formats of `sha256sum` (text or binary, with escaped names) and of BSD, and a digest alone in a file of one
artifact. A checksum proves that an artifact is what was published, as far as nobody replaced both; who wants more than
that signs (`dewy.registry.signatures`).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from dewy.registry.base import Announced, Pending, artifact_pending
from dewy.registry.beside import Beside
from dewy.registry.keys import CHECKSUMS, with_parameter
from kvcache import UpstreamError

Mode: TypeAlias = Literal["auto", "require", "off"]
"""auto: where the registry knows no digest and the release has a checksums file. require: nothing without a checksum
in such a file, which must agree with the registry's digest. off: never."""

LIMIT: Final = 4 * 2**20
"""Bytes of a checksums file: tens of thousands of lines."""
MOST_FILES: Final = 3
"""Most checksums files of a release that are read in search of an artifact."""

_OF_ONE: Final = (".sha256", ".sha256sum", ".sha256.txt", ".sha256sum.txt")
_OF_ALL: Final = re.compile(
    r"(?:.*[._-])?(?:sha256-?sums?|shasums?-?256|checksums?|sha256[._-]checksums?|checksums?[._-]sha256)(?:\.txt)?",
    re.IGNORECASE,
)
_GNU: Final = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9A-Fa-f]{64})(?: [ *]|\t+)(?P<name>.+)")
_BSD: Final = re.compile(r"(?P<escaped>\\?)SHA(?:2-)?256 ?\((?P<name>.+)\) ?= ?(?P<digest>[0-9A-Fa-f]{64})")
_ALONE: Final = re.compile(r"[0-9A-Fa-f]{64}")
_ESCAPE: Final = re.compile(r"\\([\\nr])")
_ESCAPED: Final = {"\\": "\\", "n": "\n", "r": "\r"}


class NoChecksum(UpstreamError):
    """The release has no checksum of the artifact, which was required."""


def vouched(announced: Announced, beside: Beside, mode: Mode, last: Announced | None = None) -> Announced:
    """`announced` with the digest that its release's checksums file gives, where `mode` asks for that.

    `last` was announced before: what it took from a file that has not changed since is not read again. NoChecksum;
    UpstreamError: a file that is there cannot be read, or contradicts itself or the registry.
    """
    if not is_wanted(announced, mode):
        return announced
    for file in checksum_files(announced.name, beside.names)[:MOST_FILES]:
        source = f"{file}@{beside.mark(file)}"
        if last is not None and last.digest_from == source and _is_same(announced, last):
            digest = last.digest
        else:
            digest = digest_of(announced.name, beside.read(file, LIMIT), file)
        if digest is None:
            continue
        if announced.digest not in (None, digest):
            raise UpstreamError(
                f"{announced.name}: {file} of release {announced.tag} says {digest}, the registry {announced.digest}"
            )
        return replace(announced, digest=digest, digest_from=source)
    if mode == "require":
        raise NoChecksum(f"no SHA-256 checksum of {announced.name} in release {announced.tag}")
    return announced


def is_wanted(announced: Announced, mode: Mode) -> bool:
    """Whether a checksums file has to be looked for. Pure."""
    return (mode == "auto" and announced.digest is None) or (mode == "require" and announced.digest_from is None)


def vouched_or_pending(announced: Announced, beside: Beside, mode: Mode, last: Announced | None) -> Announced | Pending:
    """As `vouched`; where a required checksum is missing, its upload may still run."""
    try:
        return vouched(announced, beside, mode, last)
    except NoChecksum:
        return artifact_pending(announced.name, announced.tag, announced.created_at, "checksum")


def with_mode(scope: str, mode: Mode) -> str:
    """The scope of the nodes that share answers: in another mode than most, an answer may be another one."""
    return scope if mode == "auto" else with_parameter(scope, CHECKSUMS, mode)


def checksum_files(artifact: str, names: Sequence[str]) -> list[str]:
    """The files that may tell an artifact's checksum, the likeliest first. Pure."""
    own = [name for suffix in _OF_ONE for name in names if name.lower() == f"{artifact}{suffix}".lower()]
    common = [name for name in names if name != artifact and name not in own and _OF_ALL.fullmatch(name)]
    return own + sorted(common, key=lambda name: ("256" not in name, len(name), name))


def digest_of(artifact: str, data: bytes, file: str) -> str | None:
    """`sha256:<hex>` of an artifact, by the checksums file `file` with these bytes. None: it does not tell. Pure.

    UpstreamError: it gives two.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes what it is told to redirect
        text = data.decode("utf-16", "replace")
    else:
        text = data.decode("utf-8-sig", "surrogateescape")
    found = {digest.lower() for name, digest in _lines(text) if _base(name) == artifact}
    if not found and file.lower().startswith(artifact.lower()) and _ALONE.fullmatch(text.strip()):
        found = {text.strip().lower()}
    if len(found) > 1:
        raise UpstreamError(f"{file}: more than one SHA-256 checksum of {artifact}")
    return f"sha256:{found.pop()}" if found else None


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """(name, digest in hex) of every line that is one of SHA-256."""
    for ended in text.split("\n"):
        line = ended.removesuffix("\r")
        found = _GNU.fullmatch(line) or _BSD.fullmatch(line)
        if found is not None:
            name = found["name"]
            yield (_ESCAPE.sub(lambda e: _ESCAPED[e[1]], name) if found["escaped"] else name), found["digest"]


def _base(name: str) -> str:
    """Sums are often made of `dist/app.tar.gz`, or `./app.tar.gz`."""
    return name.rpartition("/")[2]


def _is_same(announced: Announced, last: Announced) -> bool:
    """Whether nothing speaks against it that both are the same bytes."""
    facts = (announced.tag, announced.name, announced.size, announced.asset, announced.created_at)
    return facts == (last.tag, last.name, last.size, last.asset, last.created_at)
