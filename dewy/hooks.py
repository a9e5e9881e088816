"""Commands of the operator, run around a deploy: a shell text, with a time-out and bounded output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

TIMEOUT: Final = 300.0
"""Seconds that a hook may take."""
MOST_OUTPUT: Final = 64 * 1024
"""Bytes kept of each of its streams: the last ones, where a failure is explained."""
_CHUNK: Final = 8192
_STEP: Final = 0.1
_LAST_WORDS: Final = 1.0
"""Seconds from SIGTERM to SIGKILL; and to read what is left in the pipes, which a background child may keep open."""


When: TypeAlias = Literal["before", "after"]


def variables(when: When, *, tag: str, key: str, release: Path, previous_tag: str) -> dict[str, str]:
    """What a hook is told of its deploy, in its environment.

    `release` is where the new release lies: for the before-hook whole, but not yet `current`. `previous_tag` is empty
    where nothing was deployed.
    """
    return {
        "DEWY_HOOK": f"{when}-deploy",
        "DEWY_TAG": tag,
        "DEWY_KEY": key,
        "DEWY_RELEASE": str(release),
        "DEWY_PREVIOUS_TAG": previous_tag,
    }


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended. `exit_code` is None where it was not left to end, negative for a signal."""

    command: str
    exit_code: int | None
    stdout: str
    stderr: str
    duration: float

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0

    @property
    def failure(self) -> str:
        """Why it did not succeed, in a few words."""
        if self.exit_code is None:
            return f"stopped after {self.duration:.0f} s"
        return f"exit code {self.exit_code}" if self.exit_code >= 0 else f"killed by signal {-self.exit_code}"


def run_hook(
    command: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float = TIMEOUT,
    stop: threading.Event | None = None,
) -> HookResult:
    """Runs `sh -c command` in a session of its own, so that its children end with it when it has to be ended.

    That is after `timeout` seconds, or when `stop` is set: SIGTERM, and a little later SIGKILL. OSError: no shell.
    """
    began = time.monotonic()
    with subprocess.Popen(
        ["sh", "-c", command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        stdout, stderr = _Tail(process.stdout), _Tail(process.stderr)
        try:
            exit_code = _await(process, began + timeout, stop or threading.Event())
        finally:
            _end(process)  # also where an error comes in between: no hook runs on unwatched
        return HookResult(command, exit_code, stdout.text(), stderr.text(), time.monotonic() - began)


def _await(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> int | None:
    while time.monotonic() < deadline and not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_STEP, max(0.0, deadline - time.monotonic())))
    return process.poll()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
    process.wait()


class _Tail:
    """Reads a stream to its end in a thread of its own and keeps the last MOST_OUTPUT bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = os.dup(stream.fileno())  # the thread may outlive the stream: see _LAST_WORDS
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, name="dewy-hook-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._descriptor, _CHUNK):
                self._kept += chunk
                del self._kept[:-MOST_OUTPUT]
        finally:
            os.close(self._descriptor)

    def text(self) -> str:
        self._thread.join(_LAST_WORDS)
        return bytes(self._kept).decode("utf-8", "replace").strip()
