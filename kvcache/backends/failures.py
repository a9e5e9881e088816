"""One failed request, as every object store sees it: what it proves, and which error it becomes for the caller.

The clients' own exceptions say too little (s3fs: a lost condition is an errno that means forty other things; gcsfs:
every 412 is a FileExistsError), so each request is classified by its HTTP status and the service's error code.
"""

from __future__ import annotations

import enum
from typing import Final

from kvcache.errors import (
    AmbiguousWrite,
    InvalidKey,
    KVCacheError,
    NotFound,
    StoreUnavailable,
    Throttled,
    TooLarge,
    Unsupported,
)


class Kind(enum.Enum):
    """What a failed request proves."""

    ABSENT = "absent"
    """There is no such object. Nothing was changed."""
    NO_BUCKET = "no bucket"
    """There is no such bucket (or container)."""
    REFUSED = "refused"
    """The condition did not hold. Nothing was changed, by this copy of the request."""
    BUSY = "busy"
    """Somebody else is writing the object at this moment. Nothing was changed."""
    THROTTLED = "throttled"
    """Not carried out: too many requests."""
    DENIED = "denied"
    """Not carried out: no right, or no valid credentials."""
    UNSUPPORTED = "unsupported"
    """Not carried out: the service does not know how."""
    TOO_LARGE = "too large"
    """Not carried out: above the service's limit."""
    BAD_NAME = "bad name"
    """Not carried out: this service cannot have an object of this name."""
    REJECTED = "rejected"
    """Not carried out: the service calls the request wrong, and will next time."""
    UNKNOWN = "unknown"
    """No trustworthy answer. A write may have been carried out, or may still be."""


TRANSIENT: Final = frozenset({Kind.UNKNOWN, Kind.THROTTLED, Kind.BUSY})
"""Kinds that can pass by themselves."""

_THROTTLED_CODES: Final = frozenset(
    {
        *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServerBusy"),
        *("rateLimitExceeded", "userRateLimitExceeded"),
    }
)
_DENIED_CODES: Final = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("TokenRefreshRequired", "RequestTimeTooSkewed"),
    }
)
_SEND_AGAIN_CODES: Final = frozenset(
    {"RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "Md5Mismatch"}
)
"""The 400s that say that the request was damaged or cut short on its way."""
_BUCKET_CODES: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_SIZE_CODES: Final = frozenset({"EntityTooLarge", "RequestBodyTooLarge"})
_NAME_CODES: Final = frozenset({"KeyTooLongError", "InvalidObjectName", "InvalidResourceName"})
_EXISTS_CODES: Final = frozenset({"BlobAlreadyExists"})
"""Azure's 409 for a create-only write that lost; its other 409s, and S3's, say that an operation is in flight."""


def kind_of(status: int, code: str = "") -> Kind:
    """What an answer with this HTTP status and error code of the service proves."""
    if code in _THROTTLED_CODES or status == 429:
        return Kind.THROTTLED
    if code in _BUCKET_CODES:
        return Kind.NO_BUCKET
    if code in _EXISTS_CODES or status in (304, 412):  # 304: old MinIO, to a PUT with If-None-Match
        return Kind.REFUSED
    if code in _DENIED_CODES or status in (401, 403):
        return Kind.DENIED
    if code in _SIZE_CODES or status == 413:
        return Kind.TOO_LARGE
    if code in _NAME_CODES:
        return Kind.BAD_NAME
    if code in _SEND_AGAIN_CODES or status == 408:
        return Kind.UNKNOWN
    if status in (404, 410):
        return Kind.ABSENT
    if status == 409:
        return Kind.BUSY
    if status in (405, 501):
        return Kind.UNSUPPORTED
    if 300 <= status < 500:
        return Kind.REJECTED
    return Kind.UNKNOWN


class Failure(Exception):
    """A request that failed. Internal to the object stores: `as_error` makes it what the caller sees."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        retry_after: float | None = None,
        store_time: float | None = None,
    ) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.store_time = store_time
        self.copies: int | None = None
        """How many copies of the request were really sent; None: not known."""

    @property
    def may_have_landed(self) -> bool:
        """Whether a write that failed so may have been carried out, or may still be."""
        return self.copies != 0 and (self.copies != 1 or self.kind is Kind.UNKNOWN)

    @classmethod
    def answered(
        cls,
        status: int,
        code: str = "",
        message: str = "",
        *,
        retry_after: float | None = None,
        store_time: float | None = None,
    ) -> Failure:
        """The service answered with an error."""
        words = " ".join(f"HTTP {status} {code}".split())
        text = " ".join(message.split())[:200]
        detail = f"{words}: {text}" if text and text != code else words
        return cls(kind_of(status, code), detail, retry_after=retry_after, store_time=store_time)

    @classmethod
    def unanswered(cls, error: BaseException) -> Failure:
        """No answer, or none that can be trusted."""
        text = " ".join(str(error).split())[:200]
        return cls(Kind.UNKNOWN, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def as_error(failure: Failure, *, where: str, key: str, doing: str, right: str, in_doubt: bool = False) -> KVCacheError:
    """The error for the caller.

    `where` is the store's URL without secrets, `doing` a verb ("read"), `right` what the service calls the permission.
    `in_doubt`: a write that may have been carried out, whatever this last failure says.
    """
    what = f"{where}: cannot {doing} {key!r}" if key else f"{where}: cannot {doing}"
    if in_doubt:
        return AmbiguousWrite(f"{what}: the outcome is unknown ({failure.detail})")
    match failure.kind:
        case Kind.ABSENT:
            return NotFound(key, store_time=failure.store_time)
        case Kind.NO_BUCKET:
            return StoreUnavailable(f"{where}: the bucket does not exist ({failure.detail})")
        case Kind.DENIED:
            return StoreUnavailable(f"{what}: access denied; it needs {right} ({failure.detail})")
        case Kind.UNSUPPORTED:
            return Unsupported(f"{what}: the service does not support it ({failure.detail})")
        case Kind.TOO_LARGE:
            return TooLarge(f"{what}: too large for the service ({failure.detail})")
        case Kind.BAD_NAME:
            return InvalidKey(f"{what}: the service cannot store under this name ({failure.detail})")
        case Kind.THROTTLED | Kind.BUSY:
            return Throttled(f"{what}: the store asks for a pause ({failure.detail})", retry_after=failure.retry_after)
        case _:
            return StoreUnavailable(f"{what}: {failure.detail}")
