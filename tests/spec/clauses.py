"""The clauses of `spec/*.md`, the tests that they name, and the index of them all in `spec/README.md`.

python -m tests.spec.clauses     writes the index anew
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
INDEX = "<!-- the index: written by `python -m tests.spec.clauses` -->"
_CLAUSE = re.compile(r"(?m)^- \*\*([A-Z])(\d+)\*\* (.*(?:\n  \S.*)*)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[([\w ,-]+)\])?`")


class Test(NamedTuple):
    """A test as a clause names it; `case` is the part in brackets."""

    __test__ = False  # no test class of pytest's

    path: str
    name: str
    case: str

    def __str__(self) -> str:
        return f"`{self.path}::{self.name}{f'[{self.case}]' if self.case else ''}`"


class Clause(NamedTuple):
    page: str
    letter: str
    number: int
    text: str
    tests: list[Test]

    @property
    def name(self) -> str:
        return f"{self.letter}{self.number}"


def clauses() -> list[Clause]:
    """All clauses, page by page, in the order in which they are written."""
    found = []
    for page in sorted(SPEC.glob("*.md")):
        for letter, number, body in _CLAUSE.findall(page.read_text()):
            text, _, names = " ".join(body.split()).partition(" Tests: ")
            tests = [Test(*test) for test in _TEST.findall(names)]
            found.append(Clause(page.name, letter, int(number), text, tests))
    return found


def index() -> str:
    """The table of all clauses and their tests."""
    lines = [INDEX, "", "| clause | tests |", "|---|---|"]
    lines += [f"| [{c.name}]({c.page}) | {', '.join(map(str, c.tests))} |" for c in clauses()]
    return "\n".join(lines) + "\n"


def main() -> None:
    page = SPEC / "README.md"
    before, _, _ = page.read_text().partition(INDEX)
    page.write_text(before + index())


if __name__ == "__main__":
    main()
