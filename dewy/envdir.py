"""Variables of the application out of a directory of files, one a variable, as `envdir` of daemontools reads them.

`ENVDIR=/etc/app/env` has it read anew before each start, so that a changed value takes effect with the next restart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dewy.errors import StartFailed

VARIABLE: Final = "ENVDIR"
MOST_BYTES: Final = 64 * 1024
"""Of a file that are read: no variable is longer."""


def with_envdir(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with the variables of the directory that its `ENVDIR` names, if it names one.

    The first line of a file is the value, without blanks at its end; NUL stands for a newline; an empty file removes
    the variable. Names that begin with a dot or hold `=`, and directories, are left out. StartFailed: it cannot be
    read; to start without would be to start with the wrong settings.
    """
    directory = env.get(VARIABLE)
    if not directory:
        return dict(env)
    try:
        found = {path.name: _value(path) for path in sorted(Path(directory).iterdir()) if _is_variable(path)}
    except OSError as error:
        raise StartFailed(f"{VARIABLE}: {error.filename or directory}: {error.strerror or error}", host=True) from error
    kept = {name: value for name, value in env.items() if name not in found}
    return {**kept, **{name: value for name, value in found.items() if value is not None}}


def _is_variable(path: Path) -> bool:
    return not path.name.startswith(".") and "=" not in path.name and path.is_file()


def _value(path: Path) -> str | None:
    """None: the variable is to be removed."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES)
    if not content:
        return None
    line = content.split(b"\n", 1)[0].rstrip(b" \t\r").replace(b"\0", b"\n")
    return os.fsdecode(line)
