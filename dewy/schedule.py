"""When a node polls: nodes of a fleet spread over the interval, each always at the same place in it. Pure."""

from __future__ import annotations

import hashlib


def phase_of(node: str, interval: float) -> float:
    """The place of a node in the interval, in seconds, from a hash of its name.

    Not from the start of its process: a whole fleet starts together after a power cut, or a roll-out.
    """
    draw = int.from_bytes(hashlib.sha256(node.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    return draw * interval


def until_next(wall: float, interval: float, phase: float) -> float:
    """Seconds from `wall` (since the epoch) to the next poll: above 0, at most `interval`, wherever the clock goes."""
    left = interval - (wall - phase) % interval
    return left if left > 0 else interval  # a remainder of floats may be the divisor itself
