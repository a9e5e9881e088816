"""Instruments, their values, and the text that Prometheus reads."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dewy import events as node
from dewy import supervision as worker
from dewy.registry.rate import RateLimit
from dewy.telemetry import instruments as i
from dewy.telemetry.instruments import INSTRUMENTS, Instrument, Kind
from dewy.telemetry.metrics import MOST_SERIES, Distribution, Metrics
from dewy.telemetry.observe import Observer
from dewy.telemetry.text import exposition
from dewy.telemetry.view import Seen, after
from kvcache import SharedCache, open_store
from kvcache import events as cache
from tests.dewy.supervised import wait_for
from tests.servers import promtool


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a reader of Prometheus's own makes of the text."""
    text = exposition(metrics.collect())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_names() -> None:
    exposed = [instrument.exposed for instrument in INSTRUMENTS]
    assert len(set(exposed)) == len(exposed) and len({instrument.name for instrument in INSTRUMENTS}) == len(exposed)
    for instrument in INSTRUMENTS:
        assert re.fullmatch(r"dewy_[a-z_]+", instrument.exposed)
        assert re.fullmatch(r"dewy(\.[a-z]+)+", instrument.name)
        assert (instrument.kind is Kind.COUNTER) == instrument.exposed.endswith("_total")
        assert bool(instrument.buckets) == (instrument.kind is Kind.HISTOGRAM)
        assert list(instrument.buckets) == sorted(set(instrument.buckets))
        assert instrument.about.endswith(".") and "|" not in instrument.about


def test_those_of_v2_keep_their_names() -> None:
    assert [(x.name, x.exposed, list(x.labels)) for x in INSTRUMENTS[:4]] == [
        ("dewy.deployments.total", "dewy_deployments_total", ["command"]),
        ("dewy.deployment.duration", "dewy_deployment_duration_seconds", ["command"]),
        ("dewy.deployment.errors.total", "dewy_deployment_errors_total", ["command"]),
        ("dewy.server.restarts.total", "dewy_server_restarts_total", ["reason"]),
    ]
    assert i.DEPLOYMENT_DURATION.buckets == (1, 5, 10, 30, 60, 120, 300, 600)


# -- values ------------------------------------------------------------------------------------------------------------

COUNTER = Instrument("dewy.c.total", Kind.COUNTER, "C.", labels={"a": ("x", "y"), "b": ()})
GAUGE = Instrument("dewy.g", Kind.GAUGE, "G.", "By", labels={"a": ()})
PLAIN = Instrument("dewy.p", Kind.GAUGE, "P.")
HISTOGRAM = Instrument("dewy.h", Kind.HISTOGRAM, "H.", "s", buckets=(1.0, 2.5))
KNOWN = Instrument("dewy.k.total", Kind.COUNTER, "K.", labels={"a": ("x", "y")})
ALL = (COUNTER, GAUGE, PLAIN, HISTOGRAM, KNOWN)


def test_counters_with_known_labels_begin_at_zero() -> None:
    metrics = Metrics(ALL)
    assert value(metrics, "dewy_k_total", a="x") == 0 == value(metrics, "dewy_k_total", a="y")
    assert not any(name == "dewy_c_total" for name, _ in samples(metrics))
    assert value(metrics, "dewy_h_seconds_count") == 0


def test_gauges_are_replaced_and_forgotten() -> None:
    metrics = Metrics(ALL)
    metrics.set(GAUGE, 1, a="x")
    metrics.set(GAUGE, 2, a="x")
    metrics.set(GAUGE, 3, a="y")
    assert value(metrics, "dewy_g_bytes", a="x") == 2
    metrics.only(GAUGE, 4, a="z")
    assert [key for key in samples(metrics) if key[0] == "dewy_g_bytes"] == [("dewy_g_bytes", frozenset({("a", "z")}))]


def test_a_watched_gauge_is_read_when_somebody_looks() -> None:
    metrics = Metrics(ALL)
    values = iter([7.0, None, 8.0])
    metrics.watch(PLAIN, lambda: next(values))
    assert value(metrics, "dewy_p") == 7
    assert ("dewy_p", frozenset()) not in samples(metrics)
    assert value(metrics, "dewy_p") == 8


