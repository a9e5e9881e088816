"""Hides the secrets of URLs before they are shown. Where a text is ambiguous, more is hidden rather than less."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_plus

HIDDEN: Final = "***"

_AUTHORITY_END: Final = re.compile(r"[/?#]")
_BRACKETED_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]*(?:%[^\]]*)?\]")
_PARAMETER: Final = re.compile(r"([?&;#])([^=&;#?]*)=([^&]*)")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS: Final = frozenset({"key", "pass", "pwd", "pw", "sig", "auth", "sas", "jwt", "cred", "creds"})
_SECRET_PARTS: Final = ("secret", "token", "passw", "passphrase", "credential", "signature", "apikey", "accesskey")


def redact(url: str) -> str:
    """`url` with passwords in the user part, and values of parameters that look secret, replaced by `***`.

    Works on any text, malformed URLs included, and leaves a text without secrets as it is.
    """
    before, mark, rest = url.partition("://")
    if not mark:
        return _PARAMETER.sub(_hide_parameter, url)
    user, rest = _hide_password(before, rest)
    return f"{before}{mark}{user}{_PARAMETER.sub(_hide_parameter, rest)}"


def is_secret_name(name: str) -> bool:
    """Whether a parameter's name says that its value is a secret: `key`, `client_secret`, `X-Amz-Signature`, ..."""
    name = unquote_plus(name)
    joined = re.sub(r"[^a-z]", "", name.lower())
    return any(part in joined for part in _SECRET_PARTS) or any(
        word.lower() in _SECRET_WORDS for word in _WORD.findall(name)
    )


def password_span(rest: str) -> tuple[int, int] | None:
    """Where the password lies in the text after `://`: behind the `:`, and before the `@`; None if there is none.

    A password with an unescaped `/`, `?`, `#` or `@` makes the user part end too early for any parser. So where a
    colon that is no IPv6 host's stands before an `@`, all in between is taken for a password.
    """
    end = _AUTHORITY_END.search(rest)
    authority = rest[: end.start()] if end else rest
    colon = _BRACKETED_HOST.sub(lambda host: "." * len(host[0]), authority).find(":")
    last_at = rest.rfind("@")
    return (colon + 1, last_at) if 0 <= colon < last_at else None


def _hide_password(scheme: str, rest: str) -> tuple[str, str]:
    """(the user part as shown, with its `@`; what follows it), of the text after `://`."""
    if (span := password_span(rest)) is not None:
        begin, end = span
        return f"{rest[:begin]}{HIDDEN}@", rest[end + 1 :]
    user, at, after = rest.partition("@")
    if at and scheme.lower() in ("http", "https") and not _AUTHORITY_END.search(user):
        return f"{HIDDEN}@", after  # a lone user of a web address is most often a token
    return "", rest


def _hide_parameter(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    if is_secret_name(name):
        return f"{mark}{name}={HIDDEN}" if value else found[0]
    plain = unquote(value)  # a URL as a value: endpoint=http%3A%2F%2Fuser%3Asecret%40host
    shown = redact(plain)
    return found[0] if shown == plain else f"{mark}{name}={shown}"


_URL_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_TOKEN_IN_TEXT: Final = re.compile(
    r"((?:authorization:?\s+)?(?:bearer|basic|token)\s+|authorization:?\s+)\S+|\bgh[opsur]_\w+|\bgithub_pat_\w+|\beyJ[\w-]+\.[\w-]+\.[\w-]+|\bAKIA\w{12,}",
    re.IGNORECASE,
)


def scrub(text: str, limit: int = 500) -> str:
    """A message on one line, without the secrets of the URLs and credentials in it, cut to `limit` characters."""
    text = " ".join(text.split())
    text = _URL_IN_TEXT.sub(lambda m: redact(m[0]), text)
    text = _TOKEN_IN_TEXT.sub(lambda m: f"{m[1] or ''}{HIDDEN}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
