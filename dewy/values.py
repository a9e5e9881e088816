"""Kinds of values that options have: how the text of one is read, and in which words its form is told.

A kind reads the texts that were given, of which a scalar takes the last, and raises ValueError with
`<value>: <accepted form>`. Nothing heavy is imported before a value is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

Read: TypeAlias = Callable[[Sequence[str]], Any]

_TRUTHS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`metavar` stands for a value in the help text, `form` says in words what is accepted."""

    metavar: str
    form: str
    read: Read
    numbers: bool = False
    """Whether a TOML file may give it as a number."""
    choices: tuple[str, ...] = ()
    """For shell completion."""

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on a command line: `--name` and `--no-name`."""
        return not self.metavar


def scalar(metavar: str, form: str, parse: Callable[[str], Any], *, numbers: bool = False) -> Kind:
    """One value. `parse` raises ValueError."""
    return Kind(metavar, form, lambda texts: parse(texts[-1]), numbers)


def text(metavar: str, form: str = "a text") -> Kind:
    """Any text."""
    return scalar(metavar, form, str)


def texts(metavar: str, form: str) -> Kind:
    """Any number of texts that are not empty, as a tuple."""
    return Kind(metavar, form, lambda given: tuple(one for one in given if one))


def choice(metavar: str, values: Mapping[str, str | None], form: str) -> Kind:
    """One of the words that `values` maps to values, in any case; a word without one stands for itself."""

    def parse(word: str) -> str:
        if word.lower() not in values:
            raise ValueError(f"{word[:40]!r}: {form}")
        return values[word.lower()] or word.lower()

    return Kind(metavar, form, lambda given: parse(given[-1]), choices=tuple(values))


def _truth(word: str) -> bool:
    if word.lower() not in _TRUTHS:
        raise ValueError(f"{word!r}: true or false")
    return _TRUTHS[word.lower()]


FLAG: Final = Kind("", "true or false", lambda given: _truth(given[-1]))


def duration(least: float, *, example: str) -> Kind:
    """Seconds, of `30s`, `1m30s` or a number of seconds; at least `least`, which `example` tells."""
    form = f"at least {_least(least)}, such as {example}"

    def parse(given: str) -> float:
        from kvcache import parse_duration

        try:
            seconds = parse_duration(given, plain_seconds=True)
        except ValueError as error:
            raise ValueError(f"{error}, such as {example}") from error
        if seconds < least:
            raise ValueError(f"{given!r}: {form}")
        return seconds

    return scalar("TIME", form, parse, numbers=True)


def _least(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def whole(metavar: str, least: int, most: int, *, empty: Any = ..., absent: int | None = None) -> Kind:
    """A whole number. Where `empty` is given, that is the value of an empty text, and of the number `absent`."""
    form = f"a whole number from {least} to {most}"

    def parse(given: str) -> Any:
        if not given and empty is not ...:
            return empty
        if not (given.isascii() and given.isdigit() and len(given) < 20 and least <= int(given) <= most):
            raise ValueError(f"{given[:40]!r}: {form}")
        return empty if int(given) == absent else int(given)

    return scalar(metavar, form, parse, numbers=True)


def _path(given: str) -> Path | None:
    return Path(given) if given else None


FILE: Final = scalar("FILE", "the path of a file", _path)


def _registry(given: str) -> str:
    from kvcache import redact

    if given and "://" not in given:
        raise ValueError(f"{redact(given)!r}: scheme://..., such as ghr://owner/repo")
    return given


REGISTRY: Final = scalar("URL", "a URL such as ghr://owner/repo or file:///dir", _registry)


def _store(given: str) -> str:
    from kvcache import store_options

    store_options(given)  # InvalidURL, a ValueError
    return given


STORE: Final = scalar("URL", "a URL such as s3://region/bucket/prefix or redis://host:6379/0", _store)


def _signature_keys(given: str) -> Any:
    from dewy.minisign import parse_keys

    return parse_keys(given)


SIGNATURE_KEYS: Final = scalar("KEY", "a minisign public key", _signature_keys)


def _calver(given: str) -> str | None:
    from dewy.versions import CalVer

    return CalVer(given).text if given else None


CALVER: Final = scalar("FORMAT", "a format such as YYYY.0M.MICRO", _calver)


def _ports(given: Sequence[str]) -> Any:
    from dewy.ports import parse_ports

    return parse_ports(given)


PORTS: Final = Kind(
    "PORT", "a port such as 8000, a range such as 8000-8003, or an address such as 127.0.0.1:8000", _ports, numbers=True
)
