"""Monitoring as a whole: the page, the dashboard and the alerts against the instruments, and a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dewy.telemetry.instruments import INSTRUMENTS, Kind
from tests import servers
from tests.dewy.monitoring_page import get, table
from tests.dewy.node import Node, web
from tests.dewy.supervised import free_port, wait_for
from tests.fakes.github import FakeGitHub
from tests.servers import promtool

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "monitoring.md"
DASHBOARD = ROOT / "packaging" / "grafana" / "dewy.json"
ALERTS = ROOT / "packaging" / "prometheus" / "alerts.yml"

NAMES = {
    name
    for x in INSTRUMENTS
    for name in (
        [f"{x.exposed}{suffix}" for suffix in ("_bucket", "_sum", "_count")]
        if x.kind is Kind.HISTOGRAM
        else [x.exposed]
    )
}
"""Of all series that there are."""


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bdewy_[a-z_]+", text))


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_page_has_every_metric_with_its_meaning() -> None:
    page = PAGE.read_text()
    assert table() in page, "renew the table of docs/monitoring.md: python -m tests.dewy.monitoring_page"
    assert metrics_in(page) <= NAMES | {instrument.exposed for instrument in INSTRUMENTS}


def queries(dashboard: Any) -> Iterator[str]:
    """Every PromQL expression of a dashboard."""
    match dashboard:
        case dict():
            for key, value in dashboard.items():
                if key == "expr" and isinstance(value, str):
                    yield value
                else:
                    yield from queries(value)
        case list():
            for value in dashboard:
                yield from queries(value)


def plain(query: str) -> str:
    """As Grafana asks it."""
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = list(queries(dashboard))
    assert len(asked) > 30 and dashboard["title"] == "Dewy"
    for query in asked:
        assert metrics_in(query) and metrics_in(query) <= NAMES, query
        assert "$instance" in query, query
    shown = metrics_in("".join(asked))
    for instrument in INSTRUMENTS:
        assert {instrument.exposed, f"{instrument.exposed}_bucket"} & (shown | UNCHARTED), instrument.exposed


UNCHARTED = {
    *("dewy_tick_duration_seconds", "dewy_artifacts_total", "dewy_artifact_duration_seconds"),
    *("dewy_registry_rate_limit_reset_timestamp_seconds", "dewy_workers_started_total"),
    *("dewy_interval_seconds", "dewy_last_tick_timestamp_seconds"),  # for alerts
}
"""Not worth a picture."""


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    assert metrics_in(ALERTS.read_text()) <= NAMES


@pytest.mark.servers
def test_promtool_takes_the_alerts() -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert checked.returncode == 0, checked.stderr


CASES: dict[str, tuple[dict[str, str], str]] = {
    "DewyStale": ({"dewy_registry_answer_timestamp_seconds": "1+0x100"}, "30m"),
    "DewyNoAnswer": ({"dewy_registry_answer_timestamp_seconds": "0x100"}, "15m"),
    "DewyNoSuccessfulPoll": (
        {
            "dewy_last_success_timestamp_seconds": "1+0x100",
            "dewy_last_tick_timestamp_seconds": "1+60x100",
            "dewy_interval_seconds": "10x100",
        },
        "30m",
    ),
    "DewyLoopStuck": ({"dewy_last_tick_timestamp_seconds": "1+0x100", "dewy_interval_seconds": "10x100"}, "70m"),
    "DewyDeploysFailing": ({"dewy_deployment_errors_total": "0+1x100", "dewy_deployments_total": "3x100"}, "20m"),
    "DewyCrashLoop": ({"dewy_worker_crashes_total": "0+1x100"}, "15m"),
    "DewyRateLimitLow": (
        {"dewy_registry_rate_limit_remaining": "99x100", "dewy_registry_rate_limit": "5000x100"},
        "10m",
    ),
    "DewyNotificationsFailing": ({'dewy_notifications_total{outcome="failed"}': "0+1x100"}, "10m"),
}
"""What makes each alert fire, and when."""
WELL = {
    "dewy_registry_answer_timestamp_seconds": "1+60x100",
    "dewy_last_success_timestamp_seconds": "1+60x100",
    "dewy_last_tick_timestamp_seconds": "1+60x100",
    "dewy_interval_seconds": "10x100",
    "dewy_deployment_errors_total": "2x100",
    "dewy_deployments_total": "0+1x100",
    "dewy_worker_crashes_total": "1x100",
    "dewy_registry_rate_limit_remaining": "4000x100",
    "dewy_registry_rate_limit": "5000x100",
    'dewy_notifications_total{outcome="failed"}': "1x100",
}


def alerting(series: dict[str, str], at: str, *expected: str) -> dict[str, Any]:
    """One case of promtool's, in its format."""
    names = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": int(name in expected)}],
            }
            for name in names
        ],
    }


