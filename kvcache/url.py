"""Store URLs: their grammar, what a backend may ask of one, and the table of schemes that opens them.

A backend is a function `open(url: StoreURL) -> Store` in a module that is imported only when its scheme is used. It
takes its own parameters with the helpers of `StoreURL` and refuses all others with `url.reject_unknown(...)`. Anyone
can add a scheme by an entry point of the group `kvcache.stores` whose name is the scheme and whose value is such a
function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar, cast
from urllib.parse import unquote_plus, unquote_to_bytes

from kvcache.errors import InvalidURL
from kvcache.kvs import Store
from kvcache.redaction import HIDDEN, is_secret_name, password_span, redact
from kvcache.units import InvalidQuantity, parse_duration, parse_size

__all__ = ["StoreOptions", "StoreURL", "open_store", "parse_store_url", "redact", "store_options"]

T = TypeVar("T")
N = TypeVar("N", int, float)

COMMON_PARAMETERS: Final = frozenset({"registry-ttl", "max-size"})
"""What every store URL takes, whatever its scheme."""
DEFAULT_MAX_SIZE: Final = 64 * 1024 * 1024
DEFAULT_DIRECTORY: Final = Path(".dewy", "cache")
"""Where `file://` is, under the working directory, unless the caller of `open_store` says otherwise."""

_TRUTHS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True, repr=False)
class StoreURL:
    """The parts of a store URL. Only `redacted` (and `repr`) may be shown; the other parts can hold secrets."""

    scheme: str
    """In lower case; empty for the empty URL."""
    user: str | None
    """Percent-decoded; None where there is none, or an empty one."""
    password: str | None
    """Percent-decoded; None where there is none."""
    host: str
    """As written, without the brackets of an IPv6 address; empty where there is none."""
    port: int | None
    path: str
    """Percent-decoded; empty, or begins with `/`."""
    params: Mapping[str, str]
    """Form-decoded (`+` is a space); each name at most once."""
    redacted: str
    """The URL without secrets, for logs and errors."""
    address: str = field(default="")
    """The URL as written, without its query: for a library that parses for itself. Secrets included."""

    def __repr__(self) -> str:
        return f"StoreURL({self.redacted!r})"

    @property
    def segments(self) -> list[str]:
        """The parts of the path between slashes, empty ones left out."""
        return [part for part in self.path.split("/") if part]

    # -- what a backend asks ---------------------------------------------------------------------------------------

    def invalid(self, part: str, value: str, form: str) -> InvalidURL:
        """The error for a wrong part, to be raised by the caller: names part, value (unless secret) and form."""
        visible = value in self.redacted or value in unquote_plus(self.redacted)
        shown = repr(value) if visible and not is_secret_name(part) else HIDDEN
        return InvalidURL(f"{self.redacted}: {part}: {shown}: expected {form}")

    def require(self, part: str, value: str | None, form: str) -> str:
        """`value` if it is there; else InvalidURL that the part (`bucket`, `region`, ...) is required, in `form`."""
        if not value:
            raise InvalidURL(f"{self.redacted}: {part} is required: {form}")
        return value

    def reject_unknown(self, accepted: Collection[str]) -> None:
        """InvalidURL if a parameter is neither in `accepted` nor one that every store takes."""
        known = COMMON_PARAMETERS.union(accepted)
        for name in self.params:
            if name not in known:
                takes = f"{self.scheme or 'file'} takes {', '.join(sorted(known))}"
                raise InvalidURL(f"{self.redacted}: unknown parameter {name!r}: {takes}")

    def take_text(self, name: str, default: T) -> str | T:
        """The parameter's text, or `default` where it is absent or empty."""
        return self.params.get(name) or default

    def take_bool(self, name: str, default: bool = False) -> bool:
        """A truth: true or false, 1 or 0, yes or no, on or off."""
        value = self.params.get(name)
        if value is None:
            return default
        if (truth := _TRUTHS.get(value.lower())) is None:
            raise self.invalid(name, value, "true or false")
        return truth

    def take_choice(self, name: str, choices: Collection[str], default: T) -> str | T:
        """One of `choices`."""
        value = self.params.get(name)
        if value is None:
            return default
        if value not in choices:
            raise self.invalid(name, value, " or ".join(choices))
        return value

    def take_int(self, name: str, default: T, *, least: int, most: int) -> int | T:
        """A whole number from `least` to `most`."""
        value = self.params.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
            raise self.invalid(name, value, f"a whole number from {least} to {most}")
        return int(value)

    def take_duration(self, name: str, default: T) -> float | T:
        """Seconds of a duration such as 30s, 1m30s or 250ms; `default` where it is absent or empty."""
        return self._take(name, parse_duration, default)

    def take_size(self, name: str, default: T) -> int | T:
        """Bytes of a size such as 64MiB, 64MB or 65536; `default` where it is absent or empty."""
        return self._take(name, parse_size, default)

    def _take(self, name: str, parse: Callable[[str], N], default: T) -> N | T:
        value = self.params.get(name)
        if not value:  # `registry-ttl=` is "off" to Dewy v2
            return default
        try:
            return parse(value)
        except InvalidQuantity as error:
            raise self.invalid(name, value, error.expected) from None


