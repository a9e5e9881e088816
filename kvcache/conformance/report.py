"""What an examination found, as text, as JSON, and as facts for the page."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from kvcache.conformance.run import Finding
from kvcache.kvs import Capabilities

CLIENTS: Final = {
    "aiobotocore": "aiobotocore",
    "aiohttp": "aiohttp",
    "adlfs": "adlfs",
    "azure.storage.blob": "azure-storage-blob",
    "botocore": "botocore",
    "fsspec": "fsspec",
    "gcsfs": "gcsfs",
    "redis": "redis",
    "s3fs": "s3fs",
    "urllib3": "urllib3",
}
"""Modules of client libraries, and the distributions that they come with."""


@dataclass(frozen=True, slots=True)
class Report:
    """An examination of one store: what was asked, by what, when, and what was found."""

    url: str
    """Without secrets."""
    began: str
    """ISO 8601, UTC."""
    seed: int
    most_requests: int
    seconds: float
    capabilities: Capabilities
    versions: Mapping[str, str]
    findings: Sequence[Finding]
    lost: Mapping[str, int] | None = None
    """How many requests and replies were lost on purpose; None where the store was asked straight."""

    @property
    def counts(self) -> Counter[str]:
        """How many promises of each outcome."""
        return Counter(finding.outcome for finding in self.findings)

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(finding.requests for finding in self.findings)

    @property
    def is_fit(self) -> bool:
        """Whether every promise that is made was seen to be kept."""
        return not self.counts["broken"] and not self.counts["undecided"]

    @property
    def judgement(self) -> str:
        """What it comes to, in a sentence or two."""
        broken, undecided = self.counts["broken"], self.counts["undecided"]
        if broken:
            conditions = any(f.outcome == "broken" and "conditional_write" in f.check.needs for f in self.findings)
            so = "its conditional writes cannot be trusted" if conditions else "see the evidence"
            return f"Not fit: {_promises(broken)} broken; {so}."
        if undecided:
            return f"Undecided: nothing can be said of {_promises(undecided)}."
        if not self.capabilities.conditional_write:
            return (
                "Fit for values and artifacts. It has no conditional writes, so nodes that share it cannot agree on"
                " who calls the upstream."
            )
        who = {"process": "of one process", "host": "of one host", "fleet": "of a whole fleet"}
        return f"Fit for a cache shared by the nodes {who[self.capabilities.scope]}: every promise it makes is kept."

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "url": self.url,
            "began": self.began,
            "seed": self.seed,
            "fit": self.is_fit,
            "judgement": self.judgement,
            "counts": dict(self.counts),
            "requests": self.requests,
            "most_requests": self.most_requests,
            "seconds": round(self.seconds, 3),
            "capabilities": asdict(self.capabilities),
            "versions": dict(self.versions),
            "lost": None if self.lost is None else dict(self.lost),
            "promises": [
                {
                    "name": finding.check.name,
                    "promise": finding.check.promise,
                    "needs": list(finding.check.needs),
                    "outcome": finding.outcome,
                    "evidence": finding.evidence,
                    "requests": finding.requests,
                    "seconds": round(finding.seconds, 3),
                }
                for finding in self.findings
            ],
        }


def as_line(finding: Finding) -> str:
    """One promise on one line; the evidence, if any, on the lines after it."""
    shown = finding.outcome.upper() if finding.outcome == "broken" else finding.outcome
    line = f"{shown:<12} {finding.check.name:<42} {finding.check.promise}"
    return "\n".join([line, *(f"{'':12} | {part}" for part in finding.evidence.splitlines())])


def as_summary(report: Report) -> str:
    """How it ended, on two lines."""
    counts = ", ".join(f"{report.counts[name]} {name}" for name in ("kept", "broken", "undecided", "not offered"))
    cost = f"{report.requests} requests in {report.seconds:.1f} s, seed {report.seed}"
    if report.lost is not None:
        cost += (
            f", {report.lost.get('requests', 0)} requests and {report.lost.get('replies', 0)} replies lost on purpose"
        )
    return f"{_promises(len(report.findings))}: {counts}; {cost}\n{report.judgement}"


def versions() -> dict[str, str]:
    """Of Python, of kvcache, and of the client libraries that this process has loaded."""
    loaded = {package: name for name, package in CLIENTS.items() if name in sys.modules}
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for package in ("kvcache-dewy", *loaded):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that is not installed
            found[package] = "unknown"
    return found


def _promises(number: int) -> str:
    return f"{number} promise{'s' if number != 1 else ''}"
