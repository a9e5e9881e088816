"""A store that removes values by itself, and the caches that may be built on it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvcache
from kvcache.backends.memory import MemoryStore
from kvcache.config import check_expiry, policy
from kvcache.view import MAX_RETRY_AFTER


class Expiring(MemoryStore):
    """Says that it removes values; whether it does is nothing to these tests."""

    def __init__(self, after: float) -> None:
        super().__init__(2**20)
        self.after = after

    @property
    def capabilities(self):
        return kvcache.Capabilities(conditional_write=True, expires_after=self.after)


@pytest.mark.parametrize(
    ("url", "arguments", "complaint"),
    [
        ("redis://h/0?expire=10m", {"ttl": 30}, "expire: 10m0s: expected 1h6m0s or longer, for the longest back-off"),
        ("redis://h/0?expire=2h", {"ttl": 30, "max_stale": 7201}, "expire: 2h0m0s: expected 2h0m1s .* for max_stale"),
        ("redis://h/0?expire=2h", {"ttl": 7200}, "for the ttl"),
        ("redis://h/0?expire=2h", {"ttl": 30, "lease": timedelta(hours=3)}, "for the lease"),
    ],
)
def test_a_store_that_forgets_too_soon_is_refused(url, arguments, complaint):
    for cache in (kvcache.SharedCache, kvcache.AsyncSharedCache):
        with kvcache.open_store(url) as store, pytest.raises(kvcache.InvalidURL, match=complaint):
            cache(store, **arguments)


def test_one_that_remembers_long_enough_is_not():
    for url in ("redis://h/0", "redis://h/0?expire=2h"):
        with kvcache.open_store(url) as store:
            kvcache.SharedCache(store, ttl=30)
            kvcache.SharedCache(store, ttl=30, max_stale=timedelta(hours=2))


seconds = st.floats(0.01, 1e6)


@given(
    st.floats(0.01, 2e6), seconds, st.none() | seconds, seconds, st.integers(1, 100), st.floats(0, 1), st.floats(0, 1e6)
)
def test_a_record_outlives_whatever_lies_between_two_writes(expires, ttl, max_stale, lease, count, chance, retry_after):
    chosen = policy(ttl, max_stale, lease, 0.0, None, False)
    try:
        check_expiry(chosen, Expiring(expires))
    except kvcache.InvalidURL:
        quiet = max(max_stale or 0, 1.1 * ttl, lease, 1.1 * MAX_RETRY_AFTER)
        assert expires < quiet + 1e-6, "refused without a reason"
        return
    assert expires >= chosen.due_age(chance)
    assert expires >= chosen.backoff(count, chance, retry_after)
    assert expires >= lease
    assert max_stale is None or expires >= max_stale
