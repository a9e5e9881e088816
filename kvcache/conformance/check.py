"""What a check is, and the words that checks are written in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, ParamSpec, TypeVar

from kvcache.errors import NotFound, StoreUnavailable, Throttled
from kvcache.kvs import Store
from kvcache.redaction import scrub

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=Exception)

Verdict = Literal["kept", "not offered"]
KEPT: Final = "kept"
NOT_OFFERED: Final = "not offered"
Need = Literal["conditional_write", "unique_versions", "store_time", "watch", "atomic_replace"]

_PATIENCE: Final = 30.0
"""Seconds for which a store may ask for pauses before that is an error."""


class Broken(AssertionError):
    """A promise that the store does not keep. The message is the evidence: what was done, what came, what was due."""


@dataclass(frozen=True)  # no slots: `collect` reads the default of `at_most` from the class
class Check:
    """One promise and how to put it to the test."""

    name: str
    promise: str
    """In one sentence, for people."""
    needs: tuple[Need, ...]
    """The capabilities without which the promise is not made."""
    run: Callable[[Store], None]
    """Raises Broken. Works under keys of its own and removes them."""
    at_most: int = 100
    """Requests that it may cost; see `kvcache.conformance.meter` for what counts as one."""

    def verify(self, store: Store) -> Verdict:
        """KEPT; or, where the store does not claim a capability, NOT_OFFERED after it was seen to refuse.

        Broken: the promise is not kept. StoreUnavailable: the store does not answer, so there is nothing to say of it.
        """
        missing = [need for need in self.needs if not getattr(store.capabilities, need)]
        try:
            if not missing:
                self.run(store)
            for need in missing:
                if need in _refusals:
                    _refusals[need](store)
        except (Broken, StoreUnavailable):
            raise
        except Exception as error:  # every other error is one that should not have come, whoever raised it
            raise Broken(f"unexpected {type(error).__name__}: {scrub(str(error))}") from error
        return NOT_OFFERED if missing else KEPT


_refusals: dict[Need, Callable[[Store], None]] = {}


def refusal(need: Need) -> Callable[[Callable[[Store], None]], Callable[[Store], None]]:
    """Says how a store that does not claim `need` has to behave."""

    def register(run: Callable[[Store], None]) -> Callable[[Store], None]:
        _refusals[need] = run
        return run

    return register


def collect(*modules: object) -> tuple[Check, ...]:
    """The checks of modules: their functions `check_*`, in the order in which they are written.

    The first paragraph of the docstring is the promise; `needs` is set by `only_with`, `at_most` by `costs`.
    """
    return tuple(
        Check(
            name=name.removeprefix("check_"),
            promise=" ".join((function.__doc__ or "").split("\n\n")[0].split()),
            needs=getattr(function, "needs", ()),
            run=function,
            at_most=getattr(function, "at_most", Check.at_most),
        )
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("check_")
    )


def only_with(*needs: Need) -> Callable[[Callable[[Store], None]], Callable[[Store], None]]:
    """Marks a check whose promise is made only by stores with these capabilities."""

    def mark(run: Callable[[Store], None]) -> Callable[[Store], None]:
        run.needs = needs  # type: ignore[attr-defined]  # read by `collect`
        return run

    return mark


def costs(at_most: int) -> Callable[[Callable[[Store], None]], Callable[[Store], None]]:
    """Marks a check that may cost more requests than most do."""

    def mark(run: Callable[[Store], None]) -> Callable[[Store], None]:
        run.at_most = at_most  # type: ignore[attr-defined]  # read by `collect`
        return run

    return mark


# -- words ------------------------------------------------------------------------------------------------------------


@contextmanager
def scratch(store: Store) -> Iterator[Callable[[str], str]]:
    """Names keys that nobody else uses, and removes whatever is under them in the end."""
    prefix = f"kvcache-contract/{secrets.token_hex(6)}/"
    try:
        yield lambda name: prefix + name
    finally:
        for key in list(store.list(prefix)):
            store.delete(key)


def expect(fact: bool, evidence: str) -> None:
    """Broken unless `fact`."""
    if not fact:
        raise Broken(evidence)


def expect_value(store: Store, key: str, due: bytes, after: str) -> None:
    """Broken unless `key` holds `due`."""
    found = store.read(key)
    expect(found == due, f"after {after}, {key!r} holds {brief(found)}, due was {brief(due)}")


def expect_absent(store: Store, key: str, after: str) -> None:
    """Broken unless nothing is stored under `key`."""
    expect_error(NotFound, f"reading {key!r} after {after}", store.read, key)


def expect_error(kind: type[E], doing: str, call: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> E:
    """The error of the call; Broken unless it is of `kind`, or says that the store does not answer."""
    try:
        result = call(*arguments, **named)
    except kind as error:
        return error
    except StoreUnavailable:
        raise
    except Exception as error:  # whatever else it is, it is the evidence
        said = scrub(str(error))
        raise Broken(f"{doing} raised {type(error).__name__}: {said}; due was {kind.__name__}") from error
    raise Broken(f"{doing} gave {brief(result)}; due was {kind.__name__}")


def patiently(write: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Does a write, waiting as long as the store asks for a pause (GCS: one write a second to a key)."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return write(*arguments, **named)
        except Throttled as error:
            if time.monotonic() > give_up:
                raise StoreUnavailable(f"still throttled after {_PATIENCE:g} s") from error
            time.sleep(error.retry_after or 1.0)


def brief(value: object) -> str:
    """A value for evidence, cut to a readable length."""
    text = repr(value[:40]) if isinstance(value, bytes) else repr(value)[:80]
    return f"{text}... ({len(value)} bytes)" if isinstance(value, bytes) and len(value) > 40 else text
