"""What cannot come of an effect, and a flight that is over: mistakes of a driver, which are said and not guessed at."""

from __future__ import annotations

import pytest

from kvcache import events as ev
from kvcache.clock import Now
from kvcache.kvs import Version
from kvcache.protocol import advance, begin
from kvcache.view import NOTHING, Policy


def stages():
    """A flight in each phase that waits for something in particular, and an input that cannot come of it."""
    policy = Policy(ttl=60.0, lease=30.0, load_timeout=100.0, node="n")
    now, late = Now(1e9, 1000.0, 0.5, "a"), Now(1e9 + 10, 1010.0, 0.5, "b")
    looking = begin("key", policy, NOTHING).flight
    claiming = advance(looking, ev.Missing(), now).flight
    loading = advance(claiming, ev.Landed(Version("c")), now).flight
    renewing = advance(loading, ev.Elapsed(), late).flight
    publishing = advance(loading, ev.LoadDone("a"), now).flight
    recalling = advance(looking, ev.ReadFailed("down"), now).flight
    return {
        "Looking": (looking, ev.Elapsed()),
        "Claiming": (claiming, ev.Missing()),
        "Loading": (loading, ev.Refused()),
        "Renewing": (renewing, ev.LoadDone("a")),
        "Publishing": (publishing, ev.Elapsed()),
        "Recalling": (recalling, ev.Missing()),
    }


@pytest.mark.parametrize("phase", stages())
def test_what_cannot_come_of_an_effect_is_a_mistake_of_the_driver(phase):
    flight, came = stages()[phase]
    with pytest.raises(TypeError, match=f"^{type(came).__name__} cannot come of {phase}$"):
        advance(flight, came, Now(1e9, 1000.0, 0.5, "z"))


def test_a_flight_that_is_over_goes_no_further():
    flight, _ = stages()["Publishing"]
    over = advance(flight, ev.Landed(Version("p")), Now(1e9, 1000.0, 0.5, "z"))
    assert over.effect == ev.Stop()
    with pytest.raises(ValueError, match=r"^the flight is over$"):
        advance(over.flight, ev.Elapsed(), Now(1e9, 1000.0, 0.5, "z"))
