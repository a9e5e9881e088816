"""Records what clients of one key did and saw: what `linearizability` judges."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvcache.conformance.linearizability import Held, Kind, Operation, TooHard, as_text, order_of, smallest_failure
from kvcache.errors import Conflict, NotFound, StoreUnavailable, Throttled
from kvcache.kvs import ABSENT, Match, Store, Version

_CONDITIONAL: Final[dict[Kind, int]] = {"read": 7, "write": 2, "write_if": 9, "delete": 2}
_PLAIN: Final[dict[Kind, int]] = {"read": 9, "write": 7, "delete": 4}
_RESENT: Final[dict[Kind, int]] = {"read": 8, "write_if": 12}
"""Behind faults: a client sends what had no answer again, and what bears no condition can then take effect twice."""
_LONGEST_PAUSE: Final = 2.0


def script(seed: object, length: int, *, conditional: bool, faults: bool = False) -> list[Kind]:
    """What one client does: the same seed, the same kinds in the same order. `faults`: requests may be sent twice."""
    weights = _RESENT if faults else _CONDITIONAL if conditional else _PLAIN
    return random.Random(f"{seed}").choices(list(weights), list(weights.values()), k=length)


@dataclass
class Client:
    """One client of one key. It writes values that nobody else writes, so each value stands for one write.

    `write_if` names the version that this client saw last, whether by a read or by a write of its own.
    """

    store: Store
    key: str
    who: str
    clock: Callable[[], float] = time.monotonic
    operations: list[Operation] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    """(value, token of its version), as the store told them."""
    _seen: tuple[Held, Match] = (None, ABSENT)

    def follow(self, kinds: Iterable[Kind]) -> None:
        """Does these operations, one after the other."""
        for kind in kinds:
            self._do(kind)

    def _do(self, kind: Kind) -> None:
        expected, match = self._seen
        value = f"{self.who}#{len(self.operations) + 1}" if kind in ("write", "write_if") else None
        called = self.clock()
        outcome = "ok"
        try:
            if kind == "read":
                value = self._read()
            elif kind == "delete":
                self.store.delete(self.key)
                self._seen = (None, ABSENT)
            elif kind == "write":
                self._saw(str(value), self.store.write(self.key, str(value).encode()))
            else:
                self._saw(str(value), self.store.write_if(self.key, str(value).encode(), match))
        except Conflict:
            outcome = "conflict"
            self._seen = (expected, match)
        except Throttled as error:  # certainly not carried out: as if it had not been called
            time.sleep(min(error.retry_after or 0.2, _LONGEST_PAUSE))
            return
        except StoreUnavailable:
            if kind == "read":
                return  # it saw nothing
            outcome = "unknown"
        returned = math.inf if outcome == "unknown" else self.clock()
        expects = expected if kind == "write_if" else None
        self.operations.append(Operation(self.who, kind, called, returned, outcome, value, expects))  # type: ignore[arg-type]  # str of three

    def _read(self) -> Held:
        try:
            stored = self.store.read_versioned(self.key)
        except NotFound:
            self._seen = (None, ABSENT)
            return None
        value = stored.data.decode(errors="backslashreplace")
        self._saw(value, stored.version)
        return value

    def _saw(self, value: str, version: Version) -> None:
        self._seen = (value, version)
        self.versions.append((value, version.token))


def judge(operations: Sequence[Operation], versions: Iterable[tuple[str, str]]) -> str:
    """The evidence that the history cannot have come about one operation at a time; empty if it can.

    TooHard: it could not be told.
    """
    conditional = any(operation.kind == "write_if" for operation in operations)
    values: dict[str, str] = {}
    tokens: dict[str, str] = {}
    for value, token in versions:
        # Without these, the checker could not take a version for the one value that it stands for. A second version
        # of a value, which will never match again, does no harm where there are no conditions to match.
        if values.setdefault(token, value) != value:
            return f"version {token!r} stood for {values[token]!r} and for {value!r}"
        if conditional and tokens.setdefault(value, token) != token:
            return f"value {value!r}, written once, was seen under the versions {tokens[value]!r} and {token!r}"
    if order_of(operations) is not None:
        return ""
    part = smallest_failure(operations)
    return (
        f"{len(part)} of {len(operations)} operations on one key that cannot have happened in any order between their"
        f" calls and returns (?: whether and when it did does not matter):\n{as_text(part)}"
    )


__all__ = ["Client", "TooHard", "judge", "script"]
