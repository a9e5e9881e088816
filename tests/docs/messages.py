"""What dewy may say when something is wrong, read from its source: the texts of warnings and errors.

`…` stands for what is only known at run time.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT

LEVELS: Final = {"warn": "WARN", "warning": "WARN", "error": "ERROR", "exception": "ERROR"}
FAILURES: Final = {
    "dewy": frozenset(
        {
            *("StartFailed", "DeployError", "DewyError", "Overdue", "Untrusted", "BadSignature"),
            *("UpstreamError", "WrongBytes", "BeyondLimit", "InvalidAnswer", "NoChecksum"),
        }
    ),
    "kvcache": frozenset({"StoreUnavailable", "UpstreamUnavailable", "Throttled"}),
}
"""What a record's `error=` may hold, by package."""
_BESIDE_THE_POINT: Final = ("kvcache/conformance", "kvcache/simulation")
ANY: Final = "…"


@dataclass(frozen=True)
class Message:
    """`kind` is the level of a record, or the error's class."""

    kind: str
    text: str
    where: str

    @property
    def words(self) -> str:
        """The longest part that is always there."""
        return max(self.text.split(ANY), key=len).strip(" :;,")


def records() -> Iterator[Message]:
    """What dewy logs as WARN or ERROR."""
    for path, tree in _modules("dewy"):
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=log, attr=how), args=[message, *_]):
                    is_record = re.search(r"\blog$|_log$", ast.unparse(log)) is not None
                case ast.Tuple(elts=[ast.Attribute(value=ast.Name(id="Log"), attr=how), message]):
                    is_record = True  # a row of a table: how to write, and what
                case _:
                    continue
            if is_record and how in LEVELS:
                yield from _messages(LEVELS[how], message, path, node.lineno)


def failures(package: str) -> Iterator[Message]:
    """What stands in `error=`, where the package itself says it (and not a disk, or a server)."""
    for path, tree in _modules(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAILURES[package]:
                for argument in node.args[:1]:
                    yield from _messages(node.func.id, argument, path, node.lineno)


def _modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        if not str(path.relative_to(ROOT)).startswith(_BESIDE_THE_POINT):
            yield path, _parsed(path)


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _messages(kind: str, expression: ast.expr, path: Path, line: int) -> Iterator[Message]:
    for text in _texts(expression, path):
        yield Message(kind, re.sub(r"%[sdr]", ANY, text), f"{path.relative_to(ROOT)}:{line}")


def _texts(expression: ast.expr, path: Path) -> list[str]:
    """The texts that an expression may have. A name has those that its module assigns to it."""
    match expression:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            parts = (part.value if isinstance(part, ast.Constant) else ANY for part in values)
            return ["".join(str(part) for part in parts)]
        case ast.BinOp(left=left, right=right):
            return [a + b for a in _texts(left, path) for b in _texts(right, path)]
        case ast.Name(id=name) | ast.Attribute(attr=name):
            siblings = [path] if isinstance(expression, ast.Name) else _homes(expression, path)
            assigned = [text for sibling in siblings for text in _assigned(sibling, name)]
            return assigned or [ANY]
        case _:
            return [ANY]


def _homes(attribute: ast.Attribute, path: Path) -> list[Path]:
    """Modules in which an attribute may get its value: the one that it is an attribute of, else any beside this one."""
    module = path.with_name(f"{ast.unparse(attribute.value)}.py")
    return [module] if module.exists() else sorted(path.parent.glob("*.py"))


def _assigned(path: Path, name: str) -> Iterator[str]:
    for node in ast.walk(_parsed(path)):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == name and isinstance(value, ast.Constant | ast.JoinedStr):
                yield from _texts(value, path)