@pytest.mark.servers
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    assert set(CASES) == set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    cases = [alerting({**series}, at, name) for name, (series, at) in CASES.items()]
    cases += [alerting(WELL, "95m")]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": cases}))
    tested = promtool("test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


# -- a node, watched by a real Prometheus ------------------------------------------------------------------------------


@pytest.mark.servers
def test_prometheus_watches_a_node(tmp_path: Path) -> None:
    """Scraped, queried with every query of the dashboard, and with the alerts evaluated; and the node's own pages."""
    port = free_port()
    with FakeGitHub() as github, servers.Prometheus([f"127.0.0.1:{port}"], ALERTS) as prometheus:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": web("v1.0.0")})
        cache = f"file://{tmp_path}/cache?locking=flock&registry-ttl=400ms"
        args = ["--cache", cache, "--admin-port", str(port), "--admin-host", "127.0.0.1"]
        with Node(
            tmp_path / "node",
            "server",
            github.registry,
            *(*args, "-p", f"127.0.0.1:{free_port()}", "--", "./current/web.py"),
            env=github.env,
        ) as node:
            node.wait_logged("Start notification")
            github.publish("v1.1.0", {"app_linux_amd64.tar.gz": web("v1.1.0")})
            node.wait_logged("Restart notification")
            wait_for(
                lambda: prometheus.query('dewy_deployments_total{command="server"} == 2'),
                "two deploys in Prometheus",
            )
            (target,) = prometheus.targets()
            assert (target["health"], target["lastError"]) == ("up", "")

            def one(query: str) -> float:
                (series,) = prometheus.query(query)
                return float(series["value"][1])

            assert one('dewy_release_info{tag="v1.1.0"}') == 1 and one("count(dewy_release_info)") == 1
            assert one('dewy_artifact_io_bytes_total{source="upstream"}') > 500
            assert one("dewy_staged_bytes") > 500
            assert one('dewy_server_restarts_total{reason="start"} + on() dewy_server_restarts_total{reason="deploy"}')
            assert one("dewy_registry_rate_limit") == 60 and 0 <= one("dewy_registry_rate_limit_remaining") <= 60
            assert one('dewy_registry_calls_total{outcome="ok"}') >= 2
            assert one("dewy_workers_started_total") == 2
            assert one("time() - dewy_registry_answer_timestamp_seconds") < 60
            for query in queries(json.loads(DASHBOARD.read_text())):
                prometheus.query(plain(query))  # a wrong one raises
            rules = wait_for(
                lambda: (found := prometheus.rules()) and all(r["health"] == "ok" for r in found) and found,
                "the rules evaluated",
            )
            assert {rule["state"] for rule in rules} == {"inactive"}, rules

            status = get(port, "/api/status")
            assert (status["command"], status["current_version"], status["is_running"]) == (0, "v1.1.0", True)
            assert (status["name"], status["error"], status["failed_tag"]) == (
                github.registry.rpartition("/")[2],
                "",
                "",
            )
            assert status["last_success_at"] and status["deployed_at"]
            assert get(port, "/api/containers") == {"containers": None}
            assert get(port, "/healthz")["status"] == "ok"
            text = get(port, "/metrics")
        assert metrics_in(re.sub("#.*", "", text)) <= NAMES
        assert node.logged("Telemetry enabled") and node.logged("Admin API server started", port=port)
