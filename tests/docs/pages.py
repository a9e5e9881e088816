"""The pages of the documentation, taken apart: fenced blocks, tables, headings and links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^(?P<indent>[ ]*)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.S | re.M)
_LINK: Final = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<to>[^()\s]+(?:\([^()]*\))?)(?:\s+\"[^\"]*\")?\)")
_CODE: Final = re.compile(r"(`+)(?:(?!\1).)+?\1", re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is that of its first line, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that a reader may meet."""
    return [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        language = found["info"].strip().split(" ")[0]
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(name_of(page), line, language, textwrap.dedent(found["text"]))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """Where the page's links lead, as written."""
    for found in _LINK.finditer(_CODE.sub("", prose(page))):
        yield found["to"]


def anchors(page: Path) -> set[str]:
    """What may stand after `#`: headings, as GitHub and MkDocs name them both, and explicit ids."""
    text = prose(page)
    headings = re.findall(r"^#{1,6}[ ]+(.+?)[ ]*#*$", text, re.M)
    return {slug(heading) for heading in headings} | set(re.findall(r"(?:id=\"|\{ ?#)([\w.-]+)", text))


def slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    plain = re.sub(r"[^\w\s-]", "", plain.lower()).strip()
    return re.sub(r"[-\s]+", "-", plain)


def rows(page: Path, first_heading: str) -> list[list[str]]:
    """The cells of all tables whose first column has this heading."""
    found: list[list[str]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if cells[0] == first_heading:
            inside = True
        elif inside and not set(cells[0]) <= set(":- "):
            found.append(cells)
    return found
