"""Every error that kvcache raises. No exception of a client library reaches the user.

KVCacheError
├── InvalidURL             the store URL is wrong; correct it. Raised before anything is opened
├── InvalidKey             the key cannot name anything in this store; correct it
├── NotFound               nothing is stored under the key
├── Conflict               a conditional write was refused: somebody else wrote first. Read again, decide again
├── Unsupported            the store cannot do this at all; see `Store.capabilities`. Trying again cannot help
├── TooLarge               the value exceeds a limit of the store; nothing was written
├── StoreUnavailable       the store did not answer, or refused for now; trying again can help
│   ├── Throttled          it asked for a pause; the request was certainly not carried out
│   └── AmbiguousWrite     a write was sent and its outcome is unknown. Read back before you send it again
├── UpstreamUnavailable    no usable answer, and the upstream failed; carries the failure and when to call next
├── UpstreamError          raised *by a load* to say how the upstream failed
└── CorruptRecord          the bytes under the key are not a record; the next successful refresh heals them
"""

from __future__ import annotations


class KVCacheError(Exception):
    """Base of every error of kvcache."""


class InvalidURL(KVCacheError, ValueError):
    """A store URL that cannot be opened. The message names the part, the value and the accepted form."""


class InvalidKey(KVCacheError, ValueError):
    """A key that is empty, absolute, escapes the store, or holds NUL."""


class NotFound(KVCacheError, LookupError):
    """Nothing is stored under the key.

    `store_time` is the store's clock when it said so (seconds since the Unix epoch), or None where the store
    does not tell.
    """

    def __init__(self, key: str, *, store_time: float | None = None) -> None:
        super().__init__(f"not found: {key}")
        self.key = key
        self.store_time = store_time


class Conflict(KVCacheError):
    """A conditional write was refused because its condition did not hold. Nothing was changed by it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"precondition failed: {key}")
        self.key = key


class Unsupported(KVCacheError):
    """The store cannot do this; `Store.capabilities` says so beforehand."""


class TooLarge(KVCacheError):
    """The value exceeds a limit of the store. Raised before anything is written."""


class StoreUnavailable(KVCacheError):
    """The store did not answer, or refused for now. It may pass by itself."""


class Throttled(StoreUnavailable):
    """The store asked for a pause (429, 503 SlowDown). The request was certainly not carried out.

    `retry_after` is the pause it asked for in seconds, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AmbiguousWrite(StoreUnavailable):
    """A write was sent and no trustworthy answer came: it may have been applied, or may still be.

    Read the key back and compare before sending it again; never assume either outcome.
    """


class UpstreamError(KVCacheError):
    """Raised by a load to say how the upstream failed.

    `retry_after`: seconds for which the upstream asked not to be called (Retry-After, rate-limit reset).
    `authoritative`: the failure is the upstream's considered answer (401, 404, 410), so the last known answer
    must not be served in its place.
    """

    def __init__(self, message: str, retry_after: float | None = None, authoritative: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.authoritative = authoritative


class UpstreamUnavailable(KVCacheError):
    """There is no usable answer and the upstream failed, here or on another node of the fleet.

    `kind` and `failure` are the recorded failure, `count` how often in a row it has failed, `retry_in` the seconds
    until the next call is due (0.0: at once), `authoritative` as in `UpstreamError`.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unknown",
        failure: str = "",
        count: int = 0,
        retry_in: float = 0.0,
        authoritative: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.failure = failure
        self.count = count
        self.retry_in = retry_in
        self.authoritative = authoritative


class CorruptRecord(KVCacheError):
    """The bytes under a key are not a record that this version understands."""
