"""The table of instruments: every metric of dewy, with its meaning. docs/monitoring.md is checked against it.

A name is OpenTelemetry's; Prometheus writes `dewy_deployment_duration_seconds` for `dewy.deployment.duration` in `s`.
The first four, and their names, are Dewy v2's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MODES: Final = ("server", "assets")
DEPLOY_SECONDS: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Dewy v2's buckets."""
CALL_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SUFFIXES: Final = {"s": "_seconds", "By": "_bytes", "": ""}


class Kind(enum.Enum):
    """COUNTER only grows, GAUGE is as of now, HISTOGRAM counts values by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One metric. `unit` as in UCUM: `s`, `By` or none."""

    name: str
    kind: Kind
    about: str
    unit: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each label with the values that are shown from the start; none: they come as they come."""
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        base = self.name.removesuffix(".total").replace(".", "_") + _SUFFIXES[self.unit]
        return f"{base}_total" if self.kind is Kind.COUNTER else base


def _counter(name: str, about: str, unit: str = "", **labels: tuple[str, ...]) -> Instrument:
    return Instrument(name, Kind.COUNTER, about, unit, labels)


def _gauge(name: str, about: str, unit: str = "", **labels: tuple[str, ...]) -> Instrument:
    return Instrument(name, Kind.GAUGE, about, unit, labels)


def _histogram(name: str, about: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Instrument:
    return Instrument(name, Kind.HISTOGRAM, about, "s", labels, buckets)


_ANY: Final = ()
_CACHES: Final = ("answers", "artifacts")
_SOURCES: Final = ("upstream", "store", "local")

# -- Dewy v2's ---------------------------------------------------------------------------------------------------------

DEPLOYMENTS: Final = _counter("dewy.deployments.total", "Releases put in place.", command=_ANY)
DEPLOYMENT_DURATION: Final = _histogram(
    "dewy.deployment.duration",
    "Time of a deploy, from the artifact to the running release.",
    DEPLOY_SECONDS,
    command=_ANY,
)
DEPLOYMENT_ERRORS: Final = _counter("dewy.deployment.errors.total", "Deploys that failed.", command=_ANY)
SERVER_RESTARTS: Final = _counter(
    "dewy.server.restarts.total",
    "Starts and hand-overs of the application, by what they were for.",
    reason=("deploy", "operator", "rollback", "signal", "start"),
)

# -- the node ----------------------------------------------------------------------------------------------------------

INFO: Final = _gauge("dewy.info", "Always 1: version of dewy, and the command.", version=_ANY, command=_ANY)
RELEASE_INFO: Final = _gauge("dewy.release.info", "Always 1: the tag of the release in place.", tag=_ANY)
RELEASE_TIME: Final = _gauge("dewy.release.timestamp", "Unix time at which this dewy put a release in place last.", "s")
ROLLBACKS: Final = _counter("dewy.rollbacks.total", "Releases that were left for an earlier one.")
TICKS: Final = _counter("dewy.ticks.total", "Turns of the loop.", outcome=("ok", "error"))
TICK_DURATION: Final = _histogram("dewy.tick.duration", "Time of a turn of the loop.", CALL_SECONDS)
INTERVAL: Final = _gauge("dewy.interval", "Time between two turns, as configured.", "s")
LAST_TICK: Final = _gauge("dewy.last.tick.timestamp", "Unix time of the end of the last turn; 0: none yet.", "s")
LAST_SUCCESS: Final = _gauge(
    "dewy.last.success.timestamp", "Unix time of the end of the last turn without an error; 0: none yet.", "s"
)
WORKERS_STARTED: Final = _counter("dewy.workers.started.total", "Processes of the application that were started.")
WORKER_CRASHES: Final = _counter("dewy.worker.crashes.total", "Times that the serving application ended by itself.")
WORKERS_REFUSED: Final = _counter("dewy.workers.refused.total", "Processes of the application that did not come up.")
WORKERS_KILLED: Final = _counter("dewy.workers.killed.total", "Processes that did not end when told, and were killed.")

# -- the registry ------------------------------------------------------------------------------------------------------

REGISTRY_CALLS: Final = _counter(
    "dewy.registry.calls.total",
    "Looks at the registry that this node took, with all their pages.",
    outcome=("ok", "error"),
)
REGISTRY_CALL_DURATION: Final = _histogram("dewy.registry.call.duration", "Time of such a look.", CALL_SECONDS)
REGISTRY_FAILURES: Final = _gauge(
    "dewy.registry.failures", "Failures of the registry in a row, as the fleet counts them."
)
REGISTRY_BACKOFF: Final = _gauge(
    "dewy.registry.backoff", "Time for which the fleet asks no more after the last failure.", "s"
)
ANSWER_TIME: Final = _gauge(
    "dewy.registry.answer.timestamp",
    "Unix time at which the answer that the node goes by was fetched; 0: none yet.",
    "s",
)
RATE_LIMIT: Final = _gauge("dewy.registry.rate.limit", "Calls that GitHub allows in its present window.")
RATE_LEFT: Final = _gauge(
    "dewy.registry.rate.limit.remaining", "Calls that GitHub has left in it, as of its last answer."
)
RATE_RESET: Final = _gauge("dewy.registry.rate.limit.reset.timestamp", "Unix time at which the window ends.", "s")

# -- the shared cache --------------------------------------------------------------------------------------------------

CACHE_HITS: Final = _counter(
    "dewy.cache.hits.total",
    "Answers without a call of the upstream, from what was in hand or from the store.",
    cache=_CACHES,
    source=("memory", "store"),
)
STALE_SERVED: Final = _counter(
    "dewy.cache.stale.served.total",
    "Answers that were older than the TTL: during a refresh, or because of an error.",
    cache=_CACHES,
    why=("refresh", "error"),
)
STALE_AGE: Final = _gauge(
    "dewy.cache.stale.age", "Age of the answer served last, if it was stale; else 0.", "s", cache=_CACHES
)
LOCK_WAITS: Final = _counter(
    "dewy.cache.lock.waits.total", "Times that this node waited for another's refresh.", cache=_CACHES
)
CLAIMS: Final = _counter("dewy.cache.claims.total", "Refreshes that this node took on.", cache=_CACHES)
CLAIMS_LOST: Final = _counter(
    "dewy.cache.claims.lost.total", "Claims for which another node was faster.", cache=_CACHES
)
LEASES_LOST: Final = _counter(
    "dewy.cache.leases.lost.total",
    "Refreshes that another node took over, so that they were not published.",
    cache=_CACHES,
)
PUBLISHED: Final = _counter("dewy.cache.published.total", "Answers that this node published.", cache=_CACHES)
LOADS_FAILED: Final = _counter(
    "dewy.cache.load.failures.total", "Refreshes that failed at the upstream.", cache=_CACHES
)
STORE_FAILURES: Final = _counter(
    "dewy.cache.store.failures.total", "Answers for which the store was down.", cache=_CACHES
)
RECORDS_HEALED: Final = _counter(
    "dewy.cache.records.healed.total", "Unreadable records that were replaced.", cache=_CACHES
)

# -- artifacts ---------------------------------------------------------------------------------------------------------

ARTIFACTS: Final = _counter(
    "dewy.artifacts.total", "Artifacts brought to this node, by where they were.", source=_SOURCES
)
ARTIFACT_BYTES: Final = _counter("dewy.artifact.io", "Bytes of them, by where they were.", "By", source=_SOURCES)
ARTIFACT_DURATION: Final = _histogram(
    "dewy.artifact.duration", "Time until one was here.", DEPLOY_SECONDS, source=_SOURCES
)
STAGED_BYTES: Final = _gauge("dewy.staged", "Size of the artifacts kept on this node.", "By")

# -- people ------------------------------------------------------------------------------------------------------------

NOTIFICATIONS: Final = _counter(
    "dewy.notifications.total",
    "Messages to people, by what came of them.",
    outcome=("sent", "failed", "dropped", "elsewhere"),
)

INSTRUMENTS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
"""All of them, in the order of this page."""
