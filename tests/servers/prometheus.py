"""Prometheus: scrapes what it is told to, answers queries, and evaluates rules; and promtool, which checks files."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.binaries import unpacked
from tests.servers.process import Server, answers, direct


class Prometheus(Server):
    """`targets`: `host:port` of what is scraped, twice a second. `rules`: a file of rules."""

    name = "prometheus"

    def __init__(self, targets: Sequence[str], rules: Path | None = None) -> None:
        super().__init__()
        self._config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "scrape_configs": [{"job_name": "dewy", "static_configs": [{"targets": list(targets)}]}],
            "rule_files": [str(rules)] if rules is not None else [],
        }

    def prepare(self) -> None:
        (self.dir / "prometheus.yml").write_text(json.dumps(self._config))  # JSON is YAML

    def command(self) -> list[str]:
        return [
            unpacked("prometheus", "prometheus"),
            f"--config.file={self.dir}/prometheus.yml",
            f"--storage.tsdb.path={self.dir}/data",
            f"--web.listen-address={self.host}:{self.port}",
        ]

    def is_ready(self) -> bool:
        return answers(f"{self.url}/-/ready", range(200, 201))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query: `metric` and `value` each. A wrong expression raises."""
        data = self._get("query", query=expression)["result"]
        return [{"metric": {}, "value": data}] if data and not isinstance(data[0], dict) else data

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped, with `health` and `lastError` each."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Rules, with `name`, `state`, `health` and `lastError` each."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with direct.open(url, timeout=30) as answer:
            return json.load(answer)["data"]


def promtool(*args: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """One run of it, with `text` on its standard input."""
    command = [unpacked("prometheus", "promtool"), *args]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
