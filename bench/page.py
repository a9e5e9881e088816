"""What every part of the benchmarks is measured by and written with: sizes, tables, spreads, verdicts, plots."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Scale:
    """How much is measured. `windows`: ttls that a fleet of processes lives; `hours`: what a simulated one does."""

    name: str
    repeats: int
    processes: tuple[int, ...]
    windows: int
    simulated: tuple[int, ...]
    hours: float
    calls: int
    callers: tuple[int, int]
    archive: int
    transfer: int
    idle: float
    releases: int


MIB = 2**20
TINY = Scale("tiny", 1, (2,), 1, (10,), 0.02, 100, (20, 5), MIB, MIB, 0.5, 1)
QUICK = Scale("quick", 3, (1, 10), 4, (1_000,), 0.1, 10_000, (1_000, 100), 16 * MIB, 32 * MIB, 15, 3)
FULL = Scale("full", 5, (1, 10, 100), 10, (1_000, 10_000), 0.25, 20_000, (1_000, 100), 256 * MIB, 256 * MIB, 60, 10)
SCALES = {scale.name: scale for scale in (TINY, QUICK, FULL)}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (least-most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def verdict(what: str, measured: float, most: float, unit: str = "") -> str:
    """One line on a goal: what was measured, against the most that it may be."""
    reached = "reached" if measured <= most else "**not reached**"
    return f"- {what}: {measured:.3g}{unit}, goal at most {most:.3g}{unit}: {reached}"


def microseconds(calls: dict[str, Callable[[int], float]], number: int, repeats: int) -> dict[str, list[float]]:
    """Microseconds a call of each, by turns. Each of `calls` does so many calls and says how many seconds they took."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, run in calls.items():
            found[name].append(run(number) / number * 1e6)
    return found


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds from start to end, and MiB at its most."""

    seconds: float
    peak: float
    out: str


def process(command: Sequence[str], directory: Path = ROOT) -> Cost:
    """Runs a program. Not ru_maxrss, which a process inherits from the one that started it."""
    began, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None:
            peak = max(peak, _high_water(running.pid))
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        assert running.stdout is not None and running.stderr is not None
        out, wrong = running.stdout.read(), running.stderr.read()
    if running.returncode:
        raise RuntimeError(f"{command[0]}: exit code {running.returncode}: {wrong.strip()}")
    return Cost(seconds, peak, out)


def _high_water(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) / 1024


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def plot(file: Path, draw: Callable[[Any], None]) -> str:
    """Draws with matplotlib into an SVG beside the page; Markdown that shows it."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "kvcache"  # names in the file do not differ from run to run
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    draw(figure)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return f"![{file.stem}]({file.name})"


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
