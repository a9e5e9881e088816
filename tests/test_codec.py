"""The bytes of a record: Dewy v2's form, ours beside it, and whatever else may lie under a key."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.codec import decode, encode
from kvcache.errors import CorruptRecord
from kvcache.record import Answer, Failure, Lock, Record

# Written by Go's encoding/json, from dewy-v2-facts.md 3.3.
V2_CLAIM = (
    b'{"fetched_at":"0001-01-01T00:00:00Z","locked_at":"2026-05-01T09:00:00.123456789+09:00","locked_by":"host-a:42"}'
)
V2_ANSWER = (
    b'{"response":{"ID":"20260501T000000Z","Tag":"v1.2.3","ArtifactURL":"ghr://o/r/tag/v1.2.3/app_linux_amd64.tar.gz",'
    b'"CreatedAt":"2026-04-30T01:02:03Z","Slot":""},"fetched_at":"2026-05-01T00:00:00.12Z",'
    b'"locked_at":"0001-01-01T00:00:00Z"}'
)
V2_BOTH = (
    b'{"response":{"ID":"x","Tag":"v1.2.3+blue","ArtifactURL":"s3://r/b/k?endpoint=http://h:9000\\u0026x=\\u003cy\\u003e",'
    b'"CreatedAt":null,"Slot":"blue"},"fetched_at":"2026-05-01T00:00:00Z","locked_at":"2026-05-01T00:00:00.12Z",'
    b'"locked_by":"h:1"}'
)
MAY_FIRST = 1_777_593_600.0


def v2_part(data: bytes) -> bytes:
    """What Dewy v2 sees of a record of ours: the same bytes without the field it ignores."""
    fields = json.loads(data)
    ours = json.dumps(fields["kvcache"], separators=(",", ":"), ensure_ascii=False)
    for plain, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        ours = ours.replace(plain, escaped)
    return data.replace(f',"kvcache":{ours}'.encode(), b"")


def test_a_claim_of_v2_is_read():
    record = decode(V2_CLAIM)
    assert record.answer is None
    assert record.lock == Lock(MAY_FIRST + 0.123456, "host-a:42", None)
    assert record.nonce == ""


def test_an_answer_of_v2_is_read():
    record = decode(V2_ANSWER)
    assert record.lock is None
    assert record.answer is not None
    assert record.answer.fetched_at == MAY_FIRST + 0.12
    assert record.answer.value["Tag"] == "v1.2.3"


@pytest.mark.parametrize("data", [V2_ANSWER, V2_BOTH])
def test_what_v2_reads_of_ours_is_byte_for_byte_its_own_form(data):
    record = decode(data)
    assert v2_part(encode(Record("n1", record.answer, record.lock))) == data


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-01T00:00:00Z", MAY_FIRST),
        ("2026-05-01T00:00:00.1Z", MAY_FIRST + 0.1),
        ("2026-05-01T00:00:00.123456789Z", MAY_FIRST + 0.123456),
        ("2026-04-30T19:00:00-05:00", MAY_FIRST),
        ("2026-05-01T05:45:00+05:45", MAY_FIRST),
        ("2026-05-01t00:00:00z", MAY_FIRST),
    ],
)
def test_times(text, seconds):
    record = decode(V2_ANSWER.replace(b"2026-05-01T00:00:00.12Z", text.encode()))
    assert record.answer is not None
    assert record.answer.fetched_at == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01T09:00:00+09:00"])
def test_the_zero_time_of_go_is_no_time(zero):
    assert decode(V2_CLAIM.replace(b"0001-01-01T00:00:00Z", zero.encode())).answer is None


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-05-01", "2026-05-01T00:00:00", "2026-05-01T00:00:00+99:00"]
)
def test_what_is_no_time_makes_no_record(text):
    with pytest.raises(CorruptRecord):
        decode(V2_ANSWER.replace(b"2026-05-01T00:00:00.12Z", text.encode()))


def test_names_are_matched_as_go_matches_them():
    assert decode(V2_CLAIM.replace(b"locked_by", b"Locked_By")).lock == decode(V2_CLAIM).lock


TIMES = st.integers(0, 4_000_000_000_000_000).map(lambda microseconds: microseconds / 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LENGTHS = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6)
RECORDS = st.builds(
    Record,
    nonce=st.text("0123456789abcdef", min_size=1, max_size=16),
    answer=st.none() | st.builds(Answer, JSON, TIMES, JSON, JSON, LENGTHS),
    lock=st.none() | st.builds(Lock, TIMES, st.text(max_size=20), st.none() | LENGTHS),
    failure=st.none()
    | st.builds(Failure, st.integers(1, 99), st.text(max_size=9), st.text(max_size=99), TIMES, TIMES, st.booleans()),
    invalidated=st.booleans(),
)


@given(RECORDS)
def test_every_record_survives_the_wire(record):
    data = encode(record)
    assert decode(data) == record
    assert encode(decode(data)) == data
    assert not {b"&", b"<", b">"} & {bytes([c]) for c in data}


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_corrupt(data):
    try:
        decode(data)
    except CorruptRecord as error:
        assert "\n" not in str(error)


@given(RECORDS, st.data())
def test_torn_records_are_corrupt(record, data):
    whole = encode(record)
    with pytest.raises(CorruptRecord):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(
    st.dictionaries(
        st.sampled_from(["response", "fetched_at", "locked_at", "locked_by", "kvcache"]),
        JSON | st.just("2026-05-01T00:00:00Z") | st.just({"format": 1, "nonce": "n", "failure": {"count": -1}}),
    )
)
def test_hostile_fields_are_a_record_or_corrupt(fields):
    with contextlib.suppress(CorruptRecord):
        decode(json.dumps(fields).encode())


def test_deep_nesting_is_corrupt():
    with pytest.raises(CorruptRecord):
        decode(b'{"locked_at":"0001-01-01T00:00:00Z","response":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_later_format_is_not_guessed_at():
    with pytest.raises(CorruptRecord, match="does not know"):
        decode(b'{"fetched_at":"2026-05-01T00:00:00Z","kvcache":{"format":2,"nonce":"n"}}')


def test_what_is_not_json_is_refused():
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises((TypeError, ValueError)):
            encode(Record("n", Answer(value, 1.0)))
