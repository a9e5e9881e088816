"""Unpacking: `dewy.archive` beside the tools that people would use, on the same archives.

`python -m bench.unpack ARCHIVE DIRECTORY DURABLE` unpacks one, and prints the seconds that it took.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.page import MIB, TINY, Scale, load, plot, process, python, spread, table, verdict
from dewy.archive.streams import zstd

FORMATS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "7z")
WITHIN = 1.2
SMALL = 2_000
"""Bytes of a small file, on average."""


def tools(archive: Path, target: Path) -> dict[str, list[str]]:
    """Commands that unpack `archive` into the empty directory `target`, of the programs that are here."""
    known = {"bsdtar": ["bsdtar", "-xf", str(archive), "-C", str(target)]}
    if archive.suffix == ".zip":
        known["unzip"] = ["unzip", "-q", str(archive), "-d", str(target)]
    elif archive.suffix == ".7z":
        known["7z"] = ["7z", "x", "-y", "-bd", f"-o{target}", str(archive)]
    else:
        known["tar"] = ["tar", "-xf", str(archive), "-C", str(target)]
    return {name: command for name, command in known.items() if shutil.which(name)}


def _fill(directory: Path, size: int, *, small: bool) -> None:
    """Content that packs to about a half, as programs do: one file, or many in directories of fifty."""
    chance = random.Random(1)
    if small:
        for i in range(max(20, min(size // SMALL // 4, 10_000))):
            file = directory / f"d{i // 50}" / f"f{i}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(chance.randbytes(chance.randrange(SMALL)).hex().encode())
    else:
        with (directory / "big").open("wb") as file:
            for _ in range(size // MIB):
                file.write(chance.randbytes(MIB // 2).hex().encode())


def _pack(source: Path, archive: Path) -> None:
    if archive.suffix == ".zip":
        shutil.make_archive(str(archive.with_suffix("")), "zip", source)
    elif archive.suffix == ".7z":
        import py7zr

        with py7zr.SevenZipFile(archive, "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 1}]) as file:
            for child in sorted(source.iterdir()):
                file.writeall(child, child.name)
    elif archive.suffix == ".zst":
        with zstd.open(archive, "wb") as out, tarfile.open(fileobj=out, mode="w|") as tar:
            tar.add(source, ".")
    else:
        with tarfile.open(archive, "w:" + archive.suffix[1:].removesuffix("tar")) as tar:
            tar.add(source, ".")


class Race:
    """One archive; every program unpacks it by turns."""

    def __init__(self, archive: Path, directory: Path) -> None:
        self.archive = archive
        self._directory = directory
        self.seconds: dict[str, list[float]] = {}
        self.peak: dict[str, float] = {}

    def turn(self) -> None:
        target = self._directory / "out"
        for durable in (False, True):
            name = "dewy, durable" if durable else "dewy"
            self._one(name, python("-m", "bench.unpack", str(self.archive), str(target), str(int(durable))), None)
        for name, command in tools(self.archive, target).items():
            self._one(name, command, target)

    def _one(self, name: str, command: list[str], target: Path | None) -> None:
        if target is not None:
            target.mkdir()
        os.sync()  # what others have left to write is not on this one's account
        cost = process(command)
        seconds = cost.seconds if target is not None else float(cost.out)
        self.seconds.setdefault(name, []).append(seconds)
        self.peak[name] = max(self.peak.get(name, 0.0), cost.peak)
        shutil.rmtree(self._directory / "out")

    def ratio(self) -> float:
        """Our median, not synced as theirs is not, to that of the fastest other; NaN where no tool is installed."""
        medians = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        others = [seconds for name, seconds in medians.items() if not name.startswith("dewy")]
        return medians["dewy"] / min(others) if others else math.nan


def races(scale: Scale) -> dict[tuple[str, str], Race]:
    found = {}
    with tempfile.TemporaryDirectory() as home:
        directory = Path(home)
        for content in ("small files",) if scale is TINY else ("one file", "small files"):
            source = directory / content
            source.mkdir()
            _fill(source, scale.archive, small=content == "small files")
            for kind in FORMATS:
                race = found[content, kind] = Race(directory / f"{content}.{kind}", directory)
                _pack(source, race.archive)
                for _ in range(scale.repeats):
                    race.turn()
                race.archive.unlink()
            shutil.rmtree(source)
    return found


def section(scale: Scale, directory: Path) -> str:
    """Markdown; the plot goes into `directory`."""
    found = races(scale)
    rows, goals = [], []
    for (content, kind), race in found.items():
        for name, seconds in race.seconds.items():
            rows.append([f"{kind}, {content}", name, spread(seconds), f"{race.peak[name]:.0f}"])
        goals.append(verdict(f"{kind}, {content}: dewy to the fastest tool", race.ratio(), WITHIN, " times"))

    def draw(figure: object) -> None:
        axes = figure.subplots()  # type: ignore[attr-defined]  # matplotlib's Figure, which mypy is not shown
        places = range(len(found))
        axes.bar(places, [race.ratio() for race in found.values()])
        axes.axhline(WITHIN, color="tab:red", linestyle=":", label=f"goal: {WITHIN}")
        axes.axhline(1, color="grey", linewidth=1)
        axes.set_xticks(places, [f"{kind}\n{content}" for content, kind in found], fontsize="x-small", rotation=45)
        axes.set_ylabel("times the fastest tool")
        axes.legend()

    return f"""## Unpacking

About {scale.archive // MIB} MiB of half-random content in one file, and a small part of that in files of 0 to \
{2 * SMALL // 1000} KB. Seconds, median (least-most) of {scale.repeats}, by turns; MiB of memory at most, of whole \
processes (Python's own is {_bare():.0f}). The tools do not sync, so `dewy` is measured without it beside them, in a \
Python that runs already, as a node's does; `durable` is what a node does. {load()}.

{table(["archive", "by", "seconds", "peak"], rows)}

{plot(directory / "benchmarks-unpack.svg", draw)}

{chr(10).join(goals)}
"""


def _bare() -> float:
    return process(python("-c", "import dewy.archive, time; time.sleep(0.05)")).peak


def main(arguments: list[str]) -> None:
    from dewy.archive import extract

    archive, target, durable = arguments
    if archive.endswith(".7z"):
        import dewy.archive.sevenzip  # noqa: F401 - a node pays for this import once
    clock: Callable[[], float] = time.perf_counter
    began = clock()
    extract(Path(archive), Path(target), durable=durable == "1")
    print(clock() - began)


if __name__ == "__main__":
    main(sys.argv[1:])
