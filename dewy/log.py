"""The log: one line a record on stderr, a message and named facts, in the two forms that Dewy v2 writes.

    time=2026-11-24T20:39:11.090Z level=INFO msg="Registry result cache enabled" ttl=30s
    {"time":"2026-11-24T20:39:11.090123Z","level":"INFO","msg":"Registry result cache enabled","ttl":30000000000}

Both carry the same facts. A duration is a `timedelta`: Go's text in one form, whole nanoseconds in the other. A
traceback is a fact like any other, so that no record is ever more than one line. Whatever looks like a secret of the
environment, or like a URL's password, is hidden last of all, wherever it comes from.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TextIO, TypeAlias

from dewy.config import Level, LogFormat
from dewy.quoting import go_quote, needs_quotes
from dewy.systemd import Prioritised, is_journal
from kvcache import format_duration, is_secret_name

Fact: TypeAlias = object
"""A value: text, number, bool, None, `timedelta`, `datetime`, lists and mappings of them; of all else `str`."""

HIDDEN: Final = "***"
SHORTEST_SECRET: Final = 6
"""Characters. A shorter value in the environment would blot out ordinary words."""

_LEVELS: Final = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_NAMES: Final = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "ERROR"}
_USER_PART: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@\"']*):[^\s/?#\"']*@")
_PLACE: Final = re.compile(r".*_(PATH|FILE|SOCK|DIR)|(OLD)?PWD", re.IGNORECASE)  # named like a secret, and none
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NEWLINE: Final = re.compile("[\x80-\x9f\u2028\u2029]")  # JSON escapes the ASCII ones by itself
_FACTS: Final = "dewy_facts"


class Log:
    """Writes records of a message and facts through the standard library's logger of the same name."""

    def __init__(self, name: str = "dewy") -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, **facts: Fact) -> None:
        self._write(logging.DEBUG, message, facts)

    def info(self, message: str, /, **facts: Fact) -> None:
        self._write(logging.INFO, message, facts)

    def warn(self, message: str, /, **facts: Fact) -> None:
        self._write(logging.WARNING, message, facts)

    def error(self, message: str, /, **facts: Fact) -> None:
        self._write(logging.ERROR, message, facts)

    def exception(self, message: str, error: BaseException, /, **facts: Fact) -> None:
        """An error with one line; its traceback only where DEBUG is on."""
        self._write(logging.ERROR, message, {**facts, "error": one_line(error)})
        if self._logger.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, "Traceback", {"trace": "".join(traceback.format_exception(error))})

    def _write(self, level: int, message: str, facts: Mapping[str, Fact]) -> None:
        self._logger.log(level, message, extra={_FACTS: facts})


def one_line(error: BaseException) -> str:
    """What an operator is told of an error: its text on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def seconds(value: float) -> timedelta:
    """A duration as a fact."""
    return timedelta(seconds=value)


def set_up(level: Level, log_format: LogFormat, env: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Sends every record of the process, other libraries' warnings included, to `stream` (stderr) in one form."""
    hide = Redactor(env)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    formatter = JSONFormatter(hide) if log_format == "json" else TextFormatter(hide)
    handler.setFormatter(Prioritised(formatter) if is_journal(handler.stream, env) else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("dewy").setLevel(_LEVELS[level])
    logging.captureWarnings(True)


class Redactor:
    """Replaces secrets in texts: values of variables named like secrets, and passwords in the user part of URLs."""

    def __init__(self, env: Mapping[str, str]) -> None:
        named = {value for name, value in env.items() if is_secret_name(name) and not _PLACE.fullmatch(name)}
        secrets = {value for value in named if len(value) >= SHORTEST_SECRET}
        secrets |= {line for secret in secrets for line in secret.splitlines() if len(line) >= SHORTEST_SECRET}
        longest_first = sorted(secrets, key=lambda secret: (-len(secret), secret))
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def __call__(self, text: str) -> str:
        text = _USER_PART.sub(rf"\1:{HIDDEN}@", text)
        return self._secrets.sub(HIDDEN, text) if self._secrets else text


class _Formatter(logging.Formatter):
    def __init__(self, hide: Redactor) -> None:
        super().__init__()
        self._hide = hide

    def facts(self, record: logging.LogRecord) -> dict[str, Fact]:
        """Facts of dewy's own records; for another library's its name, and its traceback if it has one."""
        facts = getattr(record, _FACTS, None)
        if isinstance(facts, Mapping):
            return dict(facts)
        other: dict[str, Fact] = {"logger": record.name}
        if record.exc_info:
            other["trace"] = self.formatException(record.exc_info)
        return other

    def shown(self, value: Fact) -> str:
        """Any value as the text of it, without secrets."""
        return self._hide(_text(value))


class TextFormatter(_Formatter):
    """`key=value`, as Go's `slog.TextHandler` writes it."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _milliseconds(_local(record.created)), "level": _level(record), "msg": record.getMessage()}
        pairs = {**head, **self.facts(record)}
        return " ".join(f"{_quoted(key)}={_quoted(self.shown(value))}" for key, value in pairs.items())


class JSONFormatter(_Formatter):
    """One object a line, as Go's `slog.JSONHandler` writes it."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _microseconds(_local(record.created)), "level": _level(record), "msg": record.getMessage()}
        pairs = {key: self._plain(value) for key, value in {**head, **self.facts(record)}.items()}
        return _valid(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")))

    def _plain(self, value: Fact) -> Any:
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if value - value == 0 else str(value)  # JSON has no infinity
            case timedelta():
                return value // timedelta(microseconds=1) * 1000
            case datetime():
                return _microseconds(value)
            case list() | tuple():
                return [self._plain(item) for item in value]
            case Mapping():
                return {self._hide(str(key)): self._plain(item) for key, item in value.items()}
            case _:
                return self.shown(value)


def _text(value: Fact) -> str:
    match value:
        case str():
            return value
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case timedelta():
            return format_duration(value.total_seconds())
        case float():
            return repr(value).removesuffix(".0")
        case datetime():
            return _milliseconds(value)
        case list() | tuple():
            return f"[{' '.join(map(_text, value))}]"
        case Mapping():
            return f"map[{' '.join(f'{key}:{_text(item)}' for key, item in value.items())}]"
        case BaseException():
            return one_line(value)
        case _:
            return str(value)


def _quoted(text: str) -> str:
    return go_quote(text) if needs_quotes(text) else text


def _valid(line: str) -> str:
    """As Go writes it: without lone surrogates (bytes that were no UTF-8), or what some readers take for a newline."""
    return _NEWLINE.sub(lambda found: f"\\u{ord(found[0]):04x}", _SURROGATE.sub("\ufffd", line))


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname)


def _local(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC).astimezone()


def _zone(moment: datetime) -> str:
    offset = moment.strftime("%z")
    return "Z" if offset in ("+0000", "") else f"{offset[:3]}:{offset[3:5]}"


def _milliseconds(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}{_zone(moment)}"


def _microseconds(moment: datetime) -> str:
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{_zone(moment)}"
