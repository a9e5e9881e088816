"""docs/operations.md and the source say the same: every message is explained, and none is made up."""

from __future__ import annotations

import re

from tests.docs.messages import ANY, Message, failures, records
from tests.docs.pages import ROOT, rows

PAGE = ROOT / "docs" / "operations.md"
TELLING = 6
"""Letters that a message of the source has to have, to be one that can be told from others."""


def cells(heading: str) -> list[str]:
    """The messages in the first column of the tables with this heading."""
    return [text for row in rows(PAGE, heading) for text in re.findall(r"`([^`]+)`", row[0])]


def table() -> list[tuple[str, str]]:
    return [(text, row[1]) for row in rows(PAGE, "message") for text in re.findall(r"`([^`]+)`", row[0])]


def fits(shown: str, message: Message) -> bool:
    """Whether what is shown may be what the source says; `…` on either side is any text."""

    def pattern(text: str) -> str:
        return ".*".join(re.escape(part) for part in text.split(ANY))

    return bool(re.fullmatch(pattern(message.text), shown) or re.fullmatch(pattern(shown), message.text))


def contains(shown: str, message: Message) -> bool:
    """The same for an error, of which the page shows the part that tells it from others."""
    parts = [part.strip() for part in shown.split(ANY) if part.strip()]
    return all(part in message.text for part in parts)


def telling(messages: list[Message]) -> list[Message]:
    return [message for message in messages if len(re.sub(r"\W", "", message.words)) >= TELLING]


def test_every_warning_and_error_of_dewy_is_in_the_table_with_its_level() -> None:
    logged = list(records())
    assert len(logged) > 30
    missing = [m for m in logged if not any(fits(text, m) and level == m.kind for text, level in table())]
    assert not missing


def test_the_table_makes_no_message_up() -> None:
    logged = list(records())
    assert not [text for text, _ in table() if not any(fits(text, message) for message in logged)]


def test_every_failure_that_an_operator_meets_is_explained() -> None:
    shown = cells("error")
    for package in ("dewy", "kvcache"):
        found = telling(list(failures(package)))
        assert len(found) > 10
        assert not [message for message in found if not any(contains(text, message) for text in shown)]


def test_the_table_makes_no_failure_up() -> None:
    found = [*failures("dewy"), *failures("kvcache")]
    source = "\n".join(
        path.read_text(encoding="utf-8") for name in ("dewy", "kvcache") for path in (ROOT / name).rglob("*.py")
    )
    for text in cells("error"):
        said = any(contains(text, message) for message in found)
        assert said or all(part.strip() in source for part in text.split(ANY)), text


def test_what_is_read_from_the_source_is_what_is_logged() -> None:
    texts = {(message.kind, message.text) for message in records()}
    assert ("ERROR", "Dewy run failure") in texts
    assert ("WARN", "…; serving stale cache") in texts  # of an f-string
    assert ("ERROR", "Mail send failure") in texts  # of an attribute
    assert ("ERROR", "Server run failure") in texts  # of a table
    assert ("ERROR", "… deploy hook failure") in texts  # of a variable
    assert not [message for message in records() if not message.words]  # or anything would explain it
