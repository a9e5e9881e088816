"""The table of metrics in docs/monitoring.md, as the instruments have it; and a look at a node's pages.

python -m tests.dewy.monitoring_page    prints it, for the page
"""

from __future__ import annotations

import json
from typing import Any

from dewy.telemetry.instruments import INSTRUMENTS, Instrument
from tests.servers.process import direct


def row(instrument: Instrument) -> str:
    """One line of the table."""
    labels = ", ".join(
        f"`{name}`" + (f" ({', '.join(values)})" if values else "") for name, values in instrument.labels.items()
    )
    return f"| `{instrument.exposed}` | {instrument.kind.value} | {labels} | {instrument.about} |"


def table() -> str:
    head = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    return "\n".join([*head, *map(row, INSTRUMENTS)])


def get(port: int, path: str) -> Any:
    """A page of a node's on this host; JSON as what it says."""
    with direct.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


if __name__ == "__main__":
    print(table())
