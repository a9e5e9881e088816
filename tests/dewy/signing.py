"""A signer that makes what minisign makes, for artifacts that exist only in a test."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Signer:
    """One key. `number` tells it from others."""

    def __init__(self, number: bytes = b"8 bytes.") -> None:
        self._key = Ed25519PrivateKey.generate()
        self.number = number

    @property
    def public(self) -> str:
        """As it stands in the second line of `minisign.pub`."""
        return base64.b64encode(b"Ed" + self.number + self._key.public_key().public_bytes_raw()).decode()

    def sign(self, data: bytes, comment: str = "", *, prehashed: bool = True) -> bytes:
        """What stands in the `.minisig` of a file with these bytes."""
        algorithm, message = (b"ED", hashlib.blake2b(data).digest()) if prehashed else (b"Ed", data)
        signature = self._key.sign(message)
        trusted = self._key.sign(signature + comment.encode())
        lines = [
            b"untrusted comment: by a test",
            base64.b64encode(algorithm + self.number + signature),
            b"trusted comment: " + comment.encode(),
            base64.b64encode(trusted),
        ]
        return b"\n".join(lines) + b"\n"
