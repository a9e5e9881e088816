"""Which value of an option is in force, and where it comes from: flag > environment > file > default. Pure.

An empty variable of the environment is one that is not set. Several values in one variable are separated by blanks.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dewy.errors import ConfigError
from dewy.options import BY_NAME, OPTIONS, Option

if TYPE_CHECKING:
    from dewy.configfile import ConfigFile

OTHER_VARIABLES: Final = frozenset({
    *("DEWY_CACHEDIR", "DEWY_TAG", "DEWY_KEY", "DEWY_RELEASE", "DEWY_PREVIOUS_TAG", "DEWY_HOOK"),
})  # fmt: skip
"""The cache directory, and what a hook is told: variables that are no options."""


class Source(enum.Enum):
    """Where a value comes from."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """The texts of one option that are in force; `place` names where they stand: `DEWY_SLOT`, `dewy.toml: slot`."""

    option: Option
    texts: tuple[str, ...]
    source: Source
    place: str

    def value(self) -> Any:
        """What the texts say. ConfigError."""
        try:
            return self.option.kind.read(self.texts)
        except ValueError as error:
            reason = str(error).removeprefix(f"{self.option.flag}: ")
            raise ConfigError(f"{self.place}: {reason}") from error


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, by their names, and the command."""

    by_name: Mapping[str, Setting]
    command: tuple[str, ...] = ()
    command_place: str = ""
    """The file in which it stands; empty: the command line, or nowhere."""
    misspelt: tuple[tuple[str, str], ...] = ()
    """(variable, the option's that is nearly named so)."""

    def __getitem__(self, name: str) -> Setting:
        return self.by_name[name]

    def values(self) -> dict[str, Any]:
        """What is in force, by the names of `Config`'s fields. ConfigError."""
        return {setting.option.field: setting.value() for setting in self.by_name.values() if setting.option.in_file}

    def located(self, error: ConfigError) -> ConfigError:
        """An error about `--name`, told of the place where the value of that option stands."""
        flag, mark, rest = str(error).partition(": ")
        setting = self.by_name.get(flag.removeprefix("--")) if mark and flag.startswith("--") else None
        if setting is None or setting.source in (Source.FLAG, Source.DEFAULT):
            return error
        return ConfigError(f"{setting.place}: {rest}")


def settle(
    flags: Mapping[str, Sequence[str]],
    env: Mapping[str, str],
    file: ConfigFile | None = None,
    command: Sequence[str] = (),
) -> Settings:
    """What is in force. `flags`: the texts of each option that was given, by its name."""
    found = {option.name: _setting(option, flags, env, file) for option in OPTIONS}
    from_file = file.command if file is not None and not command else None
    return Settings(
        found,
        command=tuple(command) if from_file is None else from_file,
        command_place="" if from_file is None or file is None else str(file.path),
        misspelt=tuple(_misspelt(env)),
    )


def config_path(flags: Mapping[str, Sequence[str]], env: Mapping[str, str]) -> Any:
    """The file to read, or None."""
    return _setting(BY_NAME["config"], flags, env, None).value()


def _setting(
    option: Option, flags: Mapping[str, Sequence[str]], env: Mapping[str, str], file: ConfigFile | None
) -> Setting:
    if option.name in flags:
        return Setting(option, tuple(flags[option.name]), Source.FLAG, option.flag)
    if variable := env.get(option.variable):
        several = tuple(variable.split()) if option.repeatable else (variable,)
        return Setting(option, several, Source.ENVIRONMENT, option.variable)
    if file is not None and option.name in file.options:
        return Setting(option, file.options[option.name], Source.FILE, f"{file.path}: {option.name}")
    return Setting(option, option.default_texts, Source.DEFAULT, option.flag)


def _misspelt(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = {option.variable for option in OPTIONS}
    for name in sorted(env):
        if name.startswith("DEWY_") and name not in known | OTHER_VARIABLES:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                yield name, near
