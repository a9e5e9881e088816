"""`s3://` and `gs://`: releases in a bucket, `<prefix>/<version>/<artifact>`, by kvcache's own stores.

s3://<region>/<bucket>/<prefix>?endpoint=<url>      gs://<bucket>/<prefix>
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlencode

from dewy.errors import ConfigError
from dewy.registry.base import Now, Progress
from dewy.registry.checksums import Mode
from dewy.registry.layout import LayoutRegistry
from dewy.registry.platform import Platform
from dewy.registry.tree import Tree
from dewy.registry.url import RegistryURL
from kvcache import InvalidURL, KVCacheError, Stat, StoreUnavailable, open_store

FORMS: Final = {"s3": "s3://<region>/<bucket>/<prefix>", "gs": "gs://<bucket>/<prefix>"}
STORE_PARAMETERS: Final = {
    "s3": ("endpoint", "profile", "ca", "anon", "timeout"),
    "gs": ("endpoint", "anon", "timeout"),
}
"""What is handed on to the store. Dewy v2 also takes `region`, which repeats what the place says."""


def open_bucket(
    url: RegistryURL, platform: Platform, *, now: Now, hostname: str, max_artifact: int, checksums: Mode = "auto"
) -> LayoutRegistry:
    """The registry of a bucket. A bucket that does not exist, or may not be read, is a ConfigError; one that cannot be
    reached just now is not: a node whose registry is down runs what it has.
    """
    accepted = STORE_PARAMETERS[url.scheme]
    url.reject_unknown((*accepted, "region", "report"))
    place = url.place.rstrip("/")
    # Nothing is written to it conditionally, so there is nothing to probe.
    options = {"probe": "off", **{name: url.params[name] for name in accepted if name in url.params}}

    def connect() -> Tree:
        return open_store(f"{url.scheme}://{place}?{urlencode(options)}")

    endpoint = url.params.get("endpoint", "") if url.scheme == "s3" else ""
    return LayoutRegistry(
        url,
        _first_try(url, connect),
        platform,
        prefix=f"{url.scheme}://{place}/",
        suffix=f"?endpoint={endpoint}" if endpoint else "",
        reports=url.flag("report", not url.flag("anon")),
        now=now,
        hostname=hostname,
        max_artifact=max_artifact,
        checksums=checksums,
    )


def _first_try(url: RegistryURL, connect: Callable[[], Tree]) -> Tree:
    bucket = Later(connect)
    try:
        bucket.store()
    except StoreUnavailable:
        return bucket
    except InvalidURL as error:
        raise ConfigError(f"--registry: {error}") from error
    except KVCacheError as error:
        raise ConfigError(f"--registry: {url.describe}: {error}: expected {FORMS[url.scheme]}") from error
    return bucket


class Later:
    """A store that is opened when it is first used, and again until it could be."""

    def __init__(self, connect: Callable[[], Tree]) -> None:
        self._connect = connect
        self._store: Tree | None = None
        self._tried = False
        self._lock = threading.Lock()  # so that it is opened once

    def store(self) -> Tree:
        """StoreUnavailable: also where the bucket has gone since."""
        with self._lock:
            if self._store is None:
                try:
                    self._store = self._connect()
                except InvalidURL as error:
                    if self._tried:
                        raise StoreUnavailable(str(error)) from error
                    raise
                finally:
                    self._tried = True
            return self._store

    def list(self, prefix: str = "") -> Iterator[str]:
        return self.store().list(prefix)

    def stat(self, key: str) -> Stat:
        return self.store().stat(key)

    def read(self, key: str) -> bytes:
        return self.store().read(key)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        return self.store().download(key, path, progress)

    def write(self, key: str, data: bytes) -> object:
        return self.store().write(key, data)

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
