"""Registry URLs, `scheme://place?artifact=NAME&pre-release=BOOL&calver=FORMAT`: all checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from dewy.errors import ConfigError, printable
from dewy.registry.choice import Rule
from dewy.registry.keys import choice_scope, parse_query, registry_scope
from dewy.versions import CalVer, InvalidFormat
from kvcache import redact

COMMON: Final = ("artifact", "calver", "pre-release")
"""Parameters of every registry."""

SCHEMES: Final = ("ghr", "s3", "gs", "grpc", "file")

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What Go's ParseBool takes, and a form's "on".
_TRUE: Final = frozenset({"1", "t", "T", "true", "True", "TRUE", "on"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "False", "FALSE", "off"})


@dataclass(frozen=True, slots=True)
class RegistryURL:
    """The parts of a registry URL, decoded."""

    scheme: str
    place: str
    """What stands between `://` and `?`, as written."""
    params: Mapping[str, str]
    scope: str
    describe: str
    """The URL without secrets."""
    slot: str = ""
    fallback: bool = False
    """Both of the command line, and no parameters: see `dewy.registry.choice`."""

    def wrong(self, part: str, value: str, form: str) -> ConfigError:
        """The error for one part, to be raised by the caller."""
        return ConfigError(f"--registry: {self.describe}: {part}: {value[:200]!r}: expected {form}")

    @property
    def artifact(self) -> str:
        """The exact file name to deploy; "" to choose by platform."""
        return self.params.get("artifact", "")

    @property
    def path(self) -> str:
        """The place, percent-decoded."""
        return unquote(self.place)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter. ConfigError."""
        text = self.params.get(name, "")
        if not text:
            return default
        if text not in _TRUE | _FALSE:
            raise self.wrong(name, text, "true or false")
        return text in _TRUE

    def calver(self) -> CalVer | None:
        """The format of calendar versions; None: versions are semantic. ConfigError."""
        text = self.params.get("calver", "")
        try:
            return CalVer(text) if text else None
        except InvalidFormat as error:
            raise ConfigError(f"--calver: {error}") from error

    def rule(self) -> Rule:
        """Which version is to be taken. ConfigError."""
        return Rule(self.flag("pre-release"), self.calver(), self.slot, self.fallback)

    def reject_unknown(self, accepted: Collection[str]) -> None:
        """ConfigError for a parameter that neither every registry takes nor this one."""
        known = sorted({*COMMON, *accepted})
        for name in self.params:
            if name not in known:
                raise self.wrong("parameter", name, ", ".join(known))


def parse_registry_url(url: str, calver: str | None = None, *, slot: str = "", fallback: bool = False) -> RegistryURL:
    """The parts of a registry URL; `calver` replaces its parameter of that name. ConfigError.

    `slot` and `fallback` decide which version is taken, so nodes that differ in them do not share an answer.
    """
    shown = printable(redact(url))
    scheme, mark, rest = url.partition("://")
    if not mark or not _SCHEME.fullmatch(scheme):
        raise ConfigError(f"--registry: {shown}: expected scheme://place, such as ghr://owner/repo or file:///dir")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES[:-1])
        raise ConfigError(f"--registry: {shown}: unsupported registry: expected {known} or {SCHEMES[-1]}://")
    if not url.isprintable():
        raise ConfigError(f"--registry: {shown}: expected a URL without control characters")
    if "#" in rest:
        raise ConfigError(f"--registry: {shown}: expected no fragment; write # as %23")
    place, _, query = rest.partition("?")
    if "@" in place.partition("/")[0]:
        raise ConfigError(f"--registry: {shown}: expected no user or password; credentials come from the environment")
    if _BROKEN_ESCAPE.search(rest) or ";" in query:
        raise ConfigError(f"--registry: {shown}: expected % before two hexadecimal digits, and & between parameters")
    scope = registry_scope(url, calver)
    params: dict[str, str] = {}
    for name, value in parse_query(scope.partition("?")[2]):
        text = name.decode(errors="replace")
        if text in params:
            raise ConfigError(f"--registry: {shown}: parameter: {printable(text)!r}: expected only once")
        params[text] = value.decode(errors="replace")
    return RegistryURL(scheme, place, params, choice_scope(scope, slot, fallback), shown, slot, fallback)
