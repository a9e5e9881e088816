"""`make bench`: measures and writes docs/benchmarks.md. `--quick` takes smaller numbers."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from importlib.metadata import version
from pathlib import Path

import kvcache
from bench import latency
from bench.page import FULL, QUICK
from bench.parts import sections
from tests.servers import FakeGCS, Seaweed

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("s3fs", "gcsfs", "boto3", "obstore", "aiobotocore", "fsspec")


def hit() -> float:
    """Microseconds of a `get` whose answer is in hand."""
    cache = kvcache.SharedCache(kvcache.open_store("memory://bench"), ttl=3600)
    cache.get("k", lambda ctx: {"tag": "v1"})
    return min(timeit.repeat(lambda: cache.get("k", lambda ctx: None), number=20_000, repeat=7)) / 20_000 * 1e6


def starts() -> dict[str, float]:
    """Milliseconds of whole processes, the best of seven."""
    codes = {"python": "pass", "import kvcache": "import kvcache"}
    codes |= {code: code for code in ("from kvcache import SharedCache", "import kvcache.cli", "import dewy.cli")}
    found = {}
    for name, code in codes.items():
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - began)
        found[name] = min(times) * 1000
    return found


def transfers(server: Seaweed | FakeGCS, clients: list[str], size: int, rounds: int) -> list[list[str]]:
    bucket = server.create_bucket()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        with (Path(directory) / "source").open("wb") as file:
            chunk = random.Random(1)
            for _ in range(size // 2**20):
                file.write(chunk.randbytes(2**20))
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for client in clients:
                command = [sys.executable, "-m", "bench.transfer", client, server.store_url(bucket, "bench")]
                done = subprocess.run(
                    [*command, server.url, bucket, str(size), directory],
                    env={**os.environ, **server.env}, cwd=ROOT, check=True, capture_output=True, text=True,
                )  # fmt: skip
                results.setdefault(client, []).append(json.loads(done.stdout.splitlines()[-1]))
    for client, found in results.items():
        values = {name: [one[name] for one in found] for name in found[0]}
        speeds = [
            f"{statistics.median(values[n]):.0f} ({min(values[n]):.0f}-{max(values[n]):.0f})" for n in ("up", "down")
        ]
        rows.append([server.name, client, *speeds, f"{max(values['up_peak']):.0f}", f"{max(values['peak']):.0f}"])
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def main() -> None:
    quick = "--quick" in sys.argv
    rounds, size, repeats = (100, 256 * 2**20, 1) if quick else (latency.ROUNDS, 256 * 2**20, 3)
    with Seaweed() as seaweed, FakeGCS() as gcs:
        os.environ.update({**seaweed.env, **gcs.env})
        small = latency.on_s3(seaweed, rounds) + latency.on_gcs(gcs, rounds)
        ways = ["kvcache", "put_file, get_file", "open"]
        large = transfers(seaweed, [*ways, "kvcache, obstore", "obstore"], size, repeats)
        large += transfers(gcs, ways, size, repeats)
    bare = {row.server: row for row in small if row.client.startswith("bare")}
    rows = [
        [
            row.server,
            row.client,
            f"{row.read[0]:.2f} / {row.read[1]:.2f}",
            f"{row.read[0] / bare[row.server].read[0]:.2f}",
            f"{row.write[0]:.2f} / {row.write[1]:.2f}",
            f"{row.write[0] / bare[row.server].write[0]:.2f}",
        ]
        for row in small
    ]
    load = f"{os.getloadavg()[0]:.1f}"
    text = f"""# Benchmarks

Written by `make bench`{" (quick)" if quick else ""} on {time.strftime("%Y-%m-%d")}: {platform.platform()}, Python \
{platform.python_version()}, {os.cpu_count()} cores, load {load} at the end.
{", ".join(f"{name} {version(name)}" for name in PACKAGES)}. All servers on loopback. Compare ratios within the run, not
milliseconds between machines.

## The library's own cost

An answer in hand: {hit():.2f} µs a `get`. Whole processes: \
{", ".join(f"`{name}` {value:.0f} ms" for name, value in starts().items())}.

## A versioned read, a conditional write: 1 KB

Milliseconds, median / 90th percentile of {rounds}, the clients taking turns; the ratio is to the bare client.
Goal: at most 1.10. The bare write to Google Cloud Storage has an entry of metadata, as kvcache's has.

{table(["server", "client", "read", "ratio", "write", "ratio"], rows)}

## {size // 2**20} MiB up and down

MiB/s, median (least-most) of {repeats}, each in a fresh process; MiB of peak memory above the idle, connected process.
Goal: at most 96 MiB, and faster than the client library's fastest way. kvcache also checks length and SHA-256 end to
end; the others do not.

{table(["server", "client", "up", "down", "peak after up", "peak after both"], large)}

{chr(10).join(sections(QUICK if quick else FULL, ROOT / "docs"))}"""
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    print(text)


main()
