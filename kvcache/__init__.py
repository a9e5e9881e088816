"""kvcache: one key-value interface over many stores, and a shared result cache on top of it.

store = kvcache.open_store("s3://eu-central-1/bucket/app")
cache = kvcache.SharedCache(store, ttl=30.0)
result = cache.get("releases", load)          # one call of `load` per ttl, whatever the number of nodes
"""

from kvcache.cache import SharedCache
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
from kvcache.kvs import ABSENT, ANYWAY, Capabilities, Stat, Store, Stored, Version, check_key
from kvcache.load import NOT_MODIFIED, Load, LoadContext, Loaded, Result
from kvcache.redaction import redact, scrub
from kvcache.units import format_duration, parse_duration, parse_size
from kvcache.url import StoreOptions, StoreURL, open_store, store_options

__all__ = [
    "ABSENT",
    "ANYWAY",
    "NOT_MODIFIED",
    "AmbiguousWrite",
    "Capabilities",
    "Conflict",
    "CorruptRecord",
    "InvalidKey",
    "InvalidURL",
    "KVCacheError",
    "Load",
    "LoadContext",
    "Loaded",
    "NotFound",
    "Result",
    "SharedCache",
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
    "check_key",
    "format_duration",
    "open_store",
    "parse_duration",
    "parse_size",
    "redact",
    "scrub",
    "store_options",
]
