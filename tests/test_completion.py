"""Completion in a real shell: `dewy completion SHELL` and `kvcache completion SHELL`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASH = shutil.which("bash") or "bash"
MODULES = {"dewy": "dewy", "kvcache": "kvcache.cli"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """With both programs on the path, as they are installed."""
    for name, module in MODULES.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        start = f"import sys; sys.argv[0] = {name!r}; from {module.partition('.')[0]}.cli import main; main()"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def shell(program: str, script: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [program, "-c", script], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LINES = {
    "dewy serv": ["server"],
    "dewy server --check": ["--checksums"],
    "dewy server --checksums ": ["auto", "require", "off"],
    "dewy server --registry file:///x -l e": ["error"],
    "dewy server --no-roll": ["--no-rollback"],
    "dewy --registry file:///x serv": ["server"],
    "dewy --registry file:///x -f j": [],  # before the command's name nothing is known of its options
    "dewy completion z": ["zsh"],
    "kvcache conf": ["conformance"],
    "kvcache completion f": ["fish"],
}


@pytest.mark.parametrize("program", MODULES)
def test_bash(program: str, env: dict[str, str]) -> None:
    """What it offers for the last word of a line; a blank at the end begins a new one."""
    lines = [line for line in LINES if line.startswith(program)]
    script = f'eval "$({program} completion bash)"\n'
    for line in lines:
        words = [word or "''" for word in line.split(" ")]
        script += f"COMPREPLY=(); COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        script += f"_{program}_completion {program}\n"
        script += 'echo "${COMPREPLY[@]}"\n'
    assert [line.split() for line in shell(BASH, script, env).splitlines()] == [LINES[line] for line in lines]


@pytest.mark.parametrize("program", MODULES)
@pytest.mark.parametrize(("name", "begins"), [("zsh", "#compdef {}"), ("fish", "function _{}_completion")])
def test_the_scripts_of_other_shells(program: str, name: str, begins: str, env: dict[str, str]) -> None:
    script = shell("sh", f"{program} completion {name}", env)
    assert script.lstrip().startswith(begins.format(program))
    assert f"_{program.upper()}_COMPLETE={name}_complete" in script


def test_a_shell_that_is_not_known(env: dict[str, str]) -> None:
    for program in MODULES:
        done = subprocess.run([program, "completion", "tcsh"], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stdout == ""
        [line] = done.stderr.splitlines()
        assert "tcsh" in line and "fish" in line
