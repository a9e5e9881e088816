"""What `kvcache conformance` does: one examination of the store of one URL, from opening to report."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from kvcache.conformance.contract import contract
from kvcache.conformance.processes import linearizable_across_processes
from kvcache.conformance.report import Report, versions
from kvcache.conformance.run import TIME_LIMIT, Finding, examine, most_requests, unprobed
from kvcache.redaction import redact
from kvcache.url import open_store


class Examination:
    """The checks for the store of `url`, which is opened with all that it claims (see `run.unprobed`).

    `seed`: None for one by chance. InvalidURL; StoreUnavailable.
    """

    def __init__(self, url: str, seed: int | None = None) -> None:
        self.url = redact(url)
        self.seed = secrets.randbelow(2**32) if seed is None else seed
        self.store = open_store(unprobed(url))
        self.checks = contract(self.seed)
        if self.store.capabilities.scope != "process":
            self.checks += (linearizable_across_processes(unprobed(url), self.seed),)

    def announcement(self, time_limit: float = TIME_LIMIT) -> str:
        """What it is going to cost, for people, before it begins."""
        return (
            f"{self.url}: {len(self.checks)} promises, at most {most_requests(self.checks):,} requests and"
            f" {time_limit:g} s, on keys under kvcache-contract/ that are removed again"
        )

    def run(self, tell: Callable[[Finding], object] = lambda finding: None, time_limit: float = TIME_LIMIT) -> Report:
        """Examines the store, and tells each finding as soon as it is there."""
        began, started = datetime.now(UTC), time.monotonic()
        findings = examine(self.store, self.checks, tell=tell, time_limit=time_limit)
        return Report(
            url=self.url,
            began=began.isoformat(timespec="seconds"),
            seed=self.seed,
            most_requests=most_requests(self.checks),
            seconds=time.monotonic() - started,
            capabilities=self.store.capabilities,
            versions=versions(),
            findings=findings,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
