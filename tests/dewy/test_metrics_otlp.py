"""OTLP: what a collector receives, over gRPC and over HTTP. The receivers decode the real protocol."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

from dewy.errors import ConfigError
from dewy.log import Log
from dewy.telemetry import instruments as i
from dewy.telemetry import otlp
from dewy.telemetry.metrics import Metrics
from dewy.telemetry.otlp import Push, open_exporter
from tests.dewy.supervised import free_port, wait_for
from tests.servers import certificates

Received = list[tuple[ExportMetricsServiceRequest, dict[str, str]]]


@contextmanager
def over_grpc(port: int = 0, tls: certificates.Certificates | None = None) -> Iterator[tuple[int, Received]]:
    """A collector: (port, what it received, with the headers)."""
    received: Received = []

    class Service(MetricsServiceServicer):
        def Export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
            received.append((request, dict(context.invocation_metadata())))
            return ExportMetricsServiceResponse()

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_MetricsServiceServicer_to_server(Service(), server)
        if tls is not None:
            credentials = grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
            port = server.add_secure_port(f"localhost:{port}", credentials)
        else:
            port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield port, received
        finally:
            server.stop(None).wait()


@contextmanager
def over_http() -> Iterator[tuple[int, Received]]:
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()} | {"path": self.path}
            received.append((ExportMetricsServiceRequest.FromString(body), headers))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push fails at once where nobody answers: there is no time for another try."""
    monkeypatch.setattr(otlp, "PUSH_WITHIN", 0.5)


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.add(i.DEPLOYMENTS, 2, command="server")
    metrics.set(i.STAGED_BYTES, 123)
    for seconds in (0.5, 7.0, 9999.0):
        metrics.observe(i.DEPLOYMENT_DURATION, seconds, command="server")
    return metrics


@contextmanager
def pushing(metrics: Metrics, endpoint: str, *, insecure: bool = True, every: float = 0.05) -> Iterator[Push]:
    resource = {"service.name": "dewy", "host.name": "web-1"}
    push = Push(metrics, open_exporter(endpoint, insecure=insecure), resource, Log(), every=every, now=lambda: 5000.0)
    push.start()
    try:
        yield push
    finally:
        push.close()


def counted(push: Push, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with each push that is over, one way or the other."""
    pushes: list[object] = []
    export = push._exporter.export
    monkeypatch.setattr(push._exporter, "export", lambda data: (pushes.append(answer := export(data)), answer)[1])
    return pushes


def by_name(request: ExportMetricsServiceRequest) -> dict[str, Any]:
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


@pytest.mark.parametrize("collector", [over_grpc, over_http])
def test_what_a_collector_receives(metrics: Metrics, collector: Callable[[], Any]) -> None:
    with collector() as (port, received):
        endpoint = f"127.0.0.1:{port}" if collector is over_grpc else f"http://127.0.0.1:{port}"
        with pushing(metrics, endpoint):
            wait_for(lambda: len(received) >= 2, "two pushes")
    request, headers = received[0]
    attributes = {pair.key: pair.value.string_value for pair in request.resource_metrics[0].resource.attributes}
    assert attributes["service.name"] == "dewy" and attributes["host.name"] == "web-1"
    assert collector is over_grpc or headers["path"] == "/v1/metrics"
    told = by_name(request)
    (deployments,) = told["dewy.deployments.total"].sum.data_points
    assert told["dewy.deployments.total"].sum.is_monotonic
    assert told["dewy.deployments.total"].sum.aggregation_temporality == 2  # cumulative
    assert (deployments.as_double, deployments.time_unix_nano) == (2, 5000 * 10**9)
    assert [(pair.key, pair.value.string_value) for pair in deployments.attributes] == [("command", "server")]
    (staged,) = told["dewy.staged"].gauge.data_points
    assert (staged.as_double or staged.as_int, told["dewy.staged"].unit) == (123, "By")
    (duration,) = told["dewy.deployment.duration"].histogram.data_points
    assert list(duration.explicit_bounds) == [1, 5, 10, 30, 60, 120, 300, 600]
    assert list(duration.bucket_counts) == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert (duration.count, duration.sum, duration.min, duration.max) == (3, 10006.5, 0.5, 9999.0)


def test_the_last_values_are_pushed_at_the_end(metrics: Metrics) -> None:
    with over_grpc() as (port, received), pushing(metrics, f"127.0.0.1:{port}", every=3600.0):
        pass
    assert len(received) == 1


def test_tls_and_headers_of_the_environment(metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = certificates.make(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(files.ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
    with over_grpc(tls=files) as (port, received), pushing(metrics, f"localhost:{port}", insecure=False):
        wait_for(lambda: received, "a push")
    assert received[0][1]["x-team"] == "shop"


@pytest.mark.usefixtures("impatient")
def test_without_insecure_nothing_goes_out_in_the_clear(metrics: Metrics) -> None:
    with over_grpc() as (port, received), pushing(metrics, f"127.0.0.1:{port}", insecure=False, every=3600.0):
        pass
    assert received == []


@pytest.mark.usefixtures("impatient")
def test_a_collector_that_is_away_is_told_once_and_found_again(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    port = free_port()

    def logged() -> list[str]:
        return [record.message for record in caplog.records if record.name == "dewy"]

    with pushing(metrics, f"127.0.0.1:{port}") as push:
        pushes = counted(push, monkeypatch)
        wait_for(lambda: len(pushes) > 3, "some pushes")
        with over_grpc(port) as (_, received):
            wait_for(lambda: received, "a push")
            wait_for(lambda: len(logged()) == 2, "the good news")
    assert logged()[:2] == ["OTLP export failed; going on trying", "OTLP export works again"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "collector",
        "collector:x",
        "ftp://collector:1",
        "grpc://collector:4317",
        "http://",
        "collector:4317/v1/metrics",
        ":4317",
    ],
)
def test_what_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_exporter(endpoint, insecure=True)
    assert str(refused.value).startswith("--otlp-endpoint: ") and "collector:4317 (gRPC)" in str(refused.value)


def test_a_password_is_not_told() -> None:
    with pytest.raises(ConfigError) as refused:
        open_exporter("ftp://user:hunter22@collector:1", insecure=True)
    assert "hunter22" not in str(refused.value)
