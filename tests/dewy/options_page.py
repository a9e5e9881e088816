"""The tables of docs/reference-options.md, out of `dewy.options`.

python -m tests.dewy.options_page        writes them into the page
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dewy.options import GROUPS, Option

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference-options.md"
BEGIN: Final = "<!-- tables: python -m tests.dewy.options_page -->\n"
END: Final = "<!-- end of tables -->\n"


def tables() -> str:
    """One section a group."""
    return "\n".join(line for heading, rows in GROUPS.items() for line in _section(heading, rows)) + "\n"


def updated(page: str) -> str:
    """The page with the tables as they have to be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


def _section(heading: str, rows: tuple[Option, ...]) -> Iterator[str]:
    yield f"### {heading}"
    yield ""
    yield "| option | variable | default | meaning | accepted |"
    yield "|---|---|---|---|---|"
    for row in rows:
        short = f"`-{row.short}`, " if row.short else ""
        value = f" {row.kind.metavar}" if row.kind.metavar else ""
        names = f"{short}`{row.flag}{value}`"
        default = f"`{row.default_shown or row.default}`" if row.default_shown or row.default else ""
        only = f" Only of `{row.only}`." if row.only else ""
        yield f"| {names} | `{row.variable}` | {default} | {_cell(row.about)}{only} | {_cell(row.kind.form)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
