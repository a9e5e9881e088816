"""The verdict on a write whose answer proves nothing: every case, and a model of every history of one write."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.backends.bucket import Head
from kvcache.backends.failures import Failure, Kind, as_error, kind_of
from kvcache.backends.reconcile import Verdict, judge
from kvcache.errors import (
    AmbiguousWrite,
    InvalidKey,
    NotFound,
    StoreUnavailable,
    Throttled,
    TooLarge,
    Unsupported,
)
from kvcache.kvs import ABSENT, ANYWAY, Version

OLD, OURS, THEIRS = Version("old"), Version("ours"), Version("theirs")


@pytest.mark.parametrize(
    ("condition", "found", "all_refused", "due"),
    [
        (ABSENT, Head(1, OURS, write_id="me"), True, Verdict.LANDED),
        (ABSENT, Head(1, OURS, write_id="me"), False, Verdict.LANDED),
        (ABSENT, Head(1, THEIRS, write_id="other"), True, Verdict.LOST),
        (ABSENT, Head(1, THEIRS), True, Verdict.LOST),
        (ABSENT, Head(1, THEIRS), False, Verdict.UNKNOWABLE),
        (ABSENT, None, True, Verdict.SEND_AGAIN),
        (ABSENT, None, False, Verdict.SEND_AGAIN),
        (OLD, Head(1, OLD, write_id="other"), False, Verdict.SEND_AGAIN),
        (OLD, Head(1, OLD), True, Verdict.SEND_AGAIN),
        (OLD, Head(1, THEIRS), True, Verdict.LOST),
        (OLD, Head(1, THEIRS), False, Verdict.UNKNOWABLE),
        (OLD, None, True, Verdict.LOST),
        (OLD, None, False, Verdict.UNKNOWABLE),
        (ANYWAY, Head(1, THEIRS), False, Verdict.SEND_AGAIN),
        (ANYWAY, None, False, Verdict.SEND_AGAIN),
        (ANYWAY, Head(1, OURS, write_id="me"), False, Verdict.LANDED),
    ],
)
def test_verdicts(condition, found, all_refused, due):
    assert judge("me", condition, found, all_refused=all_refused) is due


@given(st.lists(st.sampled_from(["ours", "theirs", "delete"]), max_size=6), st.booleans(), st.booleans())
def test_no_history_is_misjudged(history, create, answered):
    """A key's history around one write of ours, at most one copy of which lands: the verdict never says otherwise."""
    condition = ABSENT if create else OLD
    state = None if create else Head(1, OLD, write_id="before")
    landed, refused = False, False
    for number, event in enumerate(history):
        if event == "theirs":
            state = Head(1, Version(f"theirs {number}"), write_id="other")
        elif event == "delete":
            state = None
        elif (state is None) if create else (state is not None and state.version == OLD):
            state, landed = Head(1, OURS, write_id="me"), True
        else:
            refused = True
    copies = history.count("ours")
    all_refused = answered and copies == 1 and refused
    verdict = judge("me", condition, state, all_refused=all_refused)
    if verdict is Verdict.LANDED:
        assert landed
    if verdict is Verdict.LOST:
        assert not landed
    if verdict is Verdict.SEND_AGAIN and not create:
        assert not landed  # ABSENT: it may have landed and have been deleted, and is then created once more


# -- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "due"),
    [
        (412, "PreconditionFailed", Kind.REFUSED),
        (412, "", Kind.REFUSED),
        (304, "", Kind.REFUSED),
        (409, "ConditionalRequestConflict", Kind.BUSY),
        (409, "OperationAborted", Kind.BUSY),
        (409, "BlobAlreadyExists", Kind.REFUSED),
        (404, "NoSuchKey", Kind.ABSENT),
        (404, "", Kind.ABSENT),
        (404, "NoSuchBucket", Kind.NO_BUCKET),
        (404, "ContainerNotFound", Kind.NO_BUCKET),
        (403, "AccessDenied", Kind.DENIED),
        (401, "", Kind.DENIED),
        (400, "ExpiredToken", Kind.DENIED),
        (403, "rateLimitExceeded", Kind.THROTTLED),
        (429, "", Kind.THROTTLED),
        (503, "SlowDown", Kind.THROTTLED),
        (503, "ServerBusy", Kind.THROTTLED),
        (503, "", Kind.UNKNOWN),
        (500, "InternalError", Kind.UNKNOWN),
        (502, "", Kind.UNKNOWN),
        (408, "", Kind.UNKNOWN),
        (400, "RequestTimeout", Kind.UNKNOWN),
        (200, "InternalError", Kind.UNKNOWN),  # S3 may answer so to the end of an upload
        (501, "NotImplemented", Kind.UNSUPPORTED),
        (405, "", Kind.UNSUPPORTED),
        (413, "", Kind.TOO_LARGE),
        (400, "EntityTooLarge", Kind.TOO_LARGE),
        (400, "KeyTooLongError", Kind.BAD_NAME),
        (400, "AuthorizationHeaderMalformed", Kind.REJECTED),
        (301, "PermanentRedirect", Kind.REJECTED),
        (400, "", Kind.REJECTED),
    ],
)
def test_what_an_answer_proves(status, code, due):
    assert kind_of(status, code) is due


@pytest.mark.parametrize(
    ("kind", "due"),
    [
        (Kind.ABSENT, NotFound),
        (Kind.NO_BUCKET, StoreUnavailable),
        (Kind.DENIED, StoreUnavailable),
        (Kind.UNSUPPORTED, Unsupported),
        (Kind.TOO_LARGE, TooLarge),
        (Kind.BAD_NAME, InvalidKey),
        (Kind.THROTTLED, Throttled),
        (Kind.BUSY, Throttled),
        (Kind.REJECTED, StoreUnavailable),
        (Kind.UNKNOWN, StoreUnavailable),
    ],
)
def test_the_error_that_the_caller_sees(kind, due):
    failure = Failure(kind, "HTTP 499 Detail", retry_after=3.0, store_time=5.0)
    facts = {"where": "s3://r/b", "key": "k", "doing": "read", "right": "s3:GetObject"}
    error = as_error(failure, **facts)
    assert type(error) is due
    if due is Throttled:
        assert error.retry_after == 3.0
    if due is NotFound:
        assert error.store_time == 5.0
    if kind is Kind.DENIED:
        assert "s3://r/b: cannot read 'k': access denied; it needs s3:GetObject" in str(error)
    assert type(as_error(failure, **facts, in_doubt=True)) is AmbiguousWrite


def test_a_refusal_is_trusted_only_if_one_copy_was_sent():
    for kind, copies in itertools.product(Kind, (None, 0, 1, 2)):
        failure = Failure(kind, "")
        failure.copies = copies
        trusted = copies == 0 or (copies == 1 and kind is not Kind.UNKNOWN)
        assert failure.may_have_landed is not trusted
