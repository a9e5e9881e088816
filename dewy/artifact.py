"""One download, verified: one node fetches an artifact from the registry, the others take it from the shared store.

What the fleet knows of an artifact is one small record of the same protocol that shares registry answers:

    artifact-cache/<16 hex>.json      {"key": <object>, "size": <bytes>, "sha256": <hex>}
    <tag>--<name>                     the object, where Dewy v2 puts it and looks for it
    apps/<16 hex>/<tag>--<name>       the object, where another application, or other bytes, were there first

Who makes the record has fetched and measured the artifact; whoever follows compares every byte with it. So an object
that is torn, foreign or stale is never deployed: it is thrown away and fetched from the registry once more.
An object without a record (Dewy v2 writes none) is used only if the registry's own digest proves it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

from dewy.cachedir import short_hash
from dewy.errors import Untrusted
from dewy.log import Log
from dewy.proofs import Proofs
from dewy.registry import Announced, Registry, source_scope
from dewy.registry.landing import BeyondLimit, WrongBytes
from dewy.registry.signatures import Proof
from kvcache import (
    NOT_MODIFIED,
    BadCopy,
    InvalidKey,
    LoadContext,
    Loaded,
    NotFound,
    NotModified,
    SharedCache,
    Staging,
    Store,
    StoreUnavailable,
    TooLarge,
    UpstreamUnavailable,
)

Source: TypeAlias = Literal["local copy", "store", "registry"]

RECORD_TTL: Final = 300.0
"""Seconds after which the next node to need an artifact looks whether its object is still there."""
DOWNLOAD_TIMEOUT: Final = 1800.0
"""Seconds that one download may take; the leader renews its lease meanwhile."""
NOT_STORED: Final = ""
"""The object key of an artifact that the store cannot hold: every node fetches it for itself."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An artifact as somebody fetched and measured it: `key` of its object, `size` in bytes, `sha256` in hex."""

    key: str
    size: int
    sha256: str

    def to_value(self) -> dict[str, Any]:
        """As records carry it."""
        return {"key": self.key, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_value(cls, value: Any) -> Self | None:
        """None where `value` is not what `to_value` made."""
        match value:
            case {"key": str(key), "size": int(size), "sha256": str(sha256)}:
                return cls(key, size, sha256)
            case _:
                return None

    def agrees_with(self, announced: Announced) -> bool:
        """Whether these are the bytes that the registry announces, as far as it says."""
        if announced.digest is not None:
            return self.sha256 == _hex(announced.digest)
        return announced.size is None or self.size == announced.size


@dataclass(frozen=True, slots=True)
class Staged:
    """An artifact on this node, whole and checked. `name` is its name in the local copy."""

    path: Path
    name: str
    size: int
    sha256: str
    source: Source


class Artifacts:
    """Brings announced artifacts to this node.

    `objects`: the shared store, or None where its directory is the local copy itself. `records`: the fleet's records,
    or None where the store has no conditional writes; then every node looks for the object by itself. `prefix`: of
    names in the local copy, see `dewy.cachedir.Place`. `proofs`: artifacts have to be signed; None: they need not.
    """

    def __init__(
        self,
        registry: Registry,
        staging: Staging,
        *,
        objects: Store | None,
        records: SharedCache | None,
        prefix: str,
        log: Log,
        proofs: Proofs | None = None,
    ) -> None:
        self._registry = registry
        self._staging = staging
        self._objects = objects
        self._records = records
        self._prefix = prefix
        self._log = log
        self._proofs = proofs
        self._source = source_scope(registry.scope)
        # What this node brought in last, and under which record: by a lead, which has a thread of its own, or without.
        self._brought: tuple[str, Staged] | None = None

    def obtain(self, announced: Announced) -> Staged:
        """The artifact, whole and checked. KVCacheError, DewyError or OSError: not this time."""
        proof = self._proofs.expect(announced) if self._proofs is not None else None
        staged = self._stage(announced)
        if self._proofs is not None and proof is not None:
            staged = self._signed(self._proofs, proof, announced, staged)
        self._log.info("Cached artifact", cache_key=announced.key, source=staged.source)
        return staged

    def _stage(self, announced: Announced, refused: str | None = None) -> Staged:
        """`refused`: the digest of bytes that were found wrong although nothing of what is known spoke against them."""
        try:
            return self._proven_here(announced) or self._shared(announced, refused)
        except StoreUnavailable as error:
            self._log.warn("artifact store unavailable; downloading from the registry", error=error)
            staged = self._just_brought(announced)
            return staged if staged is not None and staged.sha256 != refused else self._from_registry(announced)

    def _signed(self, proofs: Proofs, proof: Proof, announced: Announced, staged: Staged) -> Staged:
        """`staged`, or where that was another's and is not what was signed, the registry's own. Untrusted."""
        try:
            proofs.check(announced, proof, staged.path, staged.sha256)
        except Untrusted as error:
            if staged.source == "registry" or announced.digest is not None:
                raise  # there are no other bytes to be had
            self._log.warn("cached artifact is not signed; fetching it again", cache_key=announced.key, error=error)
            staged = self._stage(announced, staged.sha256)
            proofs.check(announced, proof, staged.path, staged.sha256)
        return staged

    def forget(self, announced: Announced) -> None:
        """Throws the local copy away: it was no good, so the next try is not to meet it again."""
        self._staging.remove(self.name(announced.key))

    def name(self, key: str) -> str:
        """The name in the local copy of the artifact with this key."""
        return self._prefix + key

    def _shared(self, announced: Announced, refused: str | None) -> Staged:
        if self._records is not None:
            return self._through_record(self._records, announced, refused)
        if self._objects is not None:
            return self._through_note(self._objects, announced, refused)
        here = self._measured_here(announced)
        return here if here is not None and here.sha256 != refused else self._from_registry(announced)

    # -- with records: one node fetches --------------------------------------------------------------------------------

    def _through_record(self, records: SharedCache, announced: Announced, refused: str | None) -> Staged:
        key = self._record_key(announced)
        self._brought = None
        distrusted: Measured | None = None
        for _ in range(2):
            try:
                answer = records.get(key, partial(self._lead, announced, distrusted), timeout=DOWNLOAD_TIMEOUT + 60)
            except UpstreamUnavailable as error:
                # The store may have failed altogether, or only after the download: this node goes on by itself.
                if error.kind in ("store", StoreUnavailable.__name__):
                    raise StoreUnavailable(str(error)) from error
                raise
            measured = Measured.from_value(answer.value)
            staged = self._follow(announced, measured, refused) if measured is not None else None
            if staged is not None:
                return staged
            self._log.warn("cached artifact is bad; fetching it again", cache_key=announced.key)
            distrusted = measured
            records.invalidate(key)
        return self._from_registry(announced)

    def _lead(
        self, announced: Announced, distrusted: Measured | None, ctx: LoadContext
    ) -> Loaded[dict[str, Any]] | NotModified:
        """The load of a record: fetches for everybody. `distrusted`: what the record said, and was found wrong."""
        before = Measured.from_value(ctx.previous)
        if before is not None and before != distrusted and self._holds(announced, before):
            return NOT_MODIFIED
        staged = (
            self._proven_here(announced)
            or (None if distrusted else self._proven_object(announced))
            or self._from_registry(announced, ctx.deadline)
        )
        return Loaded(Measured(self._store(announced, staged), staged.size, staged.sha256).to_value())

    def _follow(self, announced: Announced, measured: Measured, refused: str | None) -> Staged | None:
        """What the record speaks of, from here or from the store; None where that is not to be had."""
        if not measured.agrees_with(announced) or measured.sha256 == refused:
            return None
        here = self._just_brought(announced) or self._here(announced, measured.sha256, measured.size)
        if here is not None:
            return here if here.sha256 == measured.sha256 else None
        if measured.key == NOT_STORED:
            staged = self._from_registry(announced)
            return staged if staged.sha256 == measured.sha256 else None
        return self._from_object(announced, measured)

    # -- without records -----------------------------------------------------------------------------------------------

    def _through_note(self, objects: Store, announced: Announced, refused: str | None) -> Staged:
        """As with a record, but nobody waits for anybody: who fetches leaves a note of what was measured."""
        note = self._record_key(announced)
        try:
            measured = Measured.from_value(json.loads(objects.read(note)))
        except (NotFound, ValueError):
            measured = None
        staged = self._follow(announced, measured, refused) if measured else self._proven_object(announced)
        if staged is None:
            staged = self._from_registry(announced)
            stored = Measured(self._store(announced, staged), staged.size, staged.sha256)
            objects.write(note, json.dumps(stored.to_value()).encode())
        return staged

    # -- where an artifact can come from -------------------------------------------------------------------------------

    def _proven_here(self, announced: Announced) -> Staged | None:
        """The local copy, where the registry's digest proves it."""
        return self._here(announced, _hex(announced.digest), announced.size) if announced.digest else None

    def _measured_here(self, announced: Announced) -> Staged | None:
        """The local copy, where this node fetched it from this registry before, and it has not changed since."""
        sha256 = self._staging.sha256_of(self.name(announced.key))
        return self._here(announced, sha256, announced.size) if sha256 else None

    def _just_brought(self, announced: Announced) -> Staged | None:
        """What this node brought in last, if it is this and still there."""
        if self._brought is None or self._brought[0] != self._record_key(announced):
            return None
        staged = self._brought[1]
        return staged if self._here(announced, staged.sha256, staged.size) is not None else None

    def _here(self, announced: Announced, sha256: str, size: int | None) -> Staged | None:
        name = self.name(announced.key)
        path = self._staging.get(name, sha256=sha256, size=size)
        return Staged(path, name, path.stat().st_size, sha256, "local copy") if path is not None else None

    def _from_registry(self, announced: Announced, deadline: float | None = None) -> Staged:
        """Downloaded and checked by the registry; measured once more on its way into the local copy."""

        def fetch(path: Path) -> None:
            self._registry.fetch(announced, path, deadline=deadline)

        name = self.name(announced.key)
        sha256 = _hex(announced.digest) if announced.digest else None
        try:
            path = self._staging.put(name, fetch, sha256=sha256, size=announced.size)
        except BeyondLimit:
            raise
        except (WrongBytes, BadCopy) as error:
            # The store was asked before, where it could have it; something between the registry and us may be at fault.
            self._log.warn("artifact has wrong bytes; fetching it once more", cache_key=announced.key, error=error)
            path = self._staging.put(name, fetch, sha256=sha256, size=announced.size)
        staged = Staged(path, name, path.stat().st_size, self._staging.sha256_of(name) or _measure(path), "registry")
        self._brought = (self._record_key(announced), staged)
        return staged

    def _from_object(self, announced: Announced, measured: Measured) -> Staged | None:
        """Downloaded from the store and compared with what was measured; None: it is not there, or not that."""
        if self._objects is None:
            return None
        name = self.name(announced.key)
        fetch = partial(self._objects.download, measured.key)
        try:
            path = self._staging.put(name, fetch, sha256=measured.sha256, size=measured.size)
        except (NotFound, BadCopy):
            return None
        staged = Staged(path, name, measured.size, measured.sha256, "store")
        self._brought = (self._record_key(announced), staged)
        return staged

    def _proven_object(self, announced: Announced) -> Staged | None:
        """An object without a record, such as Dewy v2 leaves, where the registry's digest proves it."""
        if self._objects is None or announced.digest is None:
            return None
        try:
            size = self._objects.stat(announced.key).size
        except NotFound:
            return None
        if announced.size not in (None, size):
            return None
        return self._from_object(announced, Measured(announced.key, size, _hex(announced.digest)))

    # -- objects -------------------------------------------------------------------------------------------------------

    def _store(self, announced: Announced, staged: Staged) -> str:
        """Puts what was staged into the store; the key of the object. What is there already is not sent again."""
        if self._objects is None:
            return staged.name
        key, there = self._place(self._objects, announced.key, staged)
        if not there:
            try:
                self._objects.upload(key, staged.path)
            except (TooLarge, InvalidKey) as error:
                self._log.warn("the store cannot hold the artifact; every node downloads it", error=error)
                return NOT_STORED
        return key

    def _place(self, objects: Store, key: str, staged: Staged) -> tuple[str, bool]:
        """(where the object belongs, whether it is there). Two that come first at the same moment take the same place;
        whoever loses it is found out by the digest, and has its own place from then on."""
        own = f"apps/{short_hash(self._source)}/{key}"
        if staged.source == "store":  # it was proven a moment ago
            return key, True
        for place in (key, own):
            try:
                size = objects.stat(place).size
            except NotFound:
                return place, False
            if size == staged.size and self._same_bytes(objects, place, staged):
                return place, True
        return own, False

    def _same_bytes(self, objects: Store, key: str, staged: Staged) -> bool:
        """Whether an object of the right size is the right one. Read in full: a version tells nothing of the bytes."""
        with tempfile.TemporaryDirectory(prefix="dewy-compare-") as directory:
            copy = Path(directory) / "object"
            objects.download(key, copy)
            return _measure(copy) == staged.sha256

    def _holds(self, announced: Announced, measured: Measured) -> bool:
        """Whether what a record speaks of is what is announced, and still to be had."""
        if not measured.agrees_with(announced):
            return False
        if self._objects is None:
            return self._here(announced, measured.sha256, measured.size) is not None
        try:
            return measured.key == NOT_STORED or self._objects.stat(measured.key).size == measured.size
        except NotFound:
            return False

    def _record_key(self, announced: Announced) -> str:
        """One for each set of bytes."""
        return f"artifact-cache/{short_hash(self._source, announced.key, announced.edition)}.json"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _measure(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
