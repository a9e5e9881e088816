"""The arguments of a cache, checked once."""

from __future__ import annotations

import math
import os
import socket
from datetime import timedelta

from kvcache.errors import InvalidURL
from kvcache.kvs import Store
from kvcache.units import format_duration
from kvcache.view import MAX_RETRY_AFTER, Policy

DEFAULT_LEASE = 30.0


def policy(
    ttl: float | timedelta,
    max_stale: float | timedelta | None,
    lease: float | timedelta | None,
    refresh_ahead: float,
    load_timeout: float | timedelta | None,
    background: bool,
) -> Policy:
    """The policy of one cache. ValueError, in one line, for a number that makes no sense."""
    lease_seconds = _seconds("lease", DEFAULT_LEASE if lease is None else lease)
    if not 0 <= refresh_ahead < 1:
        raise ValueError(f"refresh_ahead: {refresh_ahead!r}: expected a fraction of the ttl, from 0.0 to below 1.0")
    return Policy(
        ttl=_seconds("ttl", ttl),
        max_stale=None if max_stale is None else _seconds("max_stale", max_stale, zero=True),
        lease=lease_seconds,
        refresh_ahead=refresh_ahead,
        load_timeout=10 * lease_seconds if load_timeout is None else _seconds("load_timeout", load_timeout),
        background=background,
        node=node_id(),
    )


def check_expiry(policy: Policy, store: Store) -> None:
    """InvalidURL where the store removes values sooner than the cache may still need them.

    A record is written anew by every refresh, also by one that failed. What lies between two of them is one ttl, one
    lease or one back-off; so a record that outlives these is there for as long as anybody asks for it. One that nobody
    asks for has to be there until its answer is older than max-stale.
    """
    expires = store.capabilities.expires_after
    if expires is None:
        return
    needs = {
        "max_stale": policy.max_stale or 0.0,
        "the ttl": policy.ttl + policy.spread,
        "the lease": policy.lease,
        "the longest back-off": policy.backoff(2**16, 1.0, MAX_RETRY_AFTER),
    }
    why = max(needs, key=needs.__getitem__)
    if expires < needs[why]:
        least = format_duration(math.ceil(round(needs[why], 3)))
        raise InvalidURL(f"{store.url}: expire: {format_duration(expires)}: expected {least} or longer, for {why}")


def node_id() -> str:
    """This process as records name it, in Dewy v2's form: `<hostname>:<pid>`."""
    return f"{socket.gethostname() or 'unknown-host'}:{os.getpid()}"


def _seconds(name: str, value: float | timedelta, *, zero: bool = False) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"{name}: {value!r}: expected a positive number of seconds, or a timedelta")
    return seconds
