"""Opens an object store: the parameters that all of them take, the checks at the start, and what they lead to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from kvcache.backends.bucket import Bucket
from kvcache.backends.objects import Limits, ObjectStore
from kvcache.backends.probe import Misused, check_access, check_writing, find_faults
from kvcache.backends.wire import wait_for
from kvcache.errors import InvalidURL
from kvcache.kvs import Capabilities
from kvcache.url import StoreURL

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """What the URL of an object store says about opening it.

    anon=true      without credentials: read only
    check=off      nothing is asked at the start: a mistyped bucket shows at the first use
    probe=off      only access is checked: the service is trusted to honour conditions
    timeout=20s    for one operation on a value, with all its attempts; a transfer has none
    """

    anonymous: bool
    check: bool
    probe: bool
    foreign: bool
    """The service is not the vendor's own: it is behind an endpoint, or an emulator."""
    limits: Limits

    parameters: ClassVar[frozenset[str]] = frozenset({"anon", "check", "probe", "timeout"})

    @classmethod
    def of(cls, url: StoreURL, *, foreign: bool) -> Self:
        """InvalidURL."""
        timeout = url.take_duration("timeout", Limits().total)
        if not timeout > 0:
            raise url.invalid("timeout", url.params["timeout"], "a duration above 0, such as 20s")
        return cls(
            anonymous=url.take_bool("anon"),
            check=url.take_bool("check", True),
            probe=url.take_bool("probe", True),
            foreign=foreign,
            limits=Limits(timeout),
        )


def split_bucket(url: StoreURL, form: str, path: str) -> tuple[str, str]:
    """(bucket, prefix) of a path `/<bucket>/<prefix>`, as Dewy v2 reads it. InvalidURL."""
    name, _, rest = path.removeprefix("/").partition("/")
    return url.require("bucket", name, form), prefix_of(rest)


def prefix_of(path: str) -> str:
    """A prefix as Dewy v2 reads it: without one leading slash, with exactly one at the end unless it is empty."""
    prefix = path.removeprefix("/")
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def open_objects(
    url: StoreURL, bucket: Bucket, prefix: str, capabilities: Capabilities, opening: Opening
) -> ObjectStore:
    """The store, after the checks that `opening` asks for. InvalidURL; StoreUnavailable."""

    def store(can: Capabilities) -> ObjectStore:
        return ObjectStore(bucket, url=url.redacted, prefix=prefix, capabilities=can, limits=opening.limits)

    opened = store(capabilities)
    if not opening.check:
        return opened
    try:
        faults = wait_for(_examine(opened, bucket, prefix, opening))
    except Misused as misused:
        bucket.close()
        raise InvalidURL(f"{url.redacted}: {misused}") from misused
    except BaseException:
        bucket.close()
        raise
    if not faults:
        return opened
    log.warning(
        "%s: this service does not honour the conditions of writes (it %s); it is used without conditional writes",
        url.redacted,
        "; it ".join(faults),
    )
    return store(replace(capabilities, conditional_write=False))


async def _examine(store: ObjectStore, bucket: Bucket, prefix: str, opening: Opening) -> list[str]:
    await check_access(store, bucket, prefix)
    await bucket.refuse_old_client()
    if opening.anonymous or not opening.probe:
        return []
    if opening.foreign:
        return await find_faults(store, bucket, prefix)
    await check_writing(store, bucket, prefix)
    return []
