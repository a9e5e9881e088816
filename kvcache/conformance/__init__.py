"""Is a store fit? Every promise of the port as a check that anyone can run against any store.

for check in kvcache.conformance.CONTRACT:
    verdict = check.verify(store)      # KEPT or NOT_OFFERED; raises Broken with the evidence

What a store says that it cannot do is not skipped: the check then asserts that it is refused.
"""

from kvcache.conformance.check import KEPT, NOT_OFFERED, Broken, Check, Verdict
from kvcache.conformance.contract import CONTRACT

__all__ = ["CONTRACT", "KEPT", "NOT_OFFERED", "Broken", "Check", "Verdict"]
