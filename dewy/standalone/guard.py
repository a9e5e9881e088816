"""Outlives dewy by a moment, and ends the workers that a killed dewy leaves behind. `dewy.guard` starts it.

    guard.py GRACE        seconds between SIGTERM and SIGKILL

It reads `+PGID` and `-PGID` lines from standard input: process groups to watch over, and those that are gone. The end
of input means that dewy has died, whatever the cause, kill -9 included: pipes close by themselves. Whoever is still
on the list is then told to finish, given the grace, and killed, with all children that stayed in the group.
"""

import contextlib
import os
import signal
import sys
import time

STEP = 0.05


def main() -> None:
    # A signal to all processes of a service means the workers; this one is done when dewy is.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    groups = watch()
    deadline = time.monotonic() + float(sys.argv[1])
    tell(groups, signal.SIGTERM)
    while groups and time.monotonic() < deadline:
        time.sleep(STEP)
        groups = {group for group in groups if alive(group)}
    tell(groups, signal.SIGKILL)


def watch() -> "set[int]":
    """The groups that are left at the end of input."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        # Every line is one short write, so lines of several writers never mix.
        if line.startswith(b"+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    return groups


def tell(groups: "set[int]", number: int) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def alive(group: int) -> bool:
    """Whether the group has members. macOS answers EPERM where only zombies are left."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
