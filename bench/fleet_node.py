"""One process of a measured fleet: polls a key as a dewy does, and tells at its end what that took.

`python -m bench.fleet_node STORE_URL UPSTREAM_URL TTL` reads a line, polls until its input ends, prints one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import kvcache

POLLS = 10
"""Polls in one ttl."""
KEY = "fleet"


class Counted:
    """A store that counts the requests that are made of it."""

    COUNTED = ("read_versioned", "write_if", "wait_for_change", "stat")

    def __init__(self, store: kvcache.Store) -> None:
        self._store = store
        self.requests: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in self.COUNTED:
            return method

        def counted(*args: Any, **options: Any) -> Any:
            self.requests[name] += 1
            return method(*args, **options)

        return counted


def main() -> None:
    store_url, upstream, ttl = sys.argv[1], sys.argv[2], float(sys.argv[3])

    def load(_: kvcache.LoadContext) -> int:
        try:
            with urllib.request.urlopen(f"{upstream}/{os.getpid()}", timeout=30) as answer:
                return int(answer.read())
        except urllib.error.HTTPError as error:
            after = error.headers.get("Retry-After")
            raise kvcache.UpstreamError(str(error), retry_after=float(after) if after else None) from None

    store: Any = Counted(kvcache.open_store(store_url))
    answers = failures = 0
    longest = 0.0
    with kvcache.SharedCache(store, ttl=ttl, lease=max(1.0, ttl), background=True) as cache:
        sys.stdin.readline()
        time.sleep(random.random() * ttl / POLLS)
        while not select.select([sys.stdin], [], [], ttl / POLLS)[0]:
            usable = answers > 0
            began = time.perf_counter()
            try:
                cache.get(KEY, load)
                answers += 1
            except kvcache.UpstreamUnavailable:
                failures += 1
            if usable:
                longest = max(longest, time.perf_counter() - began)
    print(json.dumps({"requests": store.requests, "answers": answers, "failures": failures, "longest": longest}))


if __name__ == "__main__":
    main()
