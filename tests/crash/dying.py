"""Runs a piece of work in a process of its own that is killed (SIGKILL) at its n-th step.

A step is a call by which the work changes something on disk, or takes a lock. It is counted in the child alone, by
wrapping the functions of `os` and `fcntl`, so production code pays nothing and knows nothing of it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

STEPS = ("open", "write", "utime", "fsync", "replace", "mkdir", "unlink", "rmdir")


def crashes(work: Callable[[], object], at_most: int = 200) -> Iterator[int]:
    """Does `work` again and again in a child that dies at its first step, its second, ..., until it gets through.

    Yields after every death, with the number of the step. A child that fails otherwise is an error.
    """
    for step in range(1, at_most):
        if not dies_at(step, work):
            assert step > 5, f"the work has only {step - 1} steps: they are not counted"
            return
        yield step
    raise AssertionError(f"the work has more than {at_most} steps")


def dies_at(step: int, work: Callable[[], object]) -> bool:
    """Whether the child was killed; False if the work was done before it came to that step."""
    child = os.fork()
    if child == 0:
        _work_and_die(step, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"the work failed in the child that dies at step {step}"
    return False


def _work_and_die(step: int, work: Callable[[], object]) -> None:
    left = step

    def wrap(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*args: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                if name == "write":  # the worst moment of a write is its middle
                    fd, data = args
                    real(fd, bytes(data)[: len(data) // 2])  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        setattr(module, name, call)

    try:
        for name in STEPS:
            wrap(os, name)
        wrap(fcntl, "flock")
        work()
    except BaseException:  # must not return into pytest's copy of itself
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
