"""Which fault happens to which request: counted, and drawn from a seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proxy import Answer, DropReply, DropRequest, Fault, Outage, Plan, Seen, SlowBody, refusal, storm

GET, PUT = Seen("GET", "/bucket/key?versions"), Seen("PUT", "/bucket/key", {"if-match": '"1"'})


def picks(plan, *requests):
    return [plan.pick(request) for request in requests]


def test_the_first_fault_that_takes_a_request_acts():
    plan = Plan([Fault(DropReply(), method="PUT"), Fault(DropRequest())])
    assert picks(plan, GET, PUT) == [DropRequest(), DropReply()]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(DropReply(), method="GET|HEAD"), [True, False]),
        (Fault(DropReply(), method="G"), [False, False]),
        (Fault(DropReply(), path=r"\?versions$"), [True, False]),
        (Fault(DropReply(), path=r"^/bucket/"), [True, True]),
        (Fault(DropReply(), when=lambda seen: "if-match" in seen.headers), [False, True]),
    ],
)
def test_method_path_and_predicate_select(fault, expected):
    assert [fault.selects(request) for request in (GET, PUT)] == expected


def test_nth_counts_selected_requests_from_one():
    plan = Plan([Fault(DropReply(), method="PUT", nth=2)])
    assert picks(plan, PUT, GET, PUT, PUT) == [None, None, DropReply(), None]
    plan = Plan([Fault(DropReply(), nth=range(2, 4))])
    assert picks(plan, *[GET] * 4) == [None, DropReply(), DropReply(), None]


def test_times_bounds_how_often_it_acts():
    plan = Plan([Fault(DropReply(), times=2)])
    assert picks(plan, *[GET] * 4) == [DropReply(), DropReply(), None, None]


def test_a_fault_counts_requests_that_an_earlier_fault_took():
    plan = Plan([Fault(DropRequest(), nth=1), Fault(DropReply(), nth=2)])
    assert picks(plan, GET, GET, GET) == [DropRequest(), DropReply(), None]


@given(st.integers(), st.floats(0, 1))
def test_the_same_seed_gives_the_same_faults(seed, probability):
    faults = [Fault(DropReply(), probability=probability), Fault(Outage(1), method="GET", probability=probability)]
    requests = [GET, PUT] * 20
    assert picks(Plan(faults, seed), *requests) == picks(Plan(faults, seed), *requests)


def test_another_seed_gives_other_faults():
    faults = [Fault(DropReply(), probability=0.5)]
    runs = {tuple(picks(Plan(faults, seed), *[GET] * 30)) for seed in range(20)}
    assert len(runs) == 20


@given(st.integers())
def test_draws_of_one_fault_do_not_shift_anothers(seed):
    second = Fault(DropReply(), probability=0.5)
    alone = picks(Plan([Fault(SlowBody(1), nth=()), second], seed), *[GET] * 20)
    together = picks(Plan([Fault(DropRequest(), probability=0.3), second], seed), *[GET] * 20)
    assert all(one in (DropRequest(), two) for one, two in zip(together, alone, strict=True))


def test_a_storm_makes_every_fault_equally_likely():
    plan, requests = Plan(storm("s3", 0.5, delay=1), seed=1), 8000
    drawn = Counter(plan.pick(GET) for _ in range(requests))
    faults = len(plan.faults)
    expected = requests * 0.5 / faults
    assert len(drawn) == faults + 1
    # Six standard deviations on either side, and the seed is fixed.
    assert all(abs(count - expected) < 6 * expected**0.5 for action, count in drawn.items() if action)


@pytest.mark.parametrize(
    ("style", "status", "word"),
    [
        ("s3", 503, b"<Code>SlowDown</Code>"),
        ("s3", 409, b"<Code>ConditionalRequestConflict</Code>"),
        ("gcs", 412, b'"reason": "conditionNotMet"'),
        ("azure", 409, b"<Code>BlobAlreadyExists</Code>"),
        ("plain", 500, b"500 Error"),
    ],
)
def test_refusals_speak_the_words_of_their_store(style, status, word):
    answer = refusal(style, status, retry_after=1.5)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["Retry-After"]) == (status, "1.5")
    assert word in answer.body
