"""Where the servers' programs are. One that is missing is a loud failure, never a skip."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


class MissingServer(RuntimeError):
    """A server that the tests need is not installed."""


def script(name: str) -> str:
    """A program that a Python package of the test environment brings."""
    return _existing(Path(sys.executable).parent / name)


def bundled(package: str, pattern: str) -> str:
    """A program that lies inside a Python package; `pattern` as in Path.glob, the first hit counts."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingServer(f"the Python package {package} is not installed: run `make setup`")
    folder = Path(spec.submodule_search_locations[0])
    return _existing(next(iter(sorted(folder.glob(pattern))), folder / pattern))


def unpacked(package: str, name: str) -> str:
    """A program from a Debian package that `scripts/fetch-servers` unpacked; else the system's own."""
    path = CACHE / "debian" / package / "usr/bin" / name
    return str(path) if path.exists() else _existing(Path(shutil.which(name) or path))


def libraries(package: str) -> str:
    """LD_LIBRARY_PATH for a program of `unpacked`."""
    return ":".join(str(folder) for folder in (CACHE / "debian" / package / "usr/lib").glob("*-linux-gnu"))


def node_script(path: str) -> list[str]:
    """The command for a script of an npm package, `path` below node_modules."""
    node = shutil.which("node")
    if node is None:
        raise MissingServer("node is not installed: run `make setup`")
    return [node, _existing(CACHE / "npm/node_modules" / path)]


def _existing(path: Path) -> str:
    if not path.exists():
        raise MissingServer(f"{path.name} is not installed ({path} does not exist): run `make setup`")
    return str(path)