# -- grammar ----------------------------------------------------------------------------------------------------------

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)(://|::|:(?=/))(.*)", re.DOTALL)
_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([^\[\]:]*))(?::([0-9]*))?")
_CHAINED: Final = re.compile(r"::[A-Za-z][A-Za-z0-9+._-]*(?:://|::|$)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_FORM: Final = "scheme://..., such as file:///abs/dir, s3://<region>/<bucket> or redis://host:6379/0"


def parse_store_url(text: str) -> StoreURL:
    """Splits a store URL into its parts; grammar only, so that any scheme will do. InvalidURL.

        scheme://[user[:password]@][host[:port]][/path][?name=value&...]

    Also `file:/abs` (as Dewy v2 takes it), fsspec's chains (`dir::file:///abs`, of which `address` holds all), and the
    empty URL. A fragment is refused rather than dropped: `#` in a path is written `%23`.
    """
    redacted = redact(text)
    if not text:
        return StoreURL("", None, None, "", None, "", MappingProxyType({}), redacted)

    def wrong(what: str) -> InvalidURL:
        return InvalidURL(f"{redacted!r}: {what}")

    if _CONTROL.search(text) or text != text.strip():
        raise wrong("a store URL holds no blanks at its ends and no control characters")
    address, _, query = text.partition("?")
    if "#" in text:
        raise wrong("a store URL has no fragment; write # as %23")
    if (found := _SCHEME.fullmatch(address)) is None:
        raise wrong(f"not a store URL: expected {_FORM}")
    scheme, mark, rest = found[1].lower(), found[2], found[3]
    params = _parse_query(query, wrong)
    if mark == "::" or _CHAINED.search(rest):
        return StoreURL(scheme, None, None, "", None, "", params, redacted, address)

    authority, slash, path = rest.partition("/") if mark == "://" else ("", "/", rest[1:])
    userinfo, at, host_port = authority.rpartition("@")
    span = password_span(text.partition("://")[2])
    if span is not None and span[1] != len(userinfo):
        raise wrong("where the password ends is not clear: escape / ? # @ : in it, and write any other @ as %40")
    user, colon, password = userinfo.partition(":")
    if (place := _HOST_PORT.fullmatch(host_port)) is None:
        raise wrong("the host is not a name, a name:port or an [IPv6 address]:port")
    port = place[3]
    if port is not None and not (port and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise wrong("the port is not a number from 1 to 65535")
    return StoreURL(
        scheme=scheme,
        user=_unescape(user, wrong) or None,
        password=_unescape(password, wrong) if at and colon else None,
        host=place[1] or place[2] or "",
        port=int(port) if port else None,
        path=slash + _unescape(path, wrong),
        params=params,
        redacted=redacted,
        address=address,
    )


def _parse_query(query: str, wrong: Callable[[str], InvalidURL]) -> Mapping[str, str]:
    params: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, value = (_unescape(part.replace("+", " "), wrong) for part in (*pair.split("=", 1), "")[:2])
        if name in params:
            raise wrong(f"parameter {name!r} is given twice")
        params[name] = value
    return MappingProxyType(params)


def _unescape(text: str, wrong: Callable[[str], InvalidURL]) -> str:
    if _BAD_ESCAPE.search(text):
        raise wrong("% is not followed by two hexadecimal digits; write % as %25")
    try:
        plain = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise wrong("escaped bytes are not UTF-8") from None
    if "\x00" in plain:
        raise wrong("a store URL holds no NUL")
    return plain


# -- options of every store ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What every store URL can say, whatever its scheme."""

    registry_ttl: float | None
    """Seconds for which a registry answer is shared (`registry-ttl`); None: the registry-result cache is off."""
    max_size: int
    """Bytes that the local copy (or a memory store) may take (`max-size`)."""


def store_options(url: str | StoreURL) -> StoreOptions:
    """The options in a store URL that do not depend on its scheme. InvalidURL."""
    parsed = parse_store_url(url) if isinstance(url, str) else url
    return StoreOptions(
        registry_ttl=parsed.take_duration("registry-ttl", None) or None,  # 0 is "off" to Dewy v2
        max_size=parsed.take_size("max-size", DEFAULT_MAX_SIZE),
    )


# -- opening ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scheme:
    """Who opens the URLs of a scheme, and what has to be installed for it."""

    module: str
    """Has a function `open(url: StoreURL) -> Store`."""
    extra: str | None = None
    """The extra of this distribution that brings the client library; None: nothing is needed."""


SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        "": Scheme("kvcache.backends.file"),
        "file": Scheme("kvcache.backends.file"),
        "memory": Scheme("kvcache.backends.memory"),
        "s3": Scheme("kvcache.backends.s3", "s3"),
        "gs": Scheme("kvcache.backends.gs", "gcs"),
        "redis": Scheme("kvcache.backends.redis", "redis"),
        "rediss": Scheme("kvcache.backends.redis", "redis"),
        "consul": Scheme("kvcache.backends.consul", "consul"),
        "abfs": Scheme("kvcache.backends.azure", "azure"),
        "abfss": Scheme("kvcache.backends.azure", "azure"),
        "az": Scheme("kvcache.backends.azure", "azure"),
    }
)
_FSSPEC: Final = Scheme("kvcache.backends.fsspec_generic")
ENTRY_POINTS: Final = "kvcache.stores"
"""The entry point group by which others add schemes: the name is the scheme, the value a function like `open`."""


