"""Nodes of ours and of Dewy v2 on one record in one bucket."""

from __future__ import annotations

import json
import threading
import time
from functools import partial

import pytest

import kvcache
from tests.stores.dewy_v2 import RESPONSE, DewyV2, seconds

pytestmark = pytest.mark.servers
TTL = 3.0
KEY = "registry-cache/6a3ac88e9034e0d9.json"


class Upstream:
    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def answer(self, who: str) -> dict[str, str | None]:
        with self._lock:
            self.calls.append((time.monotonic(), who))
            number = len(self.calls)
        time.sleep(0.2)
        values = ("20260501T000000Z", f"v1.{number}.0", f"ghr://o/r/tag/v1.{number}.0/a&b.tar.gz", None, "")
        return dict(zip(RESPONSE, values, strict=True))


def test_one_call_per_window_whoever_makes_it(seaweedfs, monkeypatch):
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)
    bucket = seaweedfs.create_bucket()
    store = kvcache.open_store(seaweedfs.store_url(bucket, "app"))
    upstream, stop, errors = Upstream(), threading.Event(), []
    seen: dict[str, list[str]] = {}

    def poll(name, current):
        try:
            while not stop.is_set():
                answer = current()
                if answer is not None:
                    seen.setdefault(name, []).append(answer["Tag"])
                stop.wait(0.3)
        except BaseException as error:
            errors.append((name, error))
            raise

    def ask(cache, name):
        return cache.get(KEY, lambda ctx: upstream.answer(name)).value

    threads = []
    for number in range(3):
        cache = kvcache.SharedCache(store, ttl=TTL)
        ours = partial(ask, cache, f"ours-{number}")
        v2 = DewyV2(seaweedfs.client(), bucket, f"app/{KEY}", TTL, f"v2-{number}:1", stop)
        theirs = partial(v2.current, partial(upstream.answer, f"v2-{number}"))
        threads += [threading.Thread(target=poll, args=(f"ours-{number}", ours))]
        threads += [threading.Thread(target=poll, args=(f"v2-{number}", theirs))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(8 * TTL)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    spent = time.monotonic() - began
    print(f"{len(upstream.calls)} calls in {spent / TTL:.1f} windows: {[who for _, who in upstream.calls]}")
    assert 3 <= len(upstream.calls) <= spent / TTL + 1
    gaps = [after - before for (before, _), (after, _) in zip(upstream.calls, upstream.calls[1:], strict=False)]
    assert min(gaps) > TTL - 1.3  # S3 tells whole seconds, and v2 goes by its own clock
    for tags in seen.values():
        numbers = [int(tag.split(".")[1]) for tag in tags]
        assert numbers == sorted(numbers) and len(set(numbers)) >= 3


def test_v2_reads_ours_and_honours_our_lock(seaweedfs, monkeypatch):
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)
    bucket = seaweedfs.create_bucket()
    store = kvcache.open_store(seaweedfs.store_url(bucket, "app"))
    upstream, stop = Upstream(), threading.Event()
    release = threading.Event()

    def slow(ctx):
        release.wait(30)
        return kvcache.Loaded(upstream.answer("ours"), validator={"etag": '"x"'}, extra={"digest": "sha256:00"})

    leading = threading.Thread(target=kvcache.SharedCache(store, ttl=60).get, args=(KEY, slow))
    leading.start()
    v2 = DewyV2(seaweedfs.client(), bucket, f"app/{KEY}", 60.0, "v2:1", stop)
    while not list(store.list("registry-cache/")):
        time.sleep(0.05)
    time.sleep(0.5)
    got: list[object] = []
    following = threading.Thread(target=lambda: got.append(v2.current(lambda: upstream.answer("v2"))))
    following.start()
    time.sleep(1.0)
    assert upstream.calls == []  # it waits behind our lock
    release.set()
    leading.join()
    following.join(30)
    assert [who for _, who in upstream.calls] == ["ours"]
    assert got[0]["Tag"] == "v1.1.0"
    raw = json.loads(store.read(KEY))
    assert list(raw) == ["response", "fetched_at", "locked_at", "kvcache"]
    assert list(raw["response"]) == list(RESPONSE)
    assert b"a\\u0026b.tar.gz" in store.read(KEY)
    assert abs(seconds(raw["fetched_at"]) - time.time()) < 60
