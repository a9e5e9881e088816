"""Under which key the fleet shares a registry's answer: byte for byte what Dewy v2 derives.

A *scope* is the registry's URL as v2 normalises it. The key is a hash of the scope, with its query in canonical form,
and of the platform. Query strings are read and written by Go's rules, which differ from Python's: a pair with a `;` or
a broken escape vanishes.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeAlias
from urllib.parse import quote_plus, unquote_to_bytes

from dewy.registry.platform import Platform

NEWEST_ARM: Final = 7
"""Of the 32-bit ones."""

Pairs: TypeAlias = list[tuple[bytes, bytes]]
"""Decoded names and values, as bytes: Go does not ask whether they are UTF-8."""

SLOT: Final = "slot"
FALLBACK: Final = "fallback"
CHECKSUMS: Final = "checksums"
"""Parameters of a scope that stand for options, and that no registry's URL takes."""

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BROKEN_HOST: Final = re.compile(r"[ \"<>\\^`{|}]|:[^0-9\]]")


def registry_scope(url: str, calver: str | None = None) -> str:
    """The scope of a registry URL: the URL itself; with `--calver` its query has `calver` set, and is sorted."""
    if not calver:
        return url
    path, _, query = url.partition("?")
    pairs = [(name, value) for name, value in parse_query(query) if name != b"calver"]
    return f"{path}?{encode_query([*pairs, (b'calver', calver.encode())])}"


def with_parameter(scope: str, name: str, value: str) -> str:
    """`scope` with one more query parameter, for what is in force without standing in the URL."""
    return f"{scope}{'&' if '?' in scope else '?'}{quote_plus(name)}={quote_plus(value)}"


def choice_scope(scope: str, slot: str, fallback: bool) -> str:
    """`scope` of nodes that may take another version than the newest one. As it is where they do as Dewy v2."""
    if slot:
        scope = with_parameter(scope, SLOT, slot)
    return with_parameter(scope, FALLBACK, "true") if fallback else scope


def source_scope(scope: str) -> str:
    """`scope` of the releases themselves, whichever of them a node takes: what it keeps stays its own when an operator
    gives it another slot."""
    path, mark, query = scope.partition("?")
    kept = [piece for piece in query.split("&") if piece.partition("=")[0] not in (SLOT, FALLBACK, CHECKSUMS)]
    return f"{path}{mark}{'&'.join(kept)}" if kept else path


def platform_scope(scope: str, platform: Platform) -> str:
    """`scope` for a machine that cannot run all that others of its Go names can: with musl, or an older ARM.

    The key knows of the Go names alone, and a fleet with both kinds of machine must not share one answer.
    """
    if platform.libc == "musl":
        scope = with_parameter(scope, "libc", "musl")
    if 0 < platform.arm < NEWEST_ARM:
        scope = with_parameter(scope, "arm", str(platform.arm))
    return scope


def cache_key(scope: str, goos: str, goarch: str) -> str:
    """The key of the shared answer, for a platform by its Go names (`linux`, `amd64`)."""
    digest = hashlib.sha256(f"{canonical(scope)}|{goos}|{goarch}".encode("utf-8", "surrogateescape"))
    return f"registry-cache/{digest.hexdigest()[:16]}.json"


def canonical(scope: str) -> str:
    """`scope` with the pairs of its query sorted by name; those of one name keep their order. All else is kept."""
    before, mark, fragment = scope.partition("#")
    path, _, query = before.partition("?")
    if not query or not _go_can_parse(path):
        return scope
    encoded = encode_query(parse_query(query))
    return f"{path}{'?' if encoded else ''}{encoded}{mark}{fragment}"


def parse_query(query: str) -> Pairs:
    """The pairs of a query string; those that Go refuses (a `;`, a broken escape) are left out."""
    pairs: Pairs = []
    for piece in query.split("&"):
        if piece and ";" not in piece and not _BROKEN_ESCAPE.search(piece):
            name, _, value = piece.partition("=")
            pairs.append((_form_decoded(name), _form_decoded(value)))
    return pairs


def encode_query(pairs: Pairs) -> str:
    """Pairs as a query string, sorted by name."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(pairs, key=lambda pair: pair[0])
    )


def _form_decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))


def _go_can_parse(url: str) -> bool:
    """Whether Go's url.Parse takes a URL (without its query), as far as a mistyped registry can make it refuse."""
    scheme = _SCHEME.match(url)
    if scheme is None or _CONTROL.search(url) or _BROKEN_ESCAPE.search(url):
        return False
    rest = url[scheme.end() :]
    host = rest[2:].partition("/")[0].rpartition("@")[2] if rest.startswith("//") else ""
    return not _BROKEN_HOST.search(host)
