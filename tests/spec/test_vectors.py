"""The golden vectors of `spec/vectors`, which another language can run, against this code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from dewy.registry import cache_key
from kvcache import events as ev
from kvcache.clock import Now
from kvcache.codec import decode, encode
from kvcache.errors import CorruptRecord
from kvcache.events import Fail, Give
from kvcache.kvs import Version
from kvcache.record import EMPTY, Answer, Failure, Lock, Record
from kvcache.view import NOTHING, Follow, Lead, Policy, Serve, absorb, judge
from tests.spec import flights
from tests.spec.moves import moved

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"


def vectors(file: str, part: str) -> list[dict]:
    return json.loads((VECTORS / file).read_text())[part]


def named(file: str, part: str):
    return pytest.mark.parametrize("vector", vectors(file, part), ids=lambda vector: vector["name"])


def record_of(fields: dict) -> Record:
    answer, lock, failure = fields["answer"], fields["lock"], fields["failure"]
    return Record(
        fields["nonce"],
        None if answer is None else Answer(**answer),
        None if lock is None else Lock(**lock),
        None if failure is None else Failure(**failure),
        fields["invalidated"],
    )


@pytest.mark.parametrize("vector", vectors("keys.json", "keys"), ids=lambda vector: f"{vector['scope']}-{vector['os']}")
def test_keys(vector):
    assert cache_key(vector["scope"], vector["os"], vector["arch"]) == vector["key"]


@named("records.json", "read")
def test_bytes_that_are_read(vector):
    assert decode(vector["bytes"].encode()) == record_of(vector["record"])


@named("records.json", "corrupt")
def test_bytes_that_are_corrupt(vector):
    with pytest.raises(CorruptRecord):
        decode(vector["bytes"].encode())


@named("records.json", "write")
def test_records_that_are_written(vector):
    record = record_of(vector["record"])
    assert encode(record) == vector["bytes"].encode()
    assert decode(vector["bytes"].encode()) == record


@named("decisions.json", "decisions")
def test_decisions(vector):
    policy, held = Policy(**vector["policy"]), NOTHING
    for read in vector["reads"]:
        now = Now(read["store_time"], read["monotonic"], 0.5, "n")
        record, version = EMPTY, None
        if read["bytes"] is not None:
            version = Version(read["bytes"])
            try:
                record = decode(read["bytes"].encode())
            except CorruptRecord:
                record = EMPTY
        held = absorb(policy, held, record, version, now)
        verdict = judge(policy, held, record, now)
    due = vector["verdict"]
    match verdict:
        case Lead():
            assert due == {"do": "lead"}
        case Follow(left):
            assert due == {"do": "follow", "left": pytest.approx(left)}
        case Serve(Give(answer, age, state), _):
            assert due == {"do": "serve", "state": state, "age": pytest.approx(age), "value": answer.value}
        case Serve(Fail() as fail, _):
            assert due == {
                "do": "fail",
                "kind": fail.kind,
                "count": fail.count,
                "retry_in": pytest.approx(fail.retry_in),
                "authoritative": fail.authoritative,
            }


@named("moves.json", "moves")
def test_moves(vector):
    claim, publish = moved(vector)
    assert claim.decode() == vector["claim"]
    assert publish.decode() == vector["publish"]


@named("flights.json", "flights")
def test_flights(vector):
    node = flights.Node(vector)
    for move in vector["steps"]:
        assert node.play(move) == move["then"], move


def test_every_verdict_has_a_vector():
    verdicts = [vector["verdict"] for vector in vectors("decisions.json", "decisions")]
    assert {verdict["do"] for verdict in verdicts} == {"lead", "follow", "serve", "fail"}
    assert {verdict["state"] for verdict in verdicts if "state" in verdict} == {"fresh", "stale", "stale-on-error"}


def test_every_effect_and_every_input_has_a_vector():
    steps = [move for story in vectors("flights.json", "flights") for move in story["steps"]]
    effects = {next(iter(move["then"]["effect"])) for move in steps if "effect" in move["then"]}
    assert effects == {"read", "write", "load", "await", "wait", "recall", "stop"}
    assert len({next(iter(move["came"])) for move in steps if "came" in move}) == len(get_args(ev.Input))
