"""The example of a third party's store, `docs/example-store`: installed, opened by its scheme, held to the contract."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvcache

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example-store"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A directory with the package as pip installs it, for PYTHONPATH. Nothing is fetched."""
    place = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, place / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(place / "site"), str(place / "source")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return place / "site"


def run(installed: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Python with the package on its path, and kvcache from where we have it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=280, env=env, cwd=installed, **options
    )


def test_it_is_unknown_until_it_is_installed(tmp_path):
    with pytest.raises(kvcache.InvalidURL, match="unknown scheme 'sqlite'"):
        kvcache.open_store(f"sqlite://{tmp_path}/values.db")


def test_the_command_knows_its_scheme(installed, tmp_path):
    url = f"sqlite://{tmp_path}/values.db"
    assert run(installed, "-m", "kvcache.cli", "put", url, "greeting", input="hello").returncode == 0
    assert run(installed, "-m", "kvcache.cli", "get", url, "greeting").stdout == "hello"
    wrong = run(installed, "-m", "kvcache.cli", "ls", f"{url}?wal=on")
    assert wrong.returncode == 2
    assert "unknown parameter 'wal': sqlite takes max-size, registry-ttl, timeout" in wrong.stderr


def test_it_keeps_the_contract_and_passes_its_own_tests(installed, tmp_path):
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(EXAMPLE / "tests")]
    done = run(installed, *command, "--kvcache-store", f"sqlite://{tmp_path}/values.db")
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(done.stdout.split(" passed")[0].split()[-1])
    assert passed >= 50, done.stdout[-1000:]
    assert "skipped" not in done.stdout


def test_it_uses_public_names_only():
    code = (EXAMPLE / "src" / "kvcache_sqlite.py").read_text()
    assert "import kvcache\n" in code and "from kvcache" not in code
    assert "kvcache._" not in code
