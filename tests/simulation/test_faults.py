"""`--faults` and the command."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvcache.cli import kvcache
from kvcache.simulation.faults import KINDS, Fault, parse_faults

QUICK = ["simulate", "--nodes", "20", "--hours", "0.1", "--seed", "7"]


def test_faults_are_read() -> None:
    assert parse_faults("upstream-down@10m-20m, lost=0.1,crash-leader@90 , store-down=0.5@30") == (
        Fault("upstream-down", 1.0, 600, 1200),
        Fault("lost", 0.1, 0, math.inf),
        Fault("crash-leader", 0.0, 90, 90),
        Fault("store-down", 0.5, 30, math.inf),
    )
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("flood", "unknown fault 'flood'"),
        ("lost", "expected lost=NUMBER"),
        ("lost=x", "'x': expected a positive number, at most 1"),
        ("lost=2", "at most 1"),
        ("lost=0", "positive"),
        ("crash=inf", "positive"),
        ("crash=nan", "positive"),
        ("upstream-down@1200-600", "ends before it starts"),
        ("upstream-down@soon", "'soon': expected seconds"),
        ("crash-leader", "expected crash-leader@TIME"),
        ("crash-leader=1@5", "expected crash-leader@TIME"),
        ("pause-leader@5-6", "expected pause-leader@TIME"),
    ],
)
def test_a_wrong_fault_is_told_in_one_line(text: str, named: str) -> None:
    with pytest.raises(ValueError, match="--faults") as error:
        parse_faults(text)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_every_fault_says_what_its_value_means() -> None:
    assert all(kind.meaning for kind in KINDS.values())


def test_the_command_writes_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    files = []
    for hash_seed in ("1", "2"):
        file = tmp_path / f"{hash_seed}.json"
        command = [sys.executable, "-m", "kvcache.cli", *QUICK, "--faults", "lost=0.05,crash=30", "--json", str(file)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True)
        files.append(file.read_bytes())
    assert files[0] == files[1]
    assert json.loads(files[0])["workload"]["nodes"] == 20


def test_the_command_sets_both_side_by_side_and_draws_them(tmp_path: Path) -> None:
    plot, report = tmp_path / "run.png", tmp_path / "run.json"
    result = CliRunner().invoke(
        kvcache, [*QUICK, "--dewy-v2", "--faults", "upstream-down@60-120", "--json", str(report), "--plot", str(plot)]
    )
    assert result.exit_code == 0, result.output
    assert "BROKEN" not in result.output.partition("dewy-v2:")[0]
    assert [run["algorithm"] for run in json.loads(report.read_text())["runs"]] == ["kvcache", "dewy-v2"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_broken_bound_is_exit_code_1() -> None:
    result = CliRunner().invoke(kvcache, [*QUICK, "--faults", "store-careless,store-slow=1"])
    assert result.exit_code == 1
    assert "BROKEN I1" in result.output


def test_a_wrong_fault_is_exit_code_2() -> None:
    result = CliRunner().invoke(kvcache, [*QUICK, "--faults", "flood"])
    assert result.exit_code == 2
    assert "unknown fault 'flood'" in result.output


def test_without_matplotlib_the_plot_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = CliRunner().invoke(kvcache, [*QUICK, "--plot", str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert "kvcache-dewy[plot]" in result.output
