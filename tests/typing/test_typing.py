"""Both type checkers agree with users who use the library as it is meant, and find those who do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ["usage.py", "misuse.py"]
EXPECTED = {
    (name, number)
    for name in FILES
    for number, line in enumerate((HERE / name).read_text().splitlines(), start=1)
    if line.endswith("# wrong")
}


def complaints(command: list[str]) -> set[tuple[str, int]]:
    """(file, line) of every error that the command prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    found = {
        (Path(name).name, int(line)) for name, line in re.findall(r"^ *(\S+\.py):(\d+):.*error", done.stdout, re.M)
    }
    assert found, f"no error at all: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return found


@pytest.fixture
def pyright_config(tmp_path):
    """The one that `make types` uses, but for both files."""
    config = json.loads((HERE / "pyrightconfig.json").read_text())
    places = {"include": [str(HERE / name) for name in FILES], "venvPath": str(ROOT), "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**config, **places}))
    return tmp_path


def test_mypy():
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", *(str(HERE / name) for name in FILES)]
    assert complaints(command) == EXPECTED


def test_pyright(pyright_config):
    command = [sys.executable, "-m", "basedpyright", "-p", str(pyright_config), "--pythonpath", sys.executable]
    assert complaints(command) == EXPECTED
