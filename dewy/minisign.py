"""minisign: Ed25519 signatures of files, checked as https://jedisct1.github.io/minisign/ describes them.

    untrusted comment: whatever                     anybody may write here
    <Base64>                                        2 bytes of algorithm, 8 of the key's number, 64 of signature
    trusted comment: timestamp:...  file:NAME       signed together with the signature above
    <Base64>                                        64 bytes: the signature of the two

The algorithm `ED` signs the BLAKE2b-512 of the file, `Ed` (older) the file itself. Only `cryptography` does arithmetic
here, and it is imported when the first signature is checked.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Final, Self, TypeAlias

from dewy.errors import ConfigError

FORM: Final = "a minisign public key, as in RWQ... of minisign.pub; several are separated by commas"

MOST_PURE: Final = 256 * 2**20
"""Bytes of the largest file whose signature of the older kind is checked: it takes the whole file in memory."""

_PURE: Final = b"Ed"
_PREHASHED: Final = b"ED"
_TRUSTED: Final = b"trusted comment: "
_FILE: Final = re.compile(r"(?:^|\t)file:([^\t]*)")

Message: TypeAlias = Callable[[bool], bytes]
"""Gives what a signature is of: the BLAKE2b of the message for True, else the message itself."""


class BadSignature(Exception):
    """No signature, or not one by these keys of these bytes. `str(error)` says why, on one line."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signatures are believed."""

    number: bytes
    """8 bytes that tell it from other keys; nothing vouches for them."""
    point: bytes
    """The Ed25519 key, 32 bytes."""

    @property
    def shown(self) -> str:
        """Its number, as minisign shows it."""
        return _shown(self.number)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key of a line of Base64, `RWQ...`. ValueError: `<value>: <accepted form>`."""
        raw = _decoded(text.strip().encode(), 42)
        if raw is None or raw[:2] != _PURE:
            # No more of it is shown: it may be the secret key that was given by mistake.
            raise ValueError(f"{text[:8]!r}...: {FORM}")
        return cls(raw[2:10], raw[10:])


def parse_keys(text: str) -> tuple[PublicKey, ...]:
    """The keys of a list with commas; none for an empty text. ValueError."""
    return tuple(PublicKey.parse(part) for part in text.split(",")) if text.strip() else ()


@dataclass(frozen=True, slots=True)
class Signature:
    """What stands in a `.minisig` file."""

    prehashed: bool
    number: bytes
    """Of the key that made it, as it says itself."""
    value: bytes
    trusted_comment: bytes
    comment_signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """BadSignature: it is none."""
        lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
        if len(lines) < 4 or not lines[0].startswith(b"untrusted comment:") or not lines[2].startswith(_TRUSTED):
            raise BadSignature("not a minisign signature")
        raw, comment_signature = _decoded(lines[1], 74), _decoded(lines[3], 64)
        if raw is None or comment_signature is None or raw[:2] not in (_PURE, _PREHASHED):
            raise BadSignature("a damaged minisign signature")
        comment = lines[2].removeprefix(_TRUSTED)
        return cls(raw[:2] == _PREHASHED, raw[2:10], raw[10:], comment, comment_signature)

    @property
    def comment(self) -> str:
        """The trusted comment for people. It can be trusted once the signature was checked."""
        return self.trusted_comment.decode("utf-8", "replace")

    @property
    def file_name(self) -> str | None:
        """The name of the file that was signed, where the trusted comment tells."""
        found = _FILE.search(self.comment)
        return found[1] if found else None


class Verifier:
    """Checks signatures by any of some keys. ConfigError: there is no `cryptography` to do it with."""

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise ConfigError("--signature-key: needs cryptography: pip install 'kvcache-dewy[signatures]'") from error
        self._invalid: Final = InvalidSignature
        self._keys: Final = [(key, Ed25519PublicKey.from_public_bytes(key.point)) for key in keys]

    def check_bytes(self, signature: Signature, data: bytes) -> PublicKey:
        """The key that signed `data`. BadSignature."""
        return self._check(signature, lambda prehashed: blake2b(data).digest() if prehashed else data)

    def check_file(self, signature: Signature, path: Path) -> PublicKey:
        """The key that signed a file; memory stays flat whatever its size. BadSignature, OSError."""

        def message(prehashed: bool) -> bytes:
            with path.open("rb") as file:
                if prehashed:
                    return file_digest(file, blake2b).digest()
                data = file.read(MOST_PURE + 1)  # and not mapped: whoever cuts the file short would end this process
            if len(data) > MOST_PURE:
                raise BadSignature("an older kind of signature (minisign -l) on a large file: sign it without -l")
            return data

        return self._check(signature, message)

    def _check(self, signature: Signature, message: Message) -> PublicKey:
        named = [pair for pair in self._keys if pair[0].number == signature.number]
        if not named:
            ours = " or ".join(key.shown for key, _ in self._keys)
            raise BadSignature(f"signed by key {_shown(signature.number)}, expected {ours}")
        signed = message(signature.prehashed)
        for key, point in named:
            try:
                point.verify(signature.value, signed)
                point.verify(signature.comment_signature, signature.value + signature.trusted_comment)
            except self._invalid:
                continue
            return key
        raise BadSignature(f"the signature is not by key {_shown(signature.number)}, or not of these bytes")


def _decoded(line: bytes, size: int) -> bytes | None:
    """None: not so many bytes, or not in their one spelling (the last character of base64 has bits to spare)."""
    try:
        raw = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size and base64.b64encode(raw) == line else None


def _shown(number: bytes) -> str:
    return f"{int.from_bytes(number, 'little'):016X}"
