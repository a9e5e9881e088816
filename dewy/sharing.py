"""What a node shares with its fleet through the store of `--cache`, and how it gets on while that does not answer.

A store that is down when dewy starts is no reason not to deploy: the node goes on by itself, tries again at every
tick (after a pause), and joins the fleet when the store is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from dewy.answers import Answers
from dewy.artifact import DOWNLOAD_TIMEOUT, RECORD_TTL, Artifacts
from dewy.config import Config
from dewy.log import Log, seconds
from dewy.minisign import Verifier
from dewy.notify import Notices
from dewy.proofs import Proofs
from dewy.registry import Registry, cache_key, this_platform
from kvcache import InvalidURL, SharedCache, Staging, Store, StoreUnavailable, open_store
from kvcache import events as ev

RETRY: Final = 30.0
"""Seconds between two tries to open a store that did not answer."""
REGISTRY_TIMEOUT: Final = 60.0
"""Seconds that one look at the registry may take, with all its pages."""
ANSWERS: Final = Path(".dewy", "answers")
"""In the cache directory: the last shared answers, for a start while the store is down."""


Observe: TypeAlias = Callable[[Literal["answers", "artifacts"], ev.Event], None]


class Sharing:
    """`answers` and `artifacts`, over the shared store where it answers, else of this node alone.

    `directory` is the cache directory; `local`: it is the store itself. `observe` is told what the shared caches tell,
    in their threads. Not for several threads at a time.
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
        observe: Observe = lambda cache, event: None,
    ) -> None:
        self._config = config
        self._registry = registry
        self._directory = directory
        self._local = local
        self._prefix = prefix
        self._node = node
        self._log = log
        self._notices = notices
        self._observe = observe
        self._store: Store | None = None
        self._retry_at = 0.0
        self._record: str | None = None
        self._abandoned = False
        self.staging = Staging(directory, config.max_size)
        self.answers: Answers
        self.artifacts: Artifacts

    @property
    def store(self) -> Store | None:
        """The store, or None while it does not answer. From any thread."""
        return self._store

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
        if self._store is not None or first or self._abandoned:
            self._build(self._store)
            self._abandoned = False

    @property
    def record(self) -> str | None:
        """The key under which the fleet shares the registry's answer; None: it does not."""
        return self._record

    def abandon(self) -> None:
        """Leaves all that is open to a call that does not come back; `connect` opens it anew."""
        self._store = None
        self._retry_at = float("-inf")
        self._abandoned = True

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
        record = cache_key(self._registry.scope, platform.os, platform.arch)
        self._record = record if shared is not None else None
        self.answers = Answers(
            self._registry,
            record,
            open_cache=lambda heed: self._answer_cache(shared, heed),
            log=self._log,
            notices=self._notices,
            node=self._node,
            shared=shared is not None,
        )
        fleet = store if store is not None and store.capabilities.scope != "process" else None
        shares: dict[str, Any] = {
            "objects": None if self._local else fleet,
            "records": self._artifact_records(fleet) if fleet is not None and conditional else None,
            "log": self._log,
        }
        keys = self._config.signature_key
        proofs = Proofs(self._registry, Verifier(keys), **shares) if keys else None
        self.artifacts = Artifacts(self._registry, self.staging, prefix=self._prefix, proofs=proofs, **shares)

    def _answer_cache(self, shared: Store | None, heed: Callable[[ev.Event], None]) -> SharedCache:
        def observe(event: ev.Event) -> None:
            heed(event)
            self._observe("answers", event)

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
        return SharedCache(
            store, ttl=RECORD_TTL, load_timeout=DOWNLOAD_TIMEOUT, on_event=partial(self._observe, "artifacts")
        )
