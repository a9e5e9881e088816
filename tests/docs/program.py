"""A page as one program: its blocks in their order, in one shell, so that what one block makes the next one finds."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import yaml

from tests.docs.pages import Block
from tests.docs.world import World

LONGEST: Final = 240.0
"""Seconds for one page."""
SHELL: Final = frozenset({"sh", "console"})
PARSED: Final = frozenset({"toml", "ini", "json", "yaml"})
EXAMINED: Final = SHELL | PARSED | {"python"}
"""Languages of blocks; whatever has another one, or none, is there to be looked at."""
_FILE: Final = re.compile(r"# ([\w.-]+\.\w+)\b")


class Failed(AssertionError):
    """A page does not do what it says."""


def logical_lines(text: str) -> list[str]:
    """Commands as they are typed: a line that ends with a backslash goes on in the next one."""
    return [line for line in text.replace("\\\n", "\x00").split("\n") if line.strip()]


def command_of(line: str) -> str:
    """As `not_run` names it: on one line, without the prompt and a comment behind it."""
    one_line = re.sub(r"\s*\x00\s*", " ", line).strip().removeprefix("$ ")
    return re.sub(r"\s{2,}#.*$", "", one_line).strip()


def run(blocks: Iterable[Block], world: World, not_run: set[str]) -> str:
    """Runs them, and returns what they have printed. Failed: where, and what was printed before."""
    lines, expected = ["set -eu"], []
    for block in _joined(blocks):
        lines.append(f"printf '%s\\n' '@@ {block.where}'")
        match block.language:
            case "sh":
                lines.append(world.moved(_without(block.text, not_run)))
            case "console":
                for number, (command, output) in enumerate(_dialogue(block.text)):
                    if command_of(command) in not_run:
                        continue
                    path = world.home.parent / f"{block.line}-{number}.out"
                    text = world.moved(command.replace("\x00", "\\\n"))
                    lines.append(
                        f"{{ {text}\n}} > {shlex.quote(str(path))} 2>&1 || {{ cat {path}; exit 1; }}\ncat {path}"
                    )
                    expected.append((block, command, output, path))
            case "python":
                path = world.home.parent / f"{block.line}.py"
                path.write_text(world.moved(block.text), encoding="utf-8")
                lines.append(f"python {shlex.quote(str(path))}")
            case language:
                parse(language, block.text)
                if name := _FILE.match(block.text):
                    (world.home / name[1]).write_text(world.moved(block.text), encoding="utf-8")
    printed = _run_shell("\n".join(lines), world)
    for block, command, output, path in expected:
        if output.strip() and not _matches(output, path.read_text(encoding="utf-8", errors="replace")):
            raise Failed(f"{block.where}: {command!r} should print\n{output}\nand prints\n{path.read_text()}")
    return printed


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of Python that follow each other are one program."""
    before: Block | None = None
    for block in blocks:
        if before is not None and before.language == block.language == "python":
            before = replace(before, text=f"{before.text}\n# {block.where}\n{block.text}")
            continue
        if before is not None:
            yield before
        before = block
    if before is not None:
        yield before


def parse(language: str, text: str) -> Any:
    """A file's text as its program would read it; whatever the parser raises if it would not."""
    match language:
        case "toml":
            return tomllib.loads(text)
        case "json":
            return json.loads(text)
        case "yaml":
            return yaml.safe_load(text)
        case _:
            parser = configparser.RawConfigParser(strict=False, allow_no_value=False)
            parser.optionxform = str  # type: ignore[method-assign, assignment]  # as documented: names keep their case
            parser.read_string(text if re.search(r"^\[", text, re.M) else f"[variables]\n{text}")
            return parser


def _without(text: str, not_run: set[str]) -> str:
    kept = [line for line in text.replace("\\\n", "\x00").split("\n") if command_of(line) not in not_run]
    return "\n".join(kept).replace("\x00", "\\\n")


def _dialogue(text: str) -> list[tuple[str, str]]:
    """Commands (after `$ `) and what is printed after each."""
    found: list[tuple[str, str]] = []
    for line in text.replace("\\\n", "\x00").split("\n"):
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), ""))
        elif found:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def _matches(expected: str, printed: str) -> bool:
    """`…` stands for any text, as one that differs from run to run."""
    parts = [re.escape(part) for part in " ".join(expected.split()).split("…")]
    return re.fullmatch(".*".join(parts), " ".join(printed.split()), re.S) is not None


def _run_shell(script: str, world: World) -> str:
    path = world.home.parent / "page.sh"
    path.write_text(script, encoding="utf-8")
    log = world.home.parent / "page.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", str(path)],
            cwd=world.home,
            env=world.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    printed = log.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        last = re.findall(r"^@@ (.*)$", printed, re.M)[-1:]
        raise Failed(f"{world.page}: exit code {code} after {last}\n{printed[-6000:]}")
    return printed


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever the page has left behind in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    process.wait()
