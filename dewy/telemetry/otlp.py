"""OTLP: the same values, pushed to a collector every 15 seconds (`pip install kvcache-dewy[telemetry]`).

The wire, TLS, and further tries are the business of OpenTelemetry's exporters, which also read
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and the like from the environment. Values come from
`Metrics`, so that a collector and Prometheus are told the same.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dewy.errors import ConfigError
from dewy.log import Log, one_line
from dewy.telemetry.instruments import Kind
from dewy.telemetry.metrics import Distribution, Family, Metrics
from kvcache import redact

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Histogram, MetricExporter, MetricsData, NumberDataPoint
    from opentelemetry.sdk.resources import Resource

EVERY: Final = 15.0
"""Seconds between two pushes, as in Dewy v2."""
PUSH_WITHIN: Final = 10.0
"""Seconds for one push, with its further tries."""
LAST_WORDS: Final = 3.0
"""Seconds for the last push, when dewy ends."""
HTTP_PATH: Final = "/v1/metrics"
_FORMS: Final = "collector:4317 (gRPC), or http://collector:4318, https://collector:4318 (HTTP)"


def open_exporter(endpoint: str, *, insecure: bool) -> MetricExporter:
    """Who speaks to the collector; connects to nothing yet. ConfigError.

    `host:port` is gRPC, as in Dewy v2, with TLS unless `insecure`; a web address is OTLP over HTTP.
    """
    scheme, mark, _ = endpoint.partition("://")
    shown = redact(endpoint)
    try:
        parts = urlsplit(endpoint if mark else f"//{endpoint}")
        usable = bool(parts.hostname) and (parts.port is not None or scheme in ("http", "https"))
    except ValueError:
        usable = False
    if not usable or (mark and scheme not in ("http", "https")) or (not mark and parts.path):
        raise ConfigError(f"--otlp-endpoint: {shown!r}: {_FORMS}")
    logging.getLogger("opentelemetry").propagate = False  # a push that fails is told below, once and not each time
    try:
        if mark:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHTTP

            url = endpoint if parts.path.strip("/") else endpoint.rstrip("/") + HTTP_PATH
            return OverHTTP(endpoint=url, timeout=PUSH_WITHIN)
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGRPC

        with _quiet_grpc():
            return OverGRPC(endpoint=endpoint, insecure=insecure, timeout=PUSH_WITHIN)
    except ImportError as error:
        raise ConfigError(f"--otlp-endpoint: {shown!r}: needs pip install 'kvcache-dewy[telemetry]'") from error
    except (OSError, ValueError) as error:  # certificates or headers of the environment
        raise ConfigError(f"--otlp-endpoint: {shown!r}: {one_line(error)}") from error


@contextmanager
def _quiet_grpc() -> Iterator[None]:
    """gRPC writes lines of its own to stderr, when a collector restarts for instance, unless the environment says no.

    It looks when its first channel is made, and never again; the application is not to inherit it.
    """
    given = "GRPC_VERBOSITY" in os.environ
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        yield
    finally:
        if not given:
            del os.environ["GRPC_VERBOSITY"]


class Push:
    """Pushes `metrics` until it is closed, in a thread of its own. `now`: seconds since the Unix epoch."""

    def __init__(
        self,
        metrics: Metrics,
        exporter: MetricExporter,
        resource: Mapping[str, str],
        log: Log,
        *,
        every: float = EVERY,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._exporter = exporter
        self._resource = resource
        self._log = log
        self._every = every
        self._now = now
        self._began = now()
        self._failing = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="otlp", daemon=True)

    def start(self) -> None:
        """The first push is made after one interval."""
        self._thread.start()

    def close(self) -> None:
        """Pushes for the last time, if that goes quickly."""
        self._over.set()
        self._thread.join(LAST_WORDS)
        if not self._thread.is_alive():
            self._exporter.shutdown(timeout_millis=1000)

    def _work(self) -> None:
        from opentelemetry.sdk.resources import Resource

        resource = Resource.create(dict(self._resource))
        over = False
        while not over:
            over = self._over.wait(self._every)
            self._push(resource)

    def _push(self, resource: Resource) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        data = metrics_data(self._metrics.collect(), resource, self._began, self._now())
        try:
            sent = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception as error:
            # The exporter's own faults must not end the pushing.
            self._log.debug("OTLP export failed", error=one_line(error))
            sent = False
        if sent is self._failing:
            self._failing = not sent
            if sent:
                self._log.info("OTLP export works again")
            else:
                self._log.warn("OTLP export failed; going on trying")


def metrics_data(families: Iterable[Family], resource: Resource, began: float, now: float) -> MetricsData:
    """The values in OpenTelemetry's form: sums and histograms since `began`, gauges as of `now`, in seconds."""
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    start, at = int(began * 1e9), int(now * 1e9)

    def numbers(family: Family) -> list[NumberDataPoint]:
        return [
            NumberDataPoint(_attributes(family, labels), start, at, value)
            for labels, value in family.series
            if not isinstance(value, Distribution)
        ]

    def data(family: Family) -> Sum | Gauge | Histogram:
        match family.instrument.kind:
            case Kind.COUNTER:
                return Sum(numbers(family), AggregationTemporality.CUMULATIVE, is_monotonic=True)
            case Kind.GAUGE:
                return Gauge(numbers(family))
            case Kind.HISTOGRAM:
                return _histogram(family, start, at)

    metrics = [Metric(f.instrument.name, f.instrument.about, f.instrument.unit, data(f)) for f in families if f.series]
    scope = ScopeMetrics(InstrumentationScope("dewy"), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _histogram(family: Family, start: int, at: int) -> Histogram:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint

    points = [
        HistogramDataPoint(
            attributes=_attributes(family, labels),
            start_time_unix_nano=start,
            time_unix_nano=at,
            count=value.count,
            sum=value.sum,
            bucket_counts=value.counts,
            explicit_bounds=family.instrument.buckets,
            min=value.least,
            max=value.most,
        )
        for labels, value in family.series
        if isinstance(value, Distribution)
    ]
    return Histogram(points, AggregationTemporality.CUMULATIVE)


def _attributes(family: Family, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(family.instrument.labels, labels, strict=True))
