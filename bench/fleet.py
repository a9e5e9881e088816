"""What a fleet costs: upstream calls and store requests in a ttl, of real processes and of simulated nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.fleet_node import POLLS
from bench.page import ROOT, Scale, plot, python, table, verdict
from kvcache.simulation.faults import Workload, parse_faults
from kvcache.simulation.report import Outcome, summed_up
from kvcache.simulation.simulate import DEWY_V2, OURS, Simulation
from tests.servers import Redis

TTL = 1.0
"""Seconds, of the real fleets."""
ANSWERS_IN = 0.05
"""Seconds that the upstream takes."""
TROUBLES = ("healthy", "upstream down", "rate limited", "leader killed")


class Upstream:
    """An HTTP server that counts its calls, and has one of the troubles from the moment that it is told to."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.trouble = "healthy"
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.calls.append(time.monotonic())
                if upstream.trouble == "leader killed":
                    upstream.trouble = "healthy"
                    os.kill(int(self.path[1:]), signal.SIGKILL)
                    return
                time.sleep(ANSWERS_IN)
                body = str(len(upstream.calls)).encode()
                status = {"upstream down": 503, "rate limited": 429}.get(upstream.trouble, 200)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", f"{2 * TTL:g}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Cost:
    """Of one fleet: per ttl, and the longest that a caller with an answer in hand waited (seconds, real fleets)."""

    nodes: int
    trouble: str
    calls: float
    requests: float
    longest: float


def real(store_url: str, nodes: int, trouble: str, windows: int) -> Cost:
    """A fleet of processes: `windows` ttls are counted, from when the trouble begins."""
    upstream = Upstream()
    command = python("-m", "bench.fleet_node", store_url, upstream.url, str(TTL))
    fleet = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(nodes)
    ]
    try:
        began = time.monotonic()
        for node in fleet:
            assert node.stdin is not None
            node.stdin.write("go\n")
            node.stdin.flush()
        while not upstream.calls:
            time.sleep(0.01)
        time.sleep(2 * TTL + 0.02 * nodes)  # the slowest has started too
        upstream.trouble, since = trouble, time.monotonic()
        time.sleep(windows * TTL)
        until = time.monotonic()
        told = [json.loads(out) for out in (node.communicate()[0] for node in fleet) if out]
    finally:
        for node in fleet:
            node.kill()
            node.wait()
        upstream.close()
    calls = sum(since <= call < until for call in upstream.calls)
    lived = (until - began) / TTL
    requests = sum(sum(one["requests"].values()) for one in told) / max(len(told), 1) / lived
    return Cost(nodes, trouble, calls / windows, requests, max((one["longest"] for one in told), default=0.0))


def simulated(nodes: int, trouble: str, hours: float, algorithm: Any) -> Outcome:
    seconds = hours * 3600
    faults = {
        "healthy": "",
        "upstream down": f"upstream-down@{seconds / 3:.0f}",
        "rate limited": f"rate-limit=1@{seconds / 3:.0f}-{seconds:.0f}",
        "leader killed": f"crash-leader@{seconds / 3:.0f}",
    }
    run = Simulation(Workload(nodes=nodes, hours=hours, seed=1), parse_faults(faults[trouble]), algorithm)
    run.run()
    return summed_up(run)


def _drawn(figure: Any, points: dict[tuple[str, str], list[tuple[int, float, float]]]) -> None:
    for axes, which, label in zip(
        figure.subplots(1, 2), (1, 2), ("upstream calls per ttl", "store requests per node and ttl"), strict=True
    ):
        for (name, trouble), found in points.items():
            style = {"kvcache": "o-", "dewy-v2": "x--", "processes": "s:"}[name]
            axes.plot([one[0] for one in found], [one[which] for one in found], style, label=f"{name}, {trouble}")
        axes.set_xscale("log")
        axes.set_yscale("symlog")
        axes.set_xlabel("nodes")
        axes.set_title(label, fontsize="medium")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="x-small")


def section(scale: Scale, directory: Path) -> str:
    """Markdown; the plot goes into `directory`."""
    with Redis() as server:
        costs = [
            real(server.store_url(prefix=f"{uuid.uuid4().hex}/"), nodes, trouble, scale.windows)
            for nodes in scale.processes
            for trouble in TROUBLES
            if (nodes, trouble) != (1, "leader killed")  # nobody is left
        ]
    rows = []
    points: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for cost in costs:
        longest = f"{cost.longest * 1000:.0f} ms"
        rows.append([f"{cost.nodes} processes", cost.trouble, f"{cost.calls:.2f}", f"{cost.requests:.2f}", longest])
        points.setdefault(("processes", cost.trouble), []).append((cost.nodes, cost.calls, cost.requests))
    crowd, reads, waits, broken = 0.0, 0.0, 0.0, 0
    compared = []
    for nodes in scale.simulated:
        for trouble in TROUBLES:
            both = [simulated(nodes, trouble, scale.hours, algorithm) for algorithm in (OURS, DEWY_V2)]
            cells = []
            for outcome in both:
                calls = float(outcome.facts["upstream calls per ttl"])
                requests = float(outcome.facts["store requests per node and ttl"])
                cells += [f"{calls:.2f}", f"{requests:.2f}"]
                points.setdefault((outcome.name, trouble), []).append((nodes, calls, requests))
            compared.append([f"{nodes:,} nodes", trouble, *cells])
            ours = both[0]
            crowd = max(crowd, *(bound.measured for bound in ours.bounds if bound.most == 1))
            waits += ours.ledger.violations["I4"]
            broken += ours.ledger.violations["I5"]
            if trouble == "healthy":
                reads = max(reads, ours.ledger.requests["read"] / nodes / (scale.hours * 3600 / 60))
    healthy = [cost for cost in costs if cost.trouble == "healthy"]
    goals = [
        verdict(
            "upstream calls per ttl, healthy, any number of processes",
            max(cost.calls for cost in healthy),
            # The edges of the time that is counted may cut one call off, or take one more in.
            1 + 1 / scale.windows,
        ),
        verdict("simulated: most shared upstream calls in one ttl beyond those lost with leaders", crowd, 1),
        verdict(
            "simulated, healthy: reads per node and ttl, with those of the start", reads, 1 + 1 / (scale.hours * 60)
        ),
        verdict("simulated: calls on a live lock, a fresh answer or inside a back-off", broken, 0),
        verdict("simulated: waits of nodes with a usable answer", waits, 0),
    ]
    picture = plot(directory / "benchmarks-fleet.svg", lambda figure: _drawn(figure, points))
    return f"""## What a fleet costs

Real processes poll one key of a Redis {POLLS} times in a ttl of {TTL:g} s, for {scale.windows} ttls from when the \
trouble begins; "waited" is the longest `get` of a caller who had an answer before (with `background=True`).

{table(["fleet", "trouble", "upstream calls per ttl", "store requests per node and ttl", "waited"], rows)}

Simulated nodes: {scale.hours:g} h of virtual time, ttl 60 s, a poll every 10 s, the trouble from a third on; beside \
them Dewy v2's way on the same world. Its list of the whole prefix at each poll is not counted.

{table(["fleet", "trouble", "calls per ttl", "requests per node, ttl", "v2: calls", "v2: requests"], compared)}

{picture}

{chr(10).join(goals)}
"""
