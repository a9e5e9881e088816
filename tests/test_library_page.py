"""docs/library.md: every example is run as a reader would, from the top down, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
import uuid
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:```\n(.*?)```\n)?", re.DOTALL)


def test_every_example_prints_what_the_page_says():
    examples = EXAMPLE.findall(PAGE.read_text())
    assert len(examples) >= 8
    names: dict[str, object] = {"__name__": "__main__"}
    fresh = uuid.uuid4().hex  # the stores in memory are this test's own
    for code, expected in examples:
        assert expected or "print(" not in code, "an example that prints, and a page that does not say what"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace("memory://", f"memory://{fresh}-"), str(PAGE), "exec"), names)
        assert printed.getvalue() == expected


def test_every_page_that_is_linked_to_exists():
    for page in (PAGE, *PAGE.parent.glob("stores-*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
