"""Many clients of one key at once: is what they saw what one client at a time could have seen?"""

from __future__ import annotations

from functools import partial
from typing import Final

from kvcache.conformance.check import Check, expect, scratch
from kvcache.conformance.history import Client, TooHard, judge, script
from kvcache.conformance.races import together
from kvcache.errors import StoreUnavailable
from kvcache.kvs import Store

CLIENTS: Final = 6
LENGTH: Final = 20
"""Operations of each client."""
ROUNDS: Final = 4


def linearizable(seed: int, *, faults: bool = False) -> Check:
    """The check whose clients follow the scripts of `seed`; behind `faults` they write on conditions alone."""
    do = "read and conditionally write" if faults else "read, write and delete"
    return Check(
        name="linearizable",
        promise=f"What threads that {do} one key at once see, one after the other could see.",
        needs=("atomic_replace", "conditional_write") if faults else ("atomic_replace",),
        run=partial(check_history, seed=seed, faults=faults),
        at_most=CLIENTS * LENGTH * ROUNDS + 50,
    )


def check_history(store: Store, seed: int, faults: bool = False) -> None:
    """Broken if a recorded history is not linearizable."""
    can = store.capabilities
    paced = can.min_write_interval > 0
    clients, length, rounds = (3, 5, 1) if paced else (CLIENTS, LENGTH, ROUNDS)
    with scratch(store) as key:
        for turn in range(rounds):
            at_work = [Client(store, key(f"register {turn}"), f"thread-{number}") for number in range(clients)]

            def follow(number: int, turn: int = turn, at_work: list[Client] = at_work) -> None:
                kinds = script((seed, turn, number), length, conditional=can.conditional_write, faults=faults)
                at_work[number].follow(kinds)

            together(follow, clients)
            expect_linearizable(at_work)


def expect_linearizable(clients: list[Client]) -> None:
    """Broken with the smallest part of the clients' history that shows it. StoreUnavailable where it is too long."""
    try:
        evidence = judge(
            [operation for client in clients for operation in client.operations],
            [pair for client in clients for pair in client.versions],
        )
    except TooHard as error:
        raise StoreUnavailable(f"the history could not be judged: {error}") from error
    expect(not evidence, evidence)
