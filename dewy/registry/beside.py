"""The other files of an artifact's release: checksums, signatures. All are small, and read whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Beside(Protocol):
    """What lies beside an artifact. It may have changed since it was listed."""

    @property
    def names(self) -> Sequence[str]:
        """Of all files of the release, the artifact among them."""

    def mark(self, name: str) -> str:
        """Another text whenever the file has other bytes. UpstreamError."""

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file. UpstreamError, also where there are more than `limit`."""
