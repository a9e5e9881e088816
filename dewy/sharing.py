"""What a node shares with its fleet through the store of `--cache`, and how it gets on while that does not answer.

A store that is down when dewy starts is no reason not to deploy: the node goes on by itself, tries again at every
tick (after a pause), and joins the fleet when the store is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dewy.answers import Answers
from dewy.artifact import DOWNLOAD_TIMEOUT, RECORD_TTL, Artifacts
from dewy.config import Config
from dewy.log import Log, seconds
from dewy.notify import Notices
from dewy.registry import Registry, cache_key, this_platform
from kvcache import InvalidURL, SharedCache, Staging, Store, StoreUnavailable, open_store
from kvcache import events as ev

RETRY: Final = 30.0
"""Seconds between two tries to open a store that did not answer."""
REGISTRY_TIMEOUT: Final = 60.0
"""Seconds that one look at the registry may take, with all its pages."""
ANSWERS: Final = Path(".dewy", "answers")
"""In the cache directory: the last shared answers, for a start while the store is down."""


class Sharing:
    """`answers` and `artifacts`, over the shared store where it answers, else of this node alone.

    `directory` is the cache directory; `local`: it is the store itself. Not for several threads at a time.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        directory: Path,
        local: bool,
        prefix: str,
        node: str,
        log: Log,
        notices: Notices,
    ) -> None:
        self._config = config
        self._registry = registry
        self._directory = directory
        self._local = local
        self._prefix = prefix
        self._node = node
        self._log = log
        self._notices = notices
        self._store: Store | None = None
        self._retry_at = 0.0
        self.staging = Staging(directory, config.max_size)
        self.answers: Answers
        self.artifacts: Artifacts

    def connect(self) -> None:
        """Opens the store unless it is open, or could not be opened a moment ago.

        InvalidURL, the first time: it can never be opened. Later that is a failure like others, which may pass: the
        store's service knows of buckets and rights, and not all of its answers are final.
        """
        if self._store is not None or time.monotonic() < self._retry_at:
            return
        first = self._retry_at == 0.0
        try:
            self._store = open_store(self._config.cache, default_dir=self._directory)
        except (StoreUnavailable, InvalidURL) as error:
            if first and isinstance(error, InvalidURL):
                raise
            self._retry_at = time.monotonic() + RETRY
            self._log.warn("cache store unavailable; going on without it", error=error)
        if self._store is not None or first:
            self._build(self._store)

    def close(self) -> None:
        """Gives back connections."""
        if self._store is not None:
            self._store.close()

    def _build(self, store: Store | None) -> None:
        conditional = store is not None and store.capabilities.conditional_write
        ttl = self._config.registry_ttl
        shared = store if ttl is not None and conditional else None
        if ttl is not None and shared is not None:
            self._log.info("Registry result cache enabled", ttl=seconds(ttl))
        elif ttl is not None and store is not None:
            message = "registry-ttl set but cache backend does not support atomic writes; ignoring"
            self._log.warn(message, ttl=seconds(ttl))
        platform = this_platform()
        self.answers = Answers(
            self._registry,
            cache_key(self._registry.scope, platform.os, platform.arch),
            open_cache=lambda observe: self._answer_cache(shared, observe),
            log=self._log,
            notices=self._notices,
            node=self._node,
            shared=shared is not None,
        )
        fleet = store if store is not None and store.capabilities.scope != "process" else None
        self.artifacts = Artifacts(
            self._registry,
            self.staging,
            objects=None if self._local else fleet,
            records=self._artifact_records(fleet) if fleet is not None and conditional else None,
            prefix=self._prefix,
            log=self._log,
        )

    def _answer_cache(self, shared: Store | None, observe: Callable[[ev.Event], None]) -> SharedCache:
        if shared is not None and self._config.registry_ttl is not None:
            return SharedCache(
                shared,
                ttl=self._config.registry_ttl,
                load_timeout=REGISTRY_TIMEOUT,
                local_copy=self._directory / ANSWERS,
                on_event=observe,
            )
        # Answers age well within an interval, so that every tick asks, and back-off and revalidation work as ever.
        private = open_store(f"memory://dewy-{id(self):x}")
        return SharedCache(private, ttl=self._config.interval / 2, load_timeout=REGISTRY_TIMEOUT, on_event=observe)

    def _artifact_records(self, store: Store) -> SharedCache:
        return SharedCache(store, ttl=RECORD_TTL, load_timeout=DOWNLOAD_TIMEOUT)
