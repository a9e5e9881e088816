"""Starting and idling: whole processes, a node that has nothing to do, and how soon it notices a release."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.page import ROOT, Scale, load, process, python, spread, table, verdict
from tests.fakes.github import FakeGitHub
from tests.servers import Seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN = 1.5
MEMORY = 60.0
"""MiB."""
INTERVAL = 2.0
"""Seconds between two polls of the node that waits for releases; that of the idle one is dewy's default."""
ASSET = "app_linux_amd64.tar.gz"
PATIENCE = 120.0


@dataclass(frozen=True)
class Idle:
    """A node at rest. Wake-ups: times a minute that one of its threads went to sleep by itself."""

    memory: float
    wakeups: float
    cpu: float
    threads: int


def starts(repeats: int) -> dict[str, list[float]]:
    """Milliseconds of whole processes, by turns."""
    commands = {
        "python -c pass": python("-c", "pass"),
        "python -c 'import typer'": python("-c", "import typer"),
        "python -c 'import kvcache'": python("-c", "import kvcache"),
        "dewy --help": python("-m", "dewy", "--help"),
        "kvcache --help": python("-c", "import sys; from kvcache.cli import main; sys.argv[1:] = ['--help']; main()"),
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            found[name].append(process(command).seconds * 1000)
    return found


@contextmanager
def node(root: Path, options: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`dewy assets` in a directory of its own."""
    root.mkdir()
    with (root.parent / f"{root.name}.log").open("wb") as log:
        running = subprocess.Popen(
            python("-m", "dewy", "assets", *options),
            cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(PATIENCE)


def serves(root: Path, text: str) -> float:
    """Waits until the node at `root` serves a release with this text; the monotonic time when it does."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        try:
            if (root / "current" / "VERSION").read_text() == text:
                return time.monotonic()
        except FileNotFoundError:
            pass
        time.sleep(0.005)
    log = (root.parent / f"{root.name}.log").read_text()[-2000:]
    raise RuntimeError(f"{root.name}: {text} is not served after {PATIENCE:g} s: {log}")


def _looked(pid: int) -> tuple[int, int, int, float]:
    """Switches that threads made by themselves, ticks of the processor, threads, MiB resident."""
    process = Path(f"/proc/{pid}")
    switches = threads = 0
    for task in (process / "task").iterdir():
        status = (task / "status").read_text().splitlines()
        switches += int(next(line.split()[1] for line in status if line.startswith("voluntary_ctxt_switches")))
        threads += 1
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    status = (process / "status").read_text().splitlines()
    memory = int(next(line.split()[1] for line in status if line.startswith("VmRSS")))
    return switches, int(fields[11]) + int(fields[12]), threads, memory / 1024


def rest(pid: int, seconds: float) -> Idle:
    before, began = _looked(pid), time.monotonic()
    time.sleep(seconds)
    after, minutes = _looked(pid), (time.monotonic() - began) / 60
    ticks = (after[1] - before[1]) / os.sysconf("SC_CLK_TCK")
    return Idle(after[3], (after[0] - before[0]) / minutes, ticks / minutes / 60 * 100, after[2])


def _release(directory: Path, text: str) -> bytes:
    source = directory / f"release-{text}"
    source.mkdir()
    (source / "VERSION").write_text(text)
    return Path(shutil.make_archive(str(source), "gztar", source)).read_bytes()


def nodes(scale: Scale) -> tuple[dict[str, Idle], list[float]]:
    """Nodes at rest, by their cache; seconds from publishing to serving, of each release."""
    found: dict[str, Idle] = {}
    noticed = []
    with tempfile.TemporaryDirectory() as home, FakeGitHub() as github, Seaweed() as seaweed:
        directory, env = Path(home), {**github.env, **seaweed.env}
        github.publish("v1.0.0", {ASSET: _release(directory, "0")})
        bucket = seaweed.create_bucket()
        caches = {"S3": ["--cache", seaweed.store_url(bucket, "idle")], "its own directory": []}
        for name, cache in caches.items():
            root = directory / f"idle-{len(found)}"
            with node(root, ["--registry", github.registry, *cache], env) as running:
                serves(root, "0")
                time.sleep(min(scale.idle / 10, 3))  # what it does right after a deploy is not idling
                found[name] = rest(running.pid, scale.idle)
        # An answer is shared for a ttl, which here is as long as the interval.
        url = f"{seaweed.store_url(bucket, 'serve')}&registry-ttl={INTERVAL:g}s"
        root = directory / "serving"
        with node(root, ["--registry", github.registry, "-i", f"{INTERVAL:g}s", "--cache", url], env):
            serves(root, "0")
            for number in range(1, scale.releases + 1):
                data = _release(directory, str(number))
                time.sleep(INTERVAL * (number * 0.618 % 1))  # not in step with the polls
                github.publish(f"v1.0.{number}", {ASSET: data})
                published = time.monotonic()
                noticed.append(serves(root, str(number)) - published)
    return found, noticed


def section(scale: Scale, _: Path) -> str:
    """Markdown."""
    begun = starts(max(scale.repeats, 3))
    found, noticed = nodes(scale)
    typer = min(begun["python -c 'import typer'"])
    rows = [[f"`{name}`", spread(values, 0), f"{min(values) / typer:.2f}"] for name, values in begun.items()]
    idling = [
        [name, f"{idle.memory:.1f}", str(idle.threads), f"{idle.wakeups:.0f}", f"{idle.cpu:.2f}"]
        for name, idle in found.items()
    ]
    goals = [
        *(
            verdict(f"`{name}`, to `import typer`", min(begun[name]) / typer, WITHIN, " times")
            for name in ("dewy --help", "python -c 'import kvcache'")
        ),
        verdict("memory of an idle node with S3", found["S3"].memory, MEMORY, " MiB"),
    ]
    return f"""## Starting and idling

Milliseconds of whole processes, median (least-most) of {max(scale.repeats, 3)}; the ratio is of the least; {load()}. \
typer {version("typer")}, Python {sys.version.split()[0]}.

{table(["process", "ms", "times `import typer`"], rows)}

`dewy assets` after its first deploy, an interval of 10 s, over {scale.idle:g} s. Wake-ups are voluntary switches of \
all threads; a poll is several of them.

{table(["cache", "MiB resident", "threads", "wake-ups a minute", "% of a core"], idling)}

From publishing to serving, an interval and a registry-ttl of {INTERVAL:g} s each, {len(noticed)} releases: \
{spread(noticed)} s, {max(noticed) / INTERVAL:.1f} intervals at most.

{chr(10).join(goals)}
"""
