"""Refusals as the object stores word them, and a storm of everything that can go wrong."""

from __future__ import annotations

import json
from typing import Literal, TypeAlias

from tests.proxy.faults import (
    Action,
    Answer,
    CutBody,
    DelayReply,
    DelayRequest,
    DropReply,
    DropRequest,
    Duplicate,
    Fault,
    ResetBody,
)

Style: TypeAlias = Literal["s3", "gcs", "azure", "plain"]

CODES: dict[str, dict[int, str]] = {
    "s3": {
        404: "NoSuchKey",
        409: "ConditionalRequestConflict",
        412: "PreconditionFailed",
        429: "TooManyRequests",
        500: "InternalError",
        503: "SlowDown",
    },
    "gcs": {
        404: "notFound",
        409: "conflict",
        412: "conditionNotMet",
        429: "rateLimitExceeded",
        500: "backendError",
        503: "backendError",
    },
    "azure": {
        404: "BlobNotFound",
        409: "BlobAlreadyExists",
        412: "ConditionNotMet",
        429: "TooManyRequests",
        500: "InternalError",
        503: "ServerBusy",
    },
}


def refusal(
    style: Style, status: int, *, code: str | None = None, retry_after: float | None = None, applied: bool = False
) -> Answer:
    """A refusal with `status` in the words of `style`; `code` in place of the usual one."""
    code = code or CODES.get(style, {}).get(status, "Error")
    headers = {"Content-Type": "text/plain"}
    body = f"{status} {code}\n".encode()
    match style:
        case "s3":
            headers = {"Content-Type": "application/xml", "x-amz-request-id": "FAULTPROXY"}
            body = _xml(code, "<RequestId>FAULTPROXY</RequestId>")
        case "gcs":
            error = {"domain": "global", "reason": code, "message": code}
            headers = {"Content-Type": "application/json; charset=UTF-8"}
            body = json.dumps({"error": {"code": status, "message": code, "errors": [error]}}).encode()
        case "azure":
            headers = {"Content-Type": "application/xml", "x-ms-error-code": code}
            body = _xml(code, "")
    if retry_after is not None:
        headers["Retry-After"] = f"{retry_after:g}"
    return Answer(status, body, headers, applied)


def not_modified() -> Answer:
    """304, as to a conditional GET."""
    return Answer(304)


def _xml(code: str, more: str) -> bytes:
    text = f"<Error><Code>{code}</Code><Message>made by the fault proxy</Message>{more}</Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def storm(style: Style, probability: float, *, delay: float, method: str = ".*", path: str = "") -> list[Fault]:
    """Every fault that a request can meet, one of them with `probability` in all; `delay` in seconds.

    Choose `delay` beyond the client's time-out, so that delayed requests and answers meet their retries.
    """
    actions: list[Action] = [
        DropRequest(),
        DropReply(),
        DropReply(reset=True),
        DelayRequest(delay),
        DelayReply(delay),
        Duplicate("first"),
        Duplicate("second"),
        Duplicate("first", after=delay),
        refusal(style, 409),
        refusal(style, 429, retry_after=1),
        refusal(style, 500),
        refusal(style, 500, applied=True),
        refusal(style, 503),
        CutBody(after=10),
        ResetBody(after=10),
        ResetBody(after=10, where="request"),
    ]
    # The k-th is asked only when those before it let the request pass: p/(1 - k·p) makes them equally likely.
    share = probability / len(actions)
    return [
        Fault(action, method, path, probability=share / (1 - index * share)) for index, action in enumerate(actions)
    ]