def open_store(url: str | StoreURL, *, default_dir: str | os.PathLike[str] | None = None) -> Store:
    """Opens the store that a URL names.

    `default_dir` is where `file://` without a path is; None: `.dewy/cache` under the working directory.

    InvalidURL: the URL is wrong, its scheme unknown, or a package for it is not installed. StoreUnavailable: the store
    did not answer, for those that are asked when opened.
    """
    parsed = parse_store_url(url) if isinstance(url, str) else url
    store_options(parsed)  # a malformed option is an error now, even where this store does not use it
    if parsed.scheme in ("", "file") and not parsed.host and not parsed.path:
        directory = Path(default_dir) if default_dir is not None else DEFAULT_DIRECTORY
        parsed = replace(parsed, scheme="file", path=str(directory.absolute()))
    extra = SCHEMES[parsed.scheme].extra if parsed.scheme in SCHEMES else None
    try:
        return _opener(parsed)(parsed)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "kvcache":
            raise  # a fault of ours, not something to install
        install = f"pip install 'kvcache-dewy[{extra}]'" if extra else f"install {error.name or 'it'}"
        raise InvalidURL(f"{parsed.redacted}: a package for {parsed.scheme}:// is missing: {install}") from error


def _opener(url: StoreURL) -> Callable[[StoreURL], Store]:
    """The function that opens `url`: of our own table, else of an entry point, else that of fsspec's file systems."""
    scheme = SCHEMES.get(url.scheme)
    if scheme is None:
        from importlib.metadata import entry_points  # slow to import, and needed for foreign schemes only

        for point in entry_points(group=ENTRY_POINTS, name=url.scheme):
            return cast(Callable[[StoreURL], Store], point.load())
        from fsspec import available_protocols  # the same

        if url.scheme not in available_protocols():
            ours = ", ".join(filter(None, SCHEMES))
            raise InvalidURL(
                f"{url.redacted}: unknown scheme {url.scheme!r}: expected {ours}, or one that fsspec knows"
            )
        scheme = _FSSPEC
    return cast(Callable[[StoreURL], Store], import_module(scheme.module).open)
