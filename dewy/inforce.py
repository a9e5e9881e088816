"""`dewy config`: which value of each option is in force, and where it comes from. No secret is shown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dewy.cachedir import DEFAULT, VARIABLE
from dewy.errors import printable
from dewy.log import HIDDEN, Redactor
from dewy.options import OPTIONS
from dewy.settings import Setting, Settings, Source
from kvcache import is_secret_name, parse_store_url, scrub

NOT_SET: Final = "(not set)"
_LONGEST: Final = 1000
"""Characters of a value."""


class Page:
    """What is in force, for people and for programs. `ignored`: pairs of a name and why it has no effect."""

    def __init__(
        self, settings: Settings, ignored: tuple[tuple[str, str], ...], *, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._settings = settings
        self._ignored = ignored
        self._directory, self._directory_place = cache_directory(settings, env, cwd)
        # An option's own variable is not hidden for its name: a public key is none to keep.
        options = {option.variable for option in OPTIONS}
        self._hide = Redactor({name: value for name, value in env.items() if name not in options})

    def as_text(self) -> str:
        """A line for each: name, value, source."""
        rows = [(s.option.name, self._text(s), _source(s)) for s in self._settings.by_name.values()]
        words = shlex.join(self._command())
        rows.append(("command", words or NOT_SET, self._settings.command_place or ("command line" if words else "")))
        rows.append(("cache directory", printable(self._directory), self._directory_place or "default"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{name:{widths[0]}}  {value:{min(widths[1], 60)}}  {source}".rstrip() for name, value, source in rows]
        lines += [f"without effect: {name}: {why}" for name, why in self._ignored]
        return "\n".join(lines)

    def as_json(self) -> str:
        """An object: `options` by name, each with `value`, `source` and `place`; `command`; `cache_directory`;
        `without_effect`."""
        options = {
            name: {"value": self._value(setting), "source": setting.source.value, "place": _place(setting)}
            for name, setting in self._settings.by_name.items()
        }
        command = {"value": self._command(), "place": self._settings.command_place or None}
        directory = {"value": self._directory, "place": self._directory_place}
        ignored = [{"name": name, "why": why} for name, why in self._ignored]
        page = {"options": options, "command": command, "cache_directory": directory, "without_effect": ignored}
        return json.dumps(page, indent=2)

    def _command(self) -> list[str]:
        return [printable(self._hide(word), _LONGEST) for word in without_secrets(self._settings.command)]

    def _shown(self, setting: Setting) -> list[str]:
        return [printable(self._hide(setting.option.show(text)), _LONGEST) for text in setting.texts if text]

    def _text(self, setting: Setting) -> str:
        return ", ".join(self._shown(setting)) or NOT_SET

    def _value(self, setting: Setting) -> Any:
        shown = self._shown(setting)
        if setting.option.repeatable:
            return shown
        if not shown:
            return None
        if setting.option.kind.is_flag:
            return setting.value()
        return int(shown[-1]) if setting.option.kind.numbers and shown[-1].isdecimal() else shown[-1]


def cache_directory(settings: Settings, env: Mapping[str, str], cwd: Path) -> tuple[str, str | None]:
    """The node's cache directory, and where it is named; it is neither created nor looked at. ConfigError."""
    url = parse_store_url(settings["cache"].value())
    if url.scheme in ("", "file") and url.path:
        return url.path, settings["cache"].place
    return str(cwd / (env.get(VARIABLE) or DEFAULT)), VARIABLE if env.get(VARIABLE) else None


def without_secrets(command: Sequence[str]) -> list[str]:
    """The words of a command line: without passwords of URLs, and without the values of options named like secrets."""
    shown: list[str] = []
    hide_next = False
    for word in command:
        name, mark, _ = word.partition("=")
        names_secret = word.startswith("-") and is_secret_name(name)
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        elif names_secret and mark:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(scrub(word, _LONGEST))
        hide_next = names_secret and not mark
    return shown


def _source(setting: Setting) -> str:
    return "default" if setting.source is Source.DEFAULT else setting.place


def _place(setting: Setting) -> str | None:
    return None if setting.source is Source.DEFAULT else setting.place
