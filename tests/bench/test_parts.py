"""Every part of the benchmarks still runs, in its tiniest size. What it measures decides nothing here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.page import ROOT, spread, table, verdict
from bench.parts import PARTS

PLOTS = {"fleet": "benchmarks-fleet.svg", "unpack": "benchmarks-unpack.svg"}


QUICK = ("hits", "contended")


@pytest.mark.servers
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[] if part in QUICK else pytest.mark.soak) for part in PARTS]
)
def test_runs(part: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.parts", "--scale=tiny", f"--into={tmp_path}", part]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## ")
    assert "\n| ---" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ([PLOTS[part]] if part in PLOTS else [])


def test_verdict() -> None:
    assert verdict("calls", 1, 1) == "- calls: 1, goal at most 1: reached"
    assert verdict("memory", 61.2, 60, " MiB") == "- memory: 61.2 MiB, goal at most 60 MiB: **not reached**"


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"


def test_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"