def test_buckets() -> None:
    metrics = Metrics(ALL)
    for seconds in (0.5, 1.0, 2.0, 99.0):
        metrics.observe(HISTOGRAM, seconds)
    counts = [value(metrics, "dewy_h_seconds_bucket", le=le) for le in ("1", "2.5", "+Inf")]
    assert counts == [2, 3, 4]
    assert (value(metrics, "dewy_h_seconds_sum"), value(metrics, "dewy_h_seconds_count")) == (102.5, 4)
    distribution = next(f for f in metrics.collect() if f.instrument is HISTOGRAM).series[0][1]
    assert distribution == Distribution((2, 1, 1), 102.5, 0.5, 99.0)


def test_what_the_world_sends_does_not_make_it_grow_for_ever() -> None:
    metrics = Metrics(ALL)
    for number in range(MOST_SERIES + 50):
        metrics.add(COUNTER, a="x", b=str(number))
    metrics.add(COUNTER, a="x", b="0")
    series = next(f for f in metrics.collect() if f.instrument is COUNTER).series
    assert len(series) == MOST_SERIES and value(metrics, "dewy_c_total", a="x", b="0") == 2


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics(ALL)

    def count() -> None:
        for _ in range(2000):
            metrics.add(KNOWN, a="x")
            metrics.observe(HISTOGRAM, 1.0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.collect()
    assert value(metrics, "dewy_k_total", a="x") == 8000 == value(metrics, "dewy_h_seconds_count")


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_any_number_come_through(label: str, number: float) -> None:
    metrics = Metrics(ALL)
    metrics.set(GAUGE, number, a=label)
    # The reader takes some characters that are no newline for one.
    if len(label.splitlines()) > 1 or label.splitlines() != [label]:
        label = "x"
        metrics.only(GAUGE, number, a=label)
    assert value(metrics, "dewy_g_bytes", a=label) == number


@pytest.mark.servers
def test_promtool_finds_nothing_wrong() -> None:
    metrics = Metrics()
    observer = Observer(metrics, "server", version="v1", interval=10)
    observer.on_node(node.Deployed('v1"\\\n', "k", "", "r", 2.0))
    checked = promtool("check", "metrics", text=exposition(metrics.collect()))
    assert checked.returncode == 0 and checked.stderr == "", checked.stderr
    broken = promtool("check", "metrics", text="dewy_x{a=b} 1\n")
    assert broken.returncode != 0  # it would have told


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def observer(metrics: Metrics) -> Observer:
    return Observer(metrics, "server", version="v1.0", interval=10.0, now=lambda: 5000.0)


EVENTS: Mapping[object, list[tuple[str, dict[str, str], float]]] = {
    node.TickEnded(0.2): [
        ("dewy_ticks_total", {"outcome": "ok"}, 1),
        ("dewy_tick_duration_seconds_count", {}, 1),
        ("dewy_last_tick_timestamp_seconds", {}, 5000),
        ("dewy_last_success_timestamp_seconds", {}, 5000),
    ],
    node.TickEnded(0.2, "oh"): [
        ("dewy_ticks_total", {"outcome": "error"}, 1),
        ("dewy_last_tick_timestamp_seconds", {}, 5000),
        ("dewy_last_success_timestamp_seconds", {}, 0),
    ],
    node.Obtained("k", "store", 1000, 2.0): [
        ("dewy_artifacts_total", {"source": "store"}, 1),
        ("dewy_artifact_io_bytes_total", {"source": "store"}, 1000),
        ("dewy_artifact_io_bytes_total", {"source": "upstream"}, 0),
        ("dewy_artifact_duration_seconds_sum", {"source": "store"}, 2),
    ],
    node.Deployed("v2", "k", "v1", "r", 3.0): [
        ("dewy_deployments_total", {"command": "server"}, 1),
        ("dewy_deployment_duration_seconds_sum", {"command": "server"}, 3),
        ("dewy_deployment_errors_total", {"command": "server"}, 0),
        ("dewy_release_info", {"tag": "v2"}, 1),
        ("dewy_release_timestamp_seconds", {}, 5000),
    ],
    node.DeployFailed("v2", "k", "oh", 3.0): [
        ("dewy_deployments_total", {"command": "server"}, 0),
        ("dewy_deployment_errors_total", {"command": "server"}, 1),
        ("dewy_deployment_duration_seconds_count", {"command": "server"}, 1),
    ],
    node.RolledBack("v2", "v1", "oh"): [("dewy_rollbacks_total", {}, 1), ("dewy_release_info", {"tag": "v1"}, 1)],
    node.Restarted("v1", "signal"): [("dewy_server_restarts_total", {"reason": "signal"}, 1)],
    worker.WorkerStarted(1, 1): [("dewy_workers_started_total", {}, 1)],
    worker.WorkerCrashed(1, 1, "exit code 1", 3.0, 1, 0.5): [("dewy_worker_crashes_total", {}, 1)],
    worker.WorkerRefused(1, 1, "oh"): [("dewy_workers_refused_total", {}, 1)],
    worker.WorkerKilled(1, 1, 3.0): [("dewy_workers_killed_total", {}, 1)],
    worker.WorkerFinishing(1, 1, 30.0): [("dewy_workers_killed_total", {}, 0)],
    cache.Hit("k", 3.0, stored=True): [
        ("dewy_cache_hits_total", {"cache": "answers", "source": "store"}, 1),
        ("dewy_registry_answer_timestamp_seconds", {}, 4997),
    ],
    cache.Hit("k", 3.0, stored=False): [("dewy_cache_hits_total", {"cache": "answers", "source": "memory"}, 1)],
    cache.StaleServed("k", 700.0, on_error=True): [
        ("dewy_cache_stale_served_total", {"cache": "answers", "why": "error"}, 1),
        ("dewy_cache_stale_age_seconds", {"cache": "answers"}, 700),
        ("dewy_cache_stale_age_seconds", {"cache": "artifacts"}, 0),
        ("dewy_registry_answer_timestamp_seconds", {}, 4300),
    ],
    cache.StaleServed("k", 1.0, on_error=False): [
        ("dewy_cache_stale_served_total", {"cache": "answers", "why": "refresh"}, 1)
    ],
    cache.LockAwaited("k"): [("dewy_cache_lock_waits_total", {"cache": "answers"}, 1)],
    cache.Claimed("k"): [("dewy_cache_claims_total", {"cache": "answers"}, 1)],
    cache.ClaimLost("k"): [("dewy_cache_claims_lost_total", {"cache": "answers"}, 1)],
    cache.LeaseLost("k"): [("dewy_cache_leases_lost_total", {"cache": "answers"}, 1)],
    cache.Published("k"): [("dewy_cache_published_total", {"cache": "answers"}, 1)],
    cache.StoreDown("k", "oh"): [("dewy_cache_store_failures_total", {"cache": "answers"}, 1)],
    cache.RecordHealed("k"): [("dewy_cache_records_healed_total", {"cache": "answers"}, 1)],
    cache.UpstreamCalled("k", 0.5, ok=True): [
        ("dewy_registry_calls_total", {"outcome": "ok"}, 1),
        ("dewy_registry_call_duration_seconds_sum", {}, 0.5),
        ("dewy_registry_answer_timestamp_seconds", {}, 5000),
        ("dewy_cache_load_failures_total", {"cache": "answers"}, 0),
    ],
    cache.UpstreamCalled("k", 0.5, ok=False): [
        ("dewy_registry_calls_total", {"outcome": "error"}, 1),
        ("dewy_registry_answer_timestamp_seconds", {}, 0),
        ("dewy_cache_load_failures_total", {"cache": "answers"}, 1),
    ],
    cache.UpstreamFailed("k", "upstream", "oh", 3, 40.0): [
        ("dewy_registry_failures", {}, 3),
        ("dewy_registry_backoff_seconds", {}, 40),
    ],
    "sent": [("dewy_notifications_total", {"outcome": "sent"}, 1)],
    "told by another node": [("dewy_notifications_total", {"outcome": "elsewhere"}, 1)],
}


def _tell(observer: Observer, event: object) -> None:
    if isinstance(event, str):
        observer.on_notification(event)
    elif isinstance(event, cache.Event):
        observer.on_cache("answers", event)
    elif type(event).__module__ == worker.__name__:
        observer.on_worker(event)
    else:
        observer.on_node(event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event if isinstance(event, str) else type(event).__name__)
def test_an_event_becomes_values(metrics: Metrics, observer: Observer, event: object) -> None:
    _tell(observer, event)
    for name, labels, expected in EVENTS[event]:
        assert value(metrics, name, **labels) == expected, name


def test_every_instrument_is_written_to(metrics: Metrics, observer: Observer) -> None:
    """But for those that are read when somebody looks."""
    for event in EVENTS:
        _tell(observer, event)
    silent = {family.instrument.exposed for family in metrics.collect() if not family.series}
    assert silent == {
        "dewy_staged_bytes",
        "dewy_registry_rate_limit",
        "dewy_registry_rate_limit_remaining",
        "dewy_registry_rate_limit_reset_timestamp_seconds",
    }


def test_an_answer_ends_an_outage(metrics: Metrics, observer: Observer) -> None:
    for event in (
        cache.StaleServed("k", 700.0, on_error=True),
        cache.UpstreamFailed("k", "upstream", "oh", 3, 40.0),
        cache.UpstreamCalled("k", 0.1, ok=True),
    ):
        observer.on_cache("answers", event)
    assert value(metrics, "dewy_cache_stale_age_seconds", cache="answers") == 0
    assert value(metrics, "dewy_registry_failures") == 0 == value(metrics, "dewy_registry_backoff_seconds")


def test_artifacts_are_no_answers_of_the_registry(metrics: Metrics, observer: Observer) -> None:
    observer.on_cache("artifacts", cache.UpstreamCalled("k", 0.5, ok=True))
    observer.on_cache("artifacts", cache.Hit("k", 3.0, stored=True))
    assert value(metrics, "dewy_registry_calls_total", outcome="ok") == 0
    assert value(metrics, "dewy_registry_answer_timestamp_seconds") == 0
    assert value(metrics, "dewy_cache_hits_total", cache="artifacts", source="store") == 1


# -- what was seen -----------------------------------------------------------------------------------------------------


def test_what_was_seen() -> None:
    seen = Seen(started_at=1.0)
    for now, event in enumerate(
        [
            node.Restarted("v1", "start"),
            node.TickEnded(0.1),
            node.DeployFailed("v2", "k", "oh", 1.0),
            node.TickEnded(0.1, "oh"),
        ],
        start=10,
    ):
        seen = after(seen, event, float(now))
    assert (seen.tag, seen.failed_tag, seen.error, seen.ticks) == ("v1", "v2", "oh", 2)
    assert (seen.last_tick_at, seen.last_success_at, seen.deployed_at) == (13.0, 11.0, 0.0)
    seen = after(seen, node.Deployed("v2", "k", "v1", "r", 1.0), 20.0)
    seen = after(seen, node.RolledBack("v2", "v1", "oh"), 21.0)
    assert (seen.tag, seen.failed_tag, seen.deployed_at) == ("v1", "", 20.0)
    assert after(seen, node.Obtained("k", "local", 1, 0.1), 22.0) == seen


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        (("60", "59", "1700000000"), RateLimit(60, 59, 1700000000)),
        (("60", "", "1"), None),
        (("60", "-1", "1"), None),
        (("60", "x", "1"), None),
        (("6" * 20, "1", "1"), None),
    ],
)
def test_rate_limits(told: tuple[str, str, str], limit: RateLimit | None) -> None:
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    assert RateLimit.of(dict(zip(names, told, strict=True))) == limit
    assert RateLimit.of({}) is None


def test_a_wait_for_another_node_is_told_once_and_only_where_there_is_nothing_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over real caches: one leads, the other waits for it, however often it looks."""
    leading, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> int:
        leading.set()
        assert go_on.wait(60)
        return 1

    told: list[cache.Event] = []
    looks: list[str] = []
    url = f"file://{tmp_path}/store?locking=flock"  # which has to be asked again and again
    with open_store(url) as store, open_store(url) as same:
        read = same.read_versioned
        monkeypatch.setattr(same, "read_versioned", lambda key: (looks.append(key), read(key))[1])
        leader, follower = SharedCache(store, ttl=60.0), SharedCache(same, ttl=60.0, on_event=told.append)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(leader.get, "k", slow)
            assert leading.wait(60)
            second = pool.submit(follower.get, "k", slow)
            wait_for(lambda: len(looks) > 3, "some looks at the store")
            go_on.set()
            assert (first.result(60).value, second.result(60).value) == (1, 1)
        follower.get("k", slow)
    assert [type(event) for event in told].count(cache.LockAwaited) == 1
