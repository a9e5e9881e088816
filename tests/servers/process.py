"""One server process: free ports, a directory of its own, a log that is shown when the start fails, a certain end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self

from tests.servers.ports import HOST, Port, reserve

READY_WITHIN = 90.0
"""Seconds. Generous: the slowest (SeaweedFS) needs 3 s on an idle machine."""
STOP_WITHIN = 3.0
"""Seconds between SIGTERM and SIGKILL. SeaweedFS may hang in its own shutdown for minutes."""

# Linux sends the death signal of `leash.py` when the *thread* that started the child ends. Whoever calls start() may
# be a short-lived thread of a test; this one lives as long as the interpreter.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-starter")


class StartFailed(RuntimeError):
    """A server ended, or was not ready in time; the message holds the end of its log."""


class Server(ABC):
    """A real server on loopback. Start it with `start()` or as a context manager.

    It keeps its ports and its data directory from `start()` to `close()`, over any number of `stop()`, `kill()` and
    `restart()`. Not thread-safe, but any thread may use it.
    """

    name: str
    ports_needed = 1

    def __init__(self) -> None:
        self._ports: list[Port] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))

    # -- what each server says of itself ---------------------------------------------------------------------------

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; the first is a path."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers as it should. May raise OSError, which counts as no."""

    def environment(self) -> dict[str, str]:
        """Variables that its process gets on top of ours."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most servers need no configuration
        """Writes configuration into `self.dir`, before every start."""

    @property
    def env(self) -> dict[str, str]:
        """Variables that a client needs to reach this server (credentials, mostly)."""
        return {}

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        return self._ports[0].number

    def port_at(self, index: int) -> int:
        """Number of the `index`-th of `ports_needed` ports."""
        return self._ports[index].number

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process; RuntimeError when it does not run."""
        if not self.running:
            raise RuntimeError(f"{self.name} does not run")
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """Everything that the process printed, since the first start."""
        return self.dir / "log"

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Starts it and returns when it is ready. MissingServer, StartFailed."""
        if self.running:
            return self
        if not self._ports:
            self._ports = [reserve() for _ in range(self.ports_needed)]
        self.prepare()
        self._log = self.log.open("ab")
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")), str(os.getpid())]
        self._process = _starter.submit(
            subprocess.Popen,
            [*leash, *self.command()],
            cwd=self.dir,
            env=os.environ | self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops us in order
        ).result()
        try:
            self._await_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise StartFailed(f"{self.name} ended with {process.returncode}; its log:\n{self.log_tail()}")
            with contextlib.suppress(OSError):
                if self.is_ready():
                    return
            time.sleep(0.02)
        raise StartFailed(f"{self.name} was not ready after {READY_WITHIN:.0f} s; its log:\n{self.log_tail()}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not end it. Its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL at once, as in a crash. Its data stays."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def restart(self) -> None:
        """Stops and starts it on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it for good: its directory and its ports are given back."""
        self.kill()
        for port in self._ports:
            port.release()
        self._ports = []
        shutil.rmtree(self.dir, ignore_errors=True)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens URLs without the proxy that the machine's environment may name."""


def answers(url: str, statuses: range = range(100, 500)) -> bool:
    """Whether an HTTP server answers GET `url` with one of `statuses`."""
    try:
        with direct.open(url, timeout=5) as answer:
            return answer.status in statuses
    except urllib.error.HTTPError as error:
        with error:
            return error.code in statuses
