"""One worker: a process of the application, the leader of a session and process group of its own.

It starts as `dewy.standalone.launch`, a bare interpreter that takes its place and then executes the command: some 30 ms
in exchange for never running code in a forked copy of a process that has threads.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import selectors
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, TypeAlias

from dewy.children import standalone, watch
from dewy.envdir import with_envdir
from dewy.errors import StartFailed
from dewy.guard import Guard
from dewy.listen import Listeners
from dewy.supervision import Launch

Ended: TypeAlias = Callable[[int, int, bool], None]
"""Told of a worker's end: its process id, its exit status (negative: a signal), and whether others of its group live
on. Called from another thread."""

_LAUNCH_TIMEOUT: Final = 30.0
"""Seconds until the command must be executing; past them the machine, or the disk of the command, hangs."""
_NOT_FOR_WORKERS: Final = frozenset({
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "SERVER_STARTER_PORT"),
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
})  # fmt: skip
"""What another supervisor told dewy; a worker is told its own."""


class Process:
    """A worker that executes its command. `pid` is its process, its group and its session."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.pid: Final = child.pid
        self._child = child

    def signal_group(self, number: signal.Signals) -> None:
        """To the worker and all of its children that stayed in its group. Harmless when all are gone."""
        # EPERM: macOS where only zombies are left, or a child that has become another user: it is not ours to end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def group_lives(self) -> bool:
        """Whether any process of the group is left, zombies included.

        The number belongs to the group as long as it has a member, so it cannot mean another group unless the last
        member ended, and all numbers of the system were used once around, between two of these questions.
        """
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def watch(self, ended: Ended) -> None:
        """Has `ended` called when the worker itself has ended and is collected. RuntimeError: no new thread."""
        watch(self._child, lambda status: ended(self.pid, status, self.group_lives()))


def spawn(launch: Launch, generation: int, listeners: Listeners, guard: Guard, ended: Ended) -> Process:
    """Starts a worker, and returns when it executes its command. StartFailed: it does not; nothing is left of it.

    `ended` is called once, later, from another thread.

    Linux: the worker is told to finish (SIGTERM) when the *thread* that called this ends. So that thread has to live
    as long as its workers are meant to.
    """
    try:
        job = _job(launch, generation, listeners)
        with contextlib.ExitStack() as pipes:
            return _spawn(launch, job, listeners, guard, ended, pipes)
    except UnicodeError as error:
        text = "an argument or a variable of its environment has no encoding here"
        raise StartFailed(f"cannot start {launch.command[0]!a}: {text}") from error
    except TimeoutError as error:
        raise StartFailed(f"cannot start {launch.command[0]}: no answer in {_LAUNCH_TIMEOUT:g} s", host=True) from error
    except (OSError, RuntimeError) as error:  # the limits of processes, descriptors or threads
        raise StartFailed(f"cannot start {launch.command[0]}: no new process: {error}", host=True) from error


def _spawn(
    launch: Launch, job: bytes, listeners: Listeners, guard: Guard, ended: Ended, pipes: contextlib.ExitStack
) -> Process:
    job_read, job_write = _pipe(pipes)
    report_read, report_write = _pipe(pipes)
    handed = (job_read.fileno(), report_write.fileno(), guard.fd)
    child = subprocess.Popen(
        standalone("launch", *handed),
        stdin=subprocess.DEVNULL,
        pass_fds=(*listeners.fds, *handed),
        start_new_session=True,
    )
    try:
        job_read.close()
        report_write.close()
        _send(job_write, job)
        report = _receive(report_read)
        if report:
            raise StartFailed(explain(launch, *marshal.loads(report)))
        process = Process(child)
        process.watch(ended)
    except BaseException:  # an interrupt too: a worker that nobody knows of must not live on
        _discard(child, guard)
        raise
    return process


def environment(launch: Launch, generation: int, listeners: Listeners) -> dict[str, str]:
    """The environment of a worker, but for `LISTEN_PID`, which only the worker itself can know."""
    inherited = os.environ if launch.env is None else launch.env
    kept = {name: value for name, value in with_envdir(inherited).items() if name not in _NOT_FOR_WORKERS}
    return {**kept, **listeners.environment(), "SERVER_STARTER_GENERATION": str(generation)}


def explain(launch: Launch, stage: str, number: int | None) -> str:
    """Why a command could not be executed, in one line that says what to mend."""
    reason = os.strerror(number) if number is not None else "unknown error"
    if stage == "cwd":
        return f"cannot enter the working directory {launch.cwd}: {reason}"
    program = launch.command[0]
    path = Path(launch.cwd or ".") / program
    match number:
        case errno.ENOENT if "/" not in program:
            reason = "command not found; it is in no directory of PATH"
        case errno.ENOENT if path.exists():
            reason = "the file exists, but not the interpreter (its #! line) or loader that it needs"
        case errno.ENOENT:
            reason = "no such file"
        case errno.EACCES if path.is_dir():
            reason = "it is a directory"
        case errno.EACCES:
            reason = "permission denied; it has to be executable (chmod +x)"
        case errno.ENOEXEC:
            reason = "neither a program for this machine nor a script that begins with #!"
    return f"cannot start {program}: {reason}"


def _discard(child: subprocess.Popen[bytes], guard: Guard) -> None:
    """Ends a worker that has not come to its command; it has announced itself to the guard perhaps."""
    Process(child).signal_group(signal.SIGKILL)
    child.wait()
    guard.drop(child.pid)


def _pipe(pipes: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    return pipes.enter_context(os.fdopen(read, "rb")), pipes.enter_context(os.fdopen(write, "wb"))


def _job(launch: Launch, generation: int, listeners: Listeners) -> bytes:
    env = environment(launch, generation, listeners)
    return marshal.dumps(
        {
            "command": [os.fsencode(part) for part in launch.command],
            "cwd": None if launch.cwd is None else os.fsencode(launch.cwd),
            "env": {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
            "fds": listeners.fds,
            "parent": os.getpid(),
        }
    )


def _send(pipe: IO[bytes], job: bytes) -> None:
    """Blocks while the pipe is full, which the launcher soon empties. One that has died shows by its exit."""
    with contextlib.suppress(BrokenPipeError):
        pipe.write(job)
        pipe.flush()
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _receive(pipe: IO[bytes]) -> bytes:
    """What the launcher reports before the pipe closes: nothing, when it executes the command. TimeoutError."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(_LAUNCH_TIMEOUT):
            raise TimeoutError
    return pipe.read()
