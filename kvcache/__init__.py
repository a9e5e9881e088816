"""kvcache: one key-value interface over many stores, and a shared result cache on top of it.

store = kvcache.open_store("s3://eu-central-1/bucket/app")
cache = kvcache.SharedCache(store, ttl=30.0)
result = cache.get("releases", load)          # one call of `load` per ttl, whatever the number of nodes
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvcache.errors import (
    AmbiguousWrite,
    Conflict,
    CorruptRecord,
    InvalidKey,
    InvalidURL,
    KVCacheError,
    NotFound,
    StoreUnavailable,
    Throttled,
    TooLarge,
    Unsupported,
    UpstreamError,
    UpstreamUnavailable,
)
from kvcache.kvs import (
    ABSENT,
    ANYWAY,
    AsyncAccess,
    Capabilities,
    Condition,
    Match,
    Progress,
    Source,
    Stat,
    Store,
    Stored,
    Version,
    check_key,
)
from kvcache.load import NOT_MODIFIED, AsyncLoad, Load, LoadContext, Loaded, NotModified, Result
from kvcache.redaction import is_secret_name, redact, scrub
from kvcache.units import format_duration, parse_duration, parse_size
from kvcache.url import StoreOptions, StoreURL, open_store, parse_store_url, store_options

if TYPE_CHECKING:
    from kvcache.aio import AsyncSharedCache
    from kvcache.cache import SharedCache
    from kvcache.codecs import Codec
    from kvcache.decorator import cached
    from kvcache.staging import BadCopy, Staging

__all__ = [
    "ABSENT",
    "ANYWAY",
    "NOT_MODIFIED",
    "AmbiguousWrite",
    "AsyncAccess",
    "AsyncLoad",
    "AsyncSharedCache",
    "BadCopy",
    "Capabilities",
    "Codec",
    "Condition",
    "Conflict",
    "CorruptRecord",
    "InvalidKey",
    "InvalidURL",
    "KVCacheError",
    "Load",
    "LoadContext",
    "Loaded",
    "Match",
    "NotFound",
    "NotModified",
    "Progress",
    "Result",
    "SharedCache",
    "Source",
    "Staging",
    "Stat",
    "Store",
    "StoreOptions",
    "StoreURL",
    "StoreUnavailable",
    "Stored",
    "Throttled",
    "TooLarge",
    "Unsupported",
    "UpstreamError",
    "UpstreamUnavailable",
    "Version",
    "cached",
    "check_key",
    "format_duration",
    "is_secret_name",
    "open_store",
    "parse_duration",
    "parse_size",
    "parse_store_url",
    "redact",
    "scrub",
    "store_options",
]

_LATER = {
    "AsyncSharedCache": "kvcache.aio",
    "BadCopy": "kvcache.staging",
    "Codec": "kvcache.codecs",
    "SharedCache": "kvcache.cache",
    "Staging": "kvcache.staging",
    "cached": "kvcache.decorator",
}
"""Imported when asked for: whoever only opens a store, or only uses threads, does not wait for the rest."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)  # so it is asked for once
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
