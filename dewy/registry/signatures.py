"""Signatures that a release carries: `<artifact>.minisig`, or a checksums file with a `.minisig` of its own.

A proof is what it takes to check an artifact without asking anybody: the signature and, where it is one of a checksums
file, that file. It proves itself, so it does not matter where it was kept in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from dewy.errors import Untrusted, printable
from dewy.minisign import BadSignature, Signature, Verifier
from dewy.registry.beside import Beside
from dewy.registry.checksums import checksum_files, digest_of
from kvcache import UpstreamError

SUFFIX: Final = ".minisig"
SIGNATURE_LIMIT: Final = 16 * 1024
"""Bytes of a signature: minisign's comments end at 8 KiB."""
SIGNED_LIMIT: Final = 256 * 1024
"""Bytes of a signed checksums file, which the shared store has to hold in one record: some two thousand lines."""


@dataclass(frozen=True, slots=True)
class Proof:
    """`signature` is what stands in the file `name`; `signed` is the checksums file that it is of, None where it is
    of the artifact itself.
    """

    name: str
    signature: bytes
    signed: bytes | None = None

    def to_value(self) -> dict[str, Any]:
        """As records carry it: JSON takes bytes as Latin-1."""
        signed = None if self.signed is None else self.signed.decode("latin-1")
        return {"name": self.name, "signature": self.signature.decode("latin-1"), "signed": signed}

    @classmethod
    def from_value(cls, value: Any) -> Self | None:
        """None where `value` is not what `to_value` made."""
        match value:
            case {"name": str(name), "signature": str(signature), "signed": None | str() as signed}:
                try:
                    return cls(name, signature.encode("latin-1"), None if signed is None else signed.encode("latin-1"))
                except UnicodeEncodeError:
                    return None
            case _:
                return None

    def check(self, verifier: Verifier, artifact: str, path: Path, sha256: str) -> str:
        """Proves that the file at `path`, of this name and digest, was signed; the trusted comment. Untrusted.

        A file's own signature has to be one made under its name, where it tells: another artifact of the same signer
        is no substitute.
        """
        try:
            signature = Signature.parse(self.signature)
            if self.signed is not None:
                verifier.check_bytes(signature, self.signed)
                signed = digest_of(artifact, self.signed, self.name.removesuffix(SUFFIX))
                if signed is None:
                    raise BadSignature(f"the signed checksums name no {artifact}")
                if signed != f"sha256:{sha256}":
                    raise BadSignature(f"the signed checksum is {signed}, of the file it is sha256:{sha256}")
            else:
                verifier.check_file(signature, path)
                if signature.file_name not in (None, artifact):
                    raise BadSignature(f"it was made of another file, {printable(str(signature.file_name))}")
        except BadSignature as error:
            raise Untrusted(f"{self.name}: {error}") from error
        except UpstreamError as error:  # two checksums of one artifact
            raise Untrusted(str(error)) from error
        return signature.comment


def find_proof(artifact: str, beside: Beside) -> Proof:
    """What a release has to prove an artifact by. UpstreamError: nothing, or it cannot be read."""
    own = f"{artifact}{SUFFIX}"
    if own in beside.names:
        return Proof(own, beside.read(own, SIGNATURE_LIMIT))
    for file in checksum_files(artifact, beside.names):
        name = f"{file}{SUFFIX}"
        if name in beside.names:
            sums = beside.read(file, SIGNED_LIMIT)
            if digest_of(artifact, sums, file) is not None:
                return Proof(name, beside.read(name, SIGNATURE_LIMIT), sums)
    raise UpstreamError(f"no minisign signature: expected {own}, or one of a checksums file that names the artifact")
