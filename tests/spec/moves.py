"""One refresh of one node whose writes all land, as a vector of `spec/vectors/moves.json` describes it."""

from __future__ import annotations

from typing import Any

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.codec import decode, encode
from kvcache.errors import CorruptRecord
from kvcache.kvs import ABSENT, Version
from kvcache.protocol import advance, begin
from kvcache.view import NOTHING, Policy

CHANCE = 0.5


def moved(vector: dict[str, Any]) -> tuple[bytes, bytes]:
    """The bytes of the claim and of the publish."""
    policy = Policy(**vector["policy"], node=vector["node"])
    nonces = iter(vector["nonces"])
    found = _found(vector["found"])

    def now(store: float, nonce: str = "") -> Now:
        return Now(store, store, CHANCE, nonce)

    step = advance(begin("key", policy, NOTHING).flight, found, now(vector["claimed_at"], next(nonces)))
    assert isinstance(step.effect, ev.Write)
    assert step.effect.match == (ABSENT if found == ev.Missing() else found.version)
    claim = encode(step.effect.record)

    step = advance(step.flight, ev.Landed(Version("claim")), now(vector["claimed_at"]))
    assert isinstance(step.effect, ev.StartLoad)
    step = advance(step.flight, _loaded(vector["load"]), now(vector["loaded_at"], next(nonces)))
    assert isinstance(step.effect, ev.Write)
    assert step.effect.match == Version("claim")
    return claim, encode(step.effect.record)


def _found(text: str | None) -> ev.Found | ev.Missing | ev.Unreadable:
    if text is None:
        return ev.Missing()
    try:
        return ev.Found(decode(text.encode()), Version(text))
    except CorruptRecord as error:
        return ev.Unreadable(Version(text), str(error))


def _loaded(load: dict[str, Any]) -> ev.LoadDone | ev.LoadUnchanged | ev.LoadFailed:
    match load:
        case {"unchanged": True}:
            return ev.LoadUnchanged()
        case {"fails": kind, "message": message, "retry_after": retry_after, "authoritative": authoritative}:
            return ev.LoadFailed(kind, message, retry_after, authoritative)
        case {"value": value, "validator": validator, "extra": extra}:
            return ev.LoadDone(value, validator, extra)
    raise ValueError(load)
