"""What became of a conditional write whose answer cannot be taken at its word. Pure: no clock, no I/O.

Every write carries a random *write id* in the object's metadata. Whoever was refused, or got no answer, reads the
object's metadata back and compares:

    stored write id is ours        it landed, whatever we were told           -> LANDED
    condition still holds          it has not landed: the same write, with
                                   the same id, can be sent again             -> SEND_AGAIN
    somebody else's write          we lost, if every copy that was sent
                                   came back refused                          -> LOST
                                   else ours may have landed and have been
                                   overwritten since: nobody can tell         -> UNKNOWABLE

Sending again is safe although a first copy may still be on its way: the condition lets one of the copies in, and
both carry the same id.
"""

from __future__ import annotations

import enum

from kvcache.backends.bucket import Head
from kvcache.kvs import ABSENT, ANYWAY, Condition


class Verdict(enum.Enum):
    LANDED = "landed"
    SEND_AGAIN = "send again"
    LOST = "lost"
    UNKNOWABLE = "unknowable"


def judge(write_id: str, condition: Condition, found: Head | None, *, all_refused: bool) -> Verdict:
    """The verdict on a write, given what was `found` under the key after it (None: nothing).

    `all_refused`: every copy that was sent, the client's silent re-sends included, was answered with a refusal.
    """
    if found is not None and found.write_id == write_id:
        return Verdict.LANDED
    if holds(condition, found):
        return Verdict.SEND_AGAIN
    return Verdict.LOST if all_refused else Verdict.UNKNOWABLE


def holds(condition: Condition, found: Head | None) -> bool:
    """Whether a write under this condition could land on what was found."""
    if condition is ANYWAY:
        return True
    if condition is ABSENT:
        return found is None
    return found is not None and found.version == condition
