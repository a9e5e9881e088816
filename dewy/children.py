"""Child processes in general: how dewy's own small programs are started, and how the end of a child is noticed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STANDALONE: Final = Path(__file__).with_name("standalone")


def standalone(program: str, *arguments: object) -> list[str]:
    """The command of a program of `dewy.standalone`: an interpreter with no site packages and nothing from the
    environment, since that belongs to the application."""
    return [sys.executable, "-I", "-S", str(_STANDALONE / f"{program}.py"), *map(str, arguments)]


def watch(child: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
    """Calls `ended(status)` once, from another thread, when the child has ended and is collected.

    A thread that waits is the one way that needs no signal handler and works on every Unix.
    """

    def wait() -> None:
        ended(child.wait())

    threading.Thread(target=wait, name=f"wait-{child.pid}", daemon=True).start()
