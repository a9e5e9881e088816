"""Is a store fit? Every promise of the port as a check that anyone can run against any store.

for check in kvcache.conformance.CONTRACT:
    verdict = check.verify(store)      # KEPT or NOT_OFFERED; raises Broken with the evidence

What a store says that it cannot do is not skipped: the check then asserts that it is refused. `contract(seed)` gives
the same checks with another seed for the recorded races, `examine` runs them within bounds and tells what it found.
The command is `kvcache conformance URL`, for pytest it is `pytest --kvcache-store URL`.
"""

from kvcache.conformance.check import KEPT, NOT_OFFERED, Broken, Check, Verdict
from kvcache.conformance.contract import CONTRACT, contract
from kvcache.conformance.run import Finding, examine, most_requests

__all__ = [
    "CONTRACT",
    "KEPT",
    "NOT_OFFERED",
    "Broken",
    "Check",
    "Finding",
    "Verdict",
    "contract",
    "examine",
    "most_requests",
]
