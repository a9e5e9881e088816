"""A disk that can be filled: a small tmpfs where mounting is allowed, else a limit on the size of files."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SIZE = 2 * 1024 * 1024


@dataclass
class Disk:
    """`root` lies on it."""

    root: Path
    real: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """No byte can be written until the block ends."""
        if not self.real:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        ballast = self.root / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        try:
            yield
        finally:
            ballast.unlink()


@contextmanager
def small_disk(directory: Path) -> Iterator[Disk]:
    """A disk of SIZE bytes."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(directory)]
    real = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(directory, real)
    finally:
        if real:
            subprocess.run(["umount", "-l", str(directory)], check=True)
