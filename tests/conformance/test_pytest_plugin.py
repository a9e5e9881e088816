"""`pytest --kvcache-store URL`, as a process in a project of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from kvcache.conformance import CONTRACT

ROOT = Path(__file__).parents[2]


def run(directory: Path, *arguments: str):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "kvcache.conformance.pytest_plugin",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path):
    (tmp_path / "test_own.py").write_text(
        "def test_own(kvcache_store):\n    kvcache_store.write('own', b'x')\n    kvcache_store.delete('own')\n"
    )
    return tmp_path


def test_the_contract_beside_the_tests_of_a_project(project, tmp_path):
    code, out = run(project, "-v", "--kvcache-store", f"file://{tmp_path}/store?locking=flock", "--kvcache-seed", "3")
    assert code == 0, out
    assert "test_own.py::test_own PASSED" in out
    assert "kvcache-contract::create_only PASSED" in out
    assert f"{len(CONTRACT) + 2} passed" in out  # the race of processes, and the project's own


def test_one_promise_can_be_chosen(project):
    code, out = run(project, "--kvcache-store", "memory://", "-k", "kvcache-contract and stale")
    assert code == 0, out
    assert "1 passed" in out
    code, out = run(project, "--kvcache-store", "memory://", "-k", "test_own")
    assert (code, "1 passed" in out) == (0, True), out


def test_without_the_option_nothing_is_added(project):
    (project / "test_own.py").write_text("def test_own():\n    pass\n")
    code, out = run(project)
    assert (code, "1 passed" in out) == (0, True), out


DEFECT = """
from kvcache.backends import memory
from kvcache.errors import StoreUnavailable
from kvcache.kvs import ANYWAY


class Defective(memory.MemoryStore):
    def put(self, key, data, condition):
        return super().put(key, data, ANYWAY)

    def delete(self, key):
        super().delete(key)
        if key.endswith("never/written"):
            raise StoreUnavailable("gone fishing")


memory.open = lambda url: Defective()
"""


def test_a_broken_promise_is_a_failure_with_its_evidence_and_no_traceback(project):
    (project / "conftest.py").write_text(DEFECT)
    code, out = run(
        project, "--kvcache-store", "memory://", "-k", "create_only or test_own or kvcache-contract and delete"
    )
    assert code == 1
    assert "A write on ABSENT lands on an absent key and is refused on any other" in out
    assert "This promise is broken: write_if on ABSENT over a value gave" in out
    assert "This could not be decided: StoreUnavailable: gone fishing" in out
    assert "Traceback" not in out
    assert "check.py" not in out


@pytest.mark.parametrize("url", ["nonsense://x", "memory://?sise=1"])
def test_a_wrong_url_ends_the_session(project, url):
    code, out = run(project, "--kvcache-store", url)
    assert code == 4
    assert "--kvcache-store" in out
    assert "Traceback" not in out


def test_it_is_an_entry_point_of_the_package():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert hasattr(import_module(points["kvcache"]), "pytest_addoption")
