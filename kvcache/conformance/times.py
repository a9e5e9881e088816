"""The store's clock."""

from __future__ import annotations

import time

from kvcache.conformance.check import expect, expect_error, only_with, refusal, scratch
from kvcache.errors import NotFound
from kvcache.kvs import Store

_LONG_AGO = 1_700_000_000.0
"""November 2023: no clock of a store that works is before it."""


@refusal("store_time")
def tells_no_time(store: Store) -> None:
    """A store without a clock of its own tells none, rather than that of this host."""
    with scratch(store) as key:
        store.write(key("a"), b"x")
        told = store.read_versioned(key("a")).store_time
        expect(told is None, f"a store that does not claim store_time told {told}")


@only_with("store_time")
def check_store_time(store: Store) -> None:
    """Every read tells the store's time, a reading of what is not there too; it goes on, and never back."""
    resolution = store.capabilities.time_resolution
    with scratch(store) as key:
        store.write(key("a"), b"x")
        told: list[float] = []
        began = time.monotonic()
        for _ in range(5):
            for moment in (
                store.read_versioned(key("a")).store_time,
                expect_error(NotFound, "reading an absent key", store.read_versioned, key("no")).store_time,
            ):
                if moment is None:
                    expect(False, "a read told no store time")
                else:
                    told.append(moment)
            time.sleep(0.02)
        took = time.monotonic() - began
    expect(all(moment > _LONG_AGO for moment in told), f"the store's clock says {told[0]}, which is long ago")
    expect(told == sorted(told), f"the store's clock went back: {told}")
    expect(
        told[-1] - told[0] <= took + resolution + 1.0,
        f"the store's clock went on by {told[-1] - told[0]:.3f} s in {took:.3f} s",
    )
