"""What `kvcache conformance` does: one examination of the store of one URL, from opening to report."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from kvcache.conformance.contract import contract
from kvcache.conformance.processes import linearizable_across_processes
from kvcache.conformance.relay import relayed, through
from kvcache.conformance.report import Report, versions
from kvcache.conformance.run import TIME_LIMIT, Finding, examine, most_requests, unprobed
from kvcache.redaction import redact
from kvcache.url import open_store

ATTEMPTS: Final = 5
"""How often a check is begun behind faults, where they keep it from being decided."""


class Examination:
    """The checks for the store of `url`, which is opened with all that it claims (see `run.unprobed`).

    `seed`: None for one by chance. `through_faults`: by way of a relay that loses requests and replies, see
    `kvcache.conformance.relay`. InvalidURL; StoreUnavailable.
    """

    def __init__(self, url: str, seed: int | None = None, *, through_faults: bool = False) -> None:
        self.url = redact(url)
        self.seed = secrets.randbelow(2**32) if seed is None else seed
        self.attempts = ATTEMPTS if through_faults else 1
        with ExitStack() as opening:
            self._relay = opening.enter_context(relayed(url, self.seed)) if through_faults else None
            url = unprobed(url if self._relay is None else through(url, self._relay.port))
            self.store = opening.enter_context(open_store(url))
            self._open = opening.pop_all()
        self.checks = contract(self.seed, faults=through_faults)
        if self.store.capabilities.scope != "process":
            self.checks += (linearizable_across_processes(url, self.seed, faults=through_faults),)

    def announcement(self, time_limit: float = TIME_LIMIT) -> str:
        """What it is going to cost, for people, before it begins."""
        return (
            f"{self.url}: {len(self.checks)} promises{' behind faults' if self._relay else ''}, at most"
            f" {most_requests(self.checks, self.attempts):,} requests and {time_limit:g} s, on keys under"
            " kvcache-contract/ that are removed again"
        )

    def run(self, tell: Callable[[Finding], object] = lambda finding: None, time_limit: float = TIME_LIMIT) -> Report:
        """Examines the store, and tells each finding as soon as it is there."""
        began, started = datetime.now(UTC), time.monotonic()
        if self._relay is not None:
            self._relay.storm()
        findings = examine(self.store, self.checks, tell=tell, time_limit=time_limit, attempts=self.attempts)
        return Report(
            url=self.url,
            began=began.isoformat(timespec="seconds"),
            seed=self.seed,
            most_requests=most_requests(self.checks, self.attempts),
            seconds=time.monotonic() - started,
            capabilities=self.store.capabilities,
            versions=versions(),
            findings=findings,
            lost=None if self._relay is None else dict(self._relay.lost),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
