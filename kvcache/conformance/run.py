"""Puts the whole contract to a store, with bounds on what that may cost, and leaves the store as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from kvcache.conformance.check import Broken, Check
from kvcache.conformance.meter import Metered
from kvcache.errors import KVCacheError, StoreUnavailable
from kvcache.kvs import Store
from kvcache.redaction import scrub
from kvcache.url import open_store, parse_store_url

Outcome = Literal["kept", "broken", "not offered", "undecided"]
TIME_LIMIT: Final = 300.0
"""Seconds for all checks together."""
_LINE: Final = 400
"""Characters of a line of evidence: some keys are long."""
_PROBED: Final = frozenset({"s3", "gs"})
"""Schemes whose stores are asked at opening whether they honour conditions, and used without them if they do not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one promise."""

    check: Check
    outcome: Outcome
    evidence: str
    """For `broken` what was done, what came, what was due; for `undecided` why nothing can be said; else empty."""
    requests: int
    seconds: float


def open_unprobed(url: str) -> Store:
    """Opens a store with all that it claims, so that the claims can be examined.

    `open_store` asks a service that is not the vendor's own whether it honours conditional writes, and does not claim
    them where it does not; that would hide the evidence. InvalidURL; StoreUnavailable.
    """
    return open_store(unprobed(url))


def unprobed(url: str) -> str:
    """The URL with `probe=off`, where its store knows that and the URL does not say otherwise."""
    parsed = parse_store_url(url)
    if parsed.scheme not in _PROBED or "probe" in parsed.params:
        return url
    return f"{url}{'&' if '?' in url else '?'}probe=off"


def most_requests(checks: Iterable[Check], attempts: int = 1) -> int:
    """How many requests these checks cost together at the most, their removal of keys included."""
    return sum((check.at_most + 1) * attempts for check in checks)  # and one to ask whether the store still answers


def examine(
    store: Store,
    checks: Sequence[Check],
    *,
    tell: Callable[[Finding], object] = lambda finding: None,
    time_limit: float = TIME_LIMIT,
    attempts: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Finding, ...]:
    """The findings of the checks, each told as soon as it is there. Never raises for what the store does.

    No check goes on after its `at_most` requests or after `time_limit` seconds of them all (a request that is under
    way is waited for); what is left is undecided. A store that has stopped answering is asked no more. Keys that a
    check could not remove are removed.

    `attempts`: a check that was not decided, since a request had no answer, is begun again so often in all, and a store
    has stopped answering only if it does not answer as often in a row: for a store behind faults.
    """
    metered = Metered(store, clock)
    deadline = clock() + time_limit
    findings = []
    silent = False
    for check in checks:
        if silent:
            finding = Finding(check, "undecided", "not asked: the store had stopped answering", 0, 0.0)
        else:
            finding = _examined(metered, check, deadline, attempts, clock)
            undecided = finding.outcome == "undecided" and not metered.exhausted
            silent = undecided and all(_is_silent(store) for _ in range(attempts))
        findings.append(finding)
        tell(finding)
    return tuple(findings)


def _examined(store: Metered, check: Check, deadline: float, attempts: int, clock: Callable[[], float]) -> Finding:
    finding = _examine(store, check, deadline, clock)
    for _ in range(attempts - 1):
        if finding.outcome != "undecided" or store.exhausted:
            break
        again = _examine(store, check, deadline, clock)
        requests, seconds = finding.requests + again.requests, finding.seconds + again.seconds
        finding = replace(again, requests=requests, seconds=seconds)
    return finding


def _examine(store: Metered, check: Check, deadline: float, clock: Callable[[], float]) -> Finding:
    began = clock()
    store.allow(check.at_most, deadline)
    finding = Finding(check, "undecided", "", 0, 0.0)
    try:
        finding = replace(finding, outcome=check.verify(store))
    except Broken as broken:
        finding = replace(finding, outcome="broken", evidence=str(broken))
    except StoreUnavailable as error:
        finding = replace(finding, evidence=f"{type(error).__name__}: {scrub(str(error))}")
    if store.exhausted:  # the check may have taken that for the store's own doing
        finding = replace(finding, outcome="undecided", evidence=store.exhausted)
    if finding.outcome in ("broken", "undecided"):
        _remove(store)
    evidence = "\n".join(line[:_LINE] for line in finding.evidence.replace(f"{store.url}: ", "").splitlines())
    return replace(finding, evidence=evidence, requests=store.requests, seconds=clock() - began)


def _is_silent(store: Store) -> bool:
    """Whether the store does not answer at all, rather than to one request that it cannot stand."""
    try:
        store.stat("kvcache-contract/never-written")
    except StoreUnavailable:
        return True
    except Exception:  # whatever it said, it said something
        return False
    return False


def _remove(store: Metered) -> None:
    """Removes what the check wrote, past the meter: it may have been stopped before it could."""
    for key in sorted(store.written):
        store.charge(1)
        try:
            store.inner.delete(key)
        except StoreUnavailable:
            return  # nor will it answer for the next one, and each can take its whole time-out
        except KVCacheError:
            continue  # it is broken: it was tried
