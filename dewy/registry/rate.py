"""How many calls of its API GitHub still allows, as each of its answers says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`limit` calls in a window that ends at `reset` (seconds since the Unix epoch); `remaining` of them are left."""

    limit: int
    remaining: int
    reset: int

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self | None:
        """None: the answer does not say."""
        told = [headers.get(f"x-ratelimit-{name}") or "" for name in ("limit", "remaining", "reset")]
        if not all(text.isascii() and text.isdigit() and len(text) < 16 for text in told):
            return None
        return cls(*map(int, told))


@runtime_checkable
class RateLimited(Protocol):
    """A registry that counts its callers' calls."""

    @property
    def rate_limit(self) -> RateLimit | None:
        """As of its last answer; None: it has not said yet."""
