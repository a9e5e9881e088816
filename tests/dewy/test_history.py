"""`dewy history`: what is written, in what bounds, and that nothing of it can hurt a deploy."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from dewy.events import Deployed, DeployFailed, Obtained, Restarted, RolledBack, TickEnded
from dewy.history import MOST_LINES, NAME, History, as_text

EVENTS = [
    Deployed("v2", "v2--a", "v1", "/app/releases/2", 1.25),
    DeployFailed("v3", "v3--a", "did not come up", 3.0),
    RolledBack("v3", "v2", "did not come up"),
    Restarted("v2", "signal"),
    Restarted("v2", "start"),
    Restarted("v2", "deploy"),  # told by Deployed already
    Restarted("v2", "rollback"),
    Obtained("v2--a", "store", 5, 1.0),
    TickEnded(1.0),
]


def test_what_happened_is_written_and_read(tmp_path: Path) -> None:
    history = History(tmp_path / "deep", now=lambda: 1764032461.25)
    assert history.read() == []
    for event in EVENTS:
        history(event)
    deeds = history.read()
    assert [deed["what"] for deed in deeds] == ["deployed", "failed", "rolled back", "restarted", "started"]
    assert deeds[0] == {
        "at": 1764032461.25,
        "what": "deployed",
        "tag": "v2",
        "key": "v2--a",
        "previous": "v1",
        "release": "/app/releases/2",
        "duration": 1.25,
    }


def test_a_line_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path, now=lambda: 1764032461.25)
    for event in EVENTS:
        history(event)
    history.add("pinned", tag="v2")
    lines = [as_text(deed).partition("  ")[2] for deed in history.read()]
    assert lines == [
        "deployed     v2 (before: v1) in 1.2 s",
        "failed       v3: did not come up",
        "rolled back  from v3 to v2: did not come up",
        "restarted    v2",
        "started      v2",
        "pinned       v2",
    ]


def test_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("".join(json.dumps({"at": n, "what": "deployed"}) + "\n" for n in range(MOST_LINES)))
    history = History(tmp_path)
    history.add("pinned", tag="x" * 10_000)
    deeds = history.read()
    assert len(deeds) == MOST_LINES // 2 and deeds[-1]["what"] == "pinned" and deeds[-2]["at"] == MOST_LINES - 1
    assert len(deeds[-1]["tag"]) == 500


def test_secrets_are_not_written_down(tmp_path: Path) -> None:
    history = History(tmp_path, hide=lambda text: text.replace("hunter2", "***"))
    history(DeployFailed("v3", "v3--a", "https://u:hunter2@host: refused", 3.0))
    assert (
        "hunter2" not in (tmp_path / NAME).read_text() and history.read()[0]["error"] == "https://u:***@host: refused"
    )


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(
        b'{"at": 1, "what": "deployed"}\n{"at": 2, "wh\n\xff\n[]\n{"at": 3, "what": "pinned"}\n'
    )
    assert [deed["at"] for deed in History(tmp_path).read()] == [1, 3]


def test_what_cannot_be_written_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    History(tmp_path / "file" / "below").add("pinned", tag="v1")


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    history = History(tmp_path)
    threads = [
        threading.Thread(target=lambda n=n: [history.add("deployed", tag=f"{n}-{i}") for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tags = [deed["tag"] for deed in history.read()]
    assert sorted(tags) == sorted(f"{n}-{i}" for n in range(4) for i in range(50))
