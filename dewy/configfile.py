"""The TOML file of `--config`: the options of `dewy.options` by their long names, and the command.

registry = "ghr://owner/repo"
interval = "30s"                       # or 30
port     = [8000, "127.0.0.1:9000"]
telemetry = true
command  = ["./current/app", "--verbose"]
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dewy.errors import ConfigError, printable
from dewy.options import BY_NAME, Option

COMMAND: Final = "command"
MOST_BYTES: Final = 1024 * 1024
"""No file of options is larger; a device or a core dump may be."""
_COMMAND_FORM: Final = 'a list of texts such as ["./current/app", "--verbose"]'


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says, as texts."""

    path: Path
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    command: tuple[str, ...] | None = None


def read_config_file(path: Path) -> ConfigFile:
    """ConfigError: the file cannot be read, or has a key or a type that it should not have."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"--config: {path}: larger than {MOST_BYTES} bytes: a TOML file with options")
        content = tomllib.loads(data.decode())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError(f"--config: {path}: {why}: a TOML file that can be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config: {path}: not UTF-8: a TOML file, in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config: {path}: not TOML: {error}") from error
    return interpret(path, content)


def interpret(path: Path, content: Mapping[str, Any]) -> ConfigFile:
    """What the tables of a file come to. Pure. ConfigError."""
    options: dict[str, tuple[str, ...]] = {}
    command: tuple[str, ...] | None = None
    for key, value in content.items():
        option = BY_NAME.get(key)
        if key == COMMAND:
            command = _command(path, value)
        elif option is None or not option.in_file:
            raise ConfigError(f"{path}: {printable(key)}: no such key: {_near(key)}")
        else:
            options[key] = _texts(path, option, value)
    return ConfigFile(path, options, command)


def _near(key: str) -> str:
    known = [COMMAND, *(name for name, option in BY_NAME.items() if option.in_file)]
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else "the long names of the options, or command; see dewy server --help"


def _command(path: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{path}: {COMMAND}: expected {_COMMAND_FORM}")
    return tuple(value)


def _texts(path: Path, option: Option, value: Any) -> tuple[str, ...]:
    several = value if isinstance(value, list) and option.repeatable else [value]
    texts = [_as_typed(option, one) for one in several]
    if any(text is None for text in texts):
        # Not the value: it may be a table with a secret in it.
        kinds = ["a text", *(["a number"] if option.kind.numbers else [])]
        if option.kind.is_flag:
            kinds = ["true or false"]
        listed = ", or a list of them" if option.repeatable else ""
        form = "" if option.kind.is_flag else f": {option.kind.form}"
        kind = type(several[0]).__name__ if len(several) == 1 else "list"
        raise ConfigError(
            f"{path}: {option.name}: {_TOML_TYPES.get(kind, kind)}: expected {' or '.join(kinds)}{listed}{form}"
        )
    return tuple(text for text in texts if text is not None)


_TOML_TYPES: Final = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "a table",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}


def _as_typed(option: Option, value: Any) -> str | None:
    """The value as a command line would have it; None where its type is wrong."""
    match value:
        case bool():
            return str(value).lower() if option.kind.is_flag else None
        case str():
            return None if option.kind.is_flag else value
        case int() | float():
            return repr(value) if option.kind.numbers else None
        case _:
            return None
