"""docs/v2-defects.md: every entry has its row, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "v2-defects.md").read_text().splitlines()
    if re.match(r"\| [CB]\d+ \|", line)
]


def test_every_entry_has_its_row() -> None:
    entries = [*(f"C{number}" for number in range(1, 21)), *(f"B{number}" for number in range(1, 13))]
    assert [row[0] for row in ROWS] == entries
    assert all(len(row) == 4 and row[1] and row[2] for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_shows_it_exists(row: list[str]) -> None:
    tests = re.findall(r"`(tests/[^`:]+)::(\w+)`", row[3])
    decisions = re.findall(r"`(spec/decisions/[^`]+)`", row[2])
    assert tests or decisions, "a test or a reason"
    for file, name in tests:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"
    for file in decisions:
        assert (ROOT / file).exists()
