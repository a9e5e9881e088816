"""ENVDIR: variables of the application, read anew at each start."""

from __future__ import annotations

from pathlib import Path

import pytest

from dewy.assembly import overlap
from dewy.envdir import with_envdir
from dewy.errors import ConfigError, StartFailed
from tests.dewy.supervised import application


def test_as_envdir_of_daemontools_reads_them(tmp_path: Path) -> None:
    for name, content in {
        "PLAIN": b"value\n",
        "NO_NEWLINE": b"value",
        "BLANKS": b"  value \t\nsecond line\n",
        "LINES": b"one\0two\n",
        "EMPTY_LINE": b"\n",
        "GONE": b"",
        "BYTES": b"\xff\n",
        ".hidden": b"x",
        "A=B": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "directory").mkdir()
    env = {"ENVDIR": str(tmp_path), "GONE": "old", "PLAIN": "old", "KEPT": "old"}
    assert with_envdir(env) == {
        "ENVDIR": str(tmp_path),
        "KEPT": "old",
        "PLAIN": "value",
        "NO_NEWLINE": "value",
        "BLANKS": "  value",
        "LINES": "one\ntwo",
        "EMPTY_LINE": "",
        "BYTES": "\udcff",
    }


def test_without_it_nothing_changes() -> None:
    assert with_envdir({"A": "b"}) == {"A": "b"}
    assert with_envdir({"A": "b", "ENVDIR": ""}) == {"A": "b", "ENVDIR": ""}


def test_a_restart_takes_a_changed_value_and_a_missing_directory_keeps_the_old_worker(tmp_path: Path) -> None:
    directory = tmp_path / "env"
    directory.mkdir()
    (directory / "COLOUR").write_text("red\n")
    with application(tmp_path / "app") as app:
        app.env["ENVDIR"] = str(directory)
        app.supervisor.start()
        assert app.get("/env")["COLOUR"] == "red"
        (directory / "COLOUR").write_text("blue\n")
        app.supervisor.restart()
        app.wait_drained()
        assert app.get("/env")["COLOUR"] == "blue"
        directory.rename(tmp_path / "away")
        with pytest.raises(StartFailed, match=f"ENVDIR: {directory}: No such file") as failed:
            app.supervisor.restart()
        assert failed.value.host, "no fault of the release's"
        assert app.get("/env")["COLOUR"] == "blue"


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, 0.0),
        ({"KILL_OLD_DELAY": "3"}, 3.0),
        ({"KILL_OLD_DELAY": "1m"}, 60.0),
        ({"ENABLE_AUTO_RESTART": "1"}, 5.0),
        ({"ENABLE_AUTO_RESTART": "true", "KILL_OLD_DELAY": "2"}, 2.0),
        ({"ENABLE_AUTO_RESTART": "0"}, 0.0),
    ],
)
def test_how_long_old_and_new_serve_together(env: dict[str, str], seconds: float) -> None:
    assert overlap(env) == seconds


def test_a_bad_delay_is_wrong_usage() -> None:
    with pytest.raises(ConfigError, match="KILL_OLD_DELAY: 'soon'"):
        overlap({"KILL_OLD_DELAY": "soon"})
