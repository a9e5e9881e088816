"""Signatures of artifacts, shared by the fleet: one node asks the registry for one, every node checks its own copy.

    signature-cache/<16 hex>.json      {"name": <file>, "signature": <text>, "signed": <checksums file> or null}

A proof proves itself, so who can write to the shared store can at most spoil it; then it is fetched again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from dewy.cachedir import short_hash
from dewy.errors import Untrusted
from dewy.log import Log
from dewy.minisign import Verifier
from dewy.registry import Announced, Registry, source_scope
from dewy.registry.signatures import Proof, find_proof
from kvcache import KVCacheError, LoadContext, Loaded, SharedCache, Store, StoreUnavailable, UpstreamUnavailable

ASK_WITHIN: Final = 60.0
"""Seconds to get a signature from the registry."""


class Proofs:
    """Checks the artifacts of a registry. `objects` and `records` as for `dewy.artifact.Artifacts`."""

    def __init__(
        self, registry: Registry, verifier: Verifier, *, objects: Store | None, records: SharedCache | None, log: Log
    ) -> None:
        self._registry = registry
        self._source = source_scope(registry.scope)
        self._verifier = verifier
        self._objects = objects
        self._records = records
        self._log = log

    def expect(self, announced: Announced) -> Proof:
        """What the artifact is to be proven by. KVCacheError: its release has nothing, or does not tell now."""
        if self._records is not None:
            try:
                proof = self._recorded(self._records, announced)
            except StoreUnavailable:
                proof = None
        else:
            proof = self._noted(announced)
        return proof or self._ask(announced, time.monotonic() + ASK_WITHIN)

    def check(self, announced: Announced, proof: Proof, path: Path, sha256: str) -> None:
        """Proves that the file was signed: by this proof, or by the one that the registry has now. Untrusted.

        KVCacheError: the proof is no good, and another one is not to be had.
        """
        try:
            comment = proof.check(self._verifier, announced.name, path, sha256)
        except Untrusted:
            another = self._ask(announced, time.monotonic() + ASK_WITHIN)
            if another == proof:
                raise
            comment = another.check(self._verifier, announced.name, path, sha256)
            self._note(announced, another)
        self._log.info("Signature verified", cache_key=announced.key, comment=comment)

    def _ask(self, announced: Announced, deadline: float) -> Proof:
        with self._registry.beside(announced, deadline=deadline) as files:
            return find_proof(announced.name, files)

    # -- what the fleet knows ------------------------------------------------------------------------------------------

    def _recorded(self, records: SharedCache, announced: Announced) -> Proof | None:
        """None: the record holds no proof. StoreUnavailable."""

        def load(ctx: LoadContext) -> Loaded[dict[str, Any]]:
            return Loaded(self._ask(announced, min(ctx.deadline, time.monotonic() + ASK_WITHIN)).to_value())

        try:
            answer = records.get(self._key(announced), load, timeout=ASK_WITHIN + 60)
        except UpstreamUnavailable as error:
            if error.kind in ("store", StoreUnavailable.__name__):
                raise StoreUnavailable(str(error)) from error
            raise
        return Proof.from_value(answer.value)

    def _noted(self, announced: Announced) -> Proof | None:
        """As with a record, but nobody waits for anybody: who asks leaves a note."""
        if self._objects is None:
            return None
        try:
            proof = Proof.from_value(json.loads(self._objects.read(self._key(announced))))
        except (KVCacheError, ValueError):  # not there, no note, or a store that does not answer now
            proof = None
        if proof is None:
            proof = self._ask(announced, time.monotonic() + ASK_WITHIN)
            self._note(announced, proof)
        return proof

    def _note(self, announced: Announced, proof: Proof) -> None:
        """Lets the others know a better proof. That nobody hears of it is no reason not to deploy."""
        try:
            if self._records is not None:
                self._records.invalidate(self._key(announced))
            elif self._objects is not None:
                self._objects.write(self._key(announced), json.dumps(proof.to_value()).encode())
        except KVCacheError as error:
            self._log.debug("signature not shared", cache_key=announced.key, error=error)

    def _key(self, announced: Announced) -> str:
        return f"signature-cache/{short_hash(self._source, announced.key, announced.edition)}.json"
