"""Stands in for `dewy` on a page's PATH. What would go on for ever in a terminal is stopped once it has done its work.

That is: `dewy server` and `dewy assets` in the foreground, until a poll has found nothing left to do. One that a page
itself puts into the background (`&`) and stops (`kill`) runs as it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STATUS = Path("releases", ".dewy", "status.json")
PATIENCE = 60.0


def main() -> int:
    command = [sys.executable, "-m", "dewy", *sys.argv[1:]]
    runs = {"server", "assets"} & set(sys.argv[1:2]) and not {"--help", "-h"} & set(sys.argv)
    in_background = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell without job control has it
    if not runs or in_background:
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not settled(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    served = settled(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    code = process.wait()
    if not served:
        print(f"it has not come to serve anything: {' '.join(command)}", file=sys.stderr)
    return code or (0 if served else 1)


def settled(pid: int) -> bool:
    """Whether the dewy of this process has what the registry announces."""
    try:
        told = json.loads(STATUS.read_bytes())
    except (OSError, ValueError):
        return False
    return bool(told["pid"] == pid and told["tick"].get("reason") == "up to date")


if __name__ == "__main__":
    sys.exit(main())
