"""How much an archive may cost: the limits, and the meter that stops a bomb while it unpacks, not after."""

from __future__ import annotations

from dataclasses import dataclass

from dewy.errors import UnsafeArchive

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted of one archive. The defaults are far above any real application, far below a full disk."""

    entries: int = 250_000
    """Entries of any kind."""
    size: int = 4 * GIB
    """Bytes that come out of the decompressor, headers and padding included."""
    ratio: float = 250.0
    """Bytes out per byte of the archive file. Deflate can reach 1032, xz and zstd a hundred times that."""
    ratio_free: int = 16 * MIB
    """Bytes out below which the ratio is not looked at: a small file of zeros is no bomb."""
    path: int = 1024
    """Bytes of one path, or of one link's target; the whole of PATH_MAX on macOS."""
    component: int = 255
    """Bytes of one component of a path: NAME_MAX everywhere."""
    depth: int = 64
    """Components of one path."""


class Meter:
    """Counts what one archive has cost so far, and refuses it at the moment a limit is passed."""

    def __init__(self, limits: Limits, packed: int) -> None:
        """`packed`: size of the archive file in bytes, against which the ratio is taken."""
        self.limits = limits
        self.entries = 0
        self.unpacked = 0
        self._entry: str | None = None
        by_ratio = max(limits.ratio_free, int(packed * limits.ratio))
        self._ceiling = min(limits.size, by_ratio)
        self._reason = (
            f"more than {limits.size} bytes unpacked"
            if limits.size <= by_ratio
            else f"more than {by_ratio} bytes unpacked from {packed}, as only a decompression bomb does"
        )

    def entry(self, name: str, declared: int) -> None:
        """One more entry, which claims `declared` bytes: a claim that cannot fit is refused before it is read."""
        self._entry = name
        self.entries += 1
        if self.entries > self.limits.entries:
            raise UnsafeArchive(f"more than {self.limits.entries} entries", entry=name)
        if declared > self.limits.size:
            raise UnsafeArchive(f"claims {declared} bytes, more than {self.limits.size}", entry=name)

    def add(self, count: int) -> None:
        """`count` more bytes came out of the decompressor."""
        self.unpacked += count
        if self.unpacked > self._ceiling:
            raise UnsafeArchive(self._reason, entry=self._entry)
