"""Turns into a worker: takes its place, then executes the command. `dewy.worker` starts it.

    launch.py JOB_FD REPORT_FD GUARD_FD

What has to be done between fork and exec cannot safely be done in a forked copy of a process with threads, and some of
it (the worker's own pid in its environment, sockets at numbers 3, 4, ..., a signal on the death of the parent) cannot
be asked of `subprocess`. Here there is one thread and nothing inherited.

The job arrives marshalled on JOB_FD. REPORT_FD closes without a word when the command is executed; otherwise it carries
(stage, errno). Everything is in bytes: the locale decides nothing.
"""

import contextlib
import ctypes
import errno
import fcntl
import marshal
import os
import signal
import sys

FIRST_FD = 3
PR_SET_PDEATHSIG = 1


def main() -> None:
    job_fd, report_fd, guard_fd = map(int, sys.argv[1:])
    with os.fdopen(job_fd, "rb") as pipe:
        job = marshal.load(pipe)
    report_fd, guard_fd = hand_over_sockets(job["fds"], report_fd, guard_fd)
    stage = "guard"
    try:
        report_to_guard(guard_fd)
        die_with_parent(job["parent"])
        forget_signals()
        stage = "cwd"
        if job["cwd"] is not None:
            os.chdir(job["cwd"])
        stage = "exec"
        env = dict(job["env"])
        if job["fds"]:
            env[b"LISTEN_PID"] = b"%d" % os.getpid()
        os.execvpe(job["command"][0], job["command"], env)
    except (OSError, ValueError) as error:  # ValueError: NUL in an argument or variable
        os.write(report_fd, marshal.dumps((stage, getattr(error, "errno", errno.EINVAL))))
        os._exit(127)


def hand_over_sockets(fds: "tuple[int, ...]", *others: int) -> "list[int]":
    """Puts `fds` at 3, 4, ..., inheritable, and `others` out of the way, to be closed at exec. Returns the others.

    All are first copied above the range, since the two sets of numbers may overlap in any way.
    """
    end = FIRST_FD + len(fds)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) for fd in (*fds, *others)]
    for fd in (*fds, *others):
        os.close(fd)
    for target, fd in enumerate(moved[: len(fds)], FIRST_FD):
        os.dup2(fd, target, inheritable=True)
    return moved[len(fds) :]


def report_to_guard(guard_fd: int) -> None:
    """From here on the guard ends this process group if dewy dies; there is no moment in which nobody would.

    A guard that is gone is replaced by dewy, which tells the new one of all its workers.
    """
    with contextlib.suppress(BrokenPipeError):
        os.write(guard_fd, b"+%d\n" % os.getpid())


def die_with_parent(parent: int) -> None:
    """Linux: the kernel has this process finish when the thread that started it dies, even if the guard is dead."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(127)


def forget_signals() -> None:
    """As an application expects it: nothing blocked, nothing ignored (Python ignores SIGPIPE; dewy may ignore more)."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the C library keeps some for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    main()
