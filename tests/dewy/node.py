"""What the tests of whole nodes share: a registry in a directory, and `dewy` as a process of its own."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from tests.dewy.supervised import PATIENCE, WEB, free_port, wait_for

ROOT = Path(__file__).parents[2]
LEASH = ROOT / "tests" / "servers" / "leash.py"


def archive(files: dict[str, bytes | str], executable: Iterable[str] = ()) -> bytes:
    """A .tar.gz of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o755 if name in executable else 0o644
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def web(version: str) -> bytes:
    """A release of the web application."""
    return archive({"web.py": WEB.read_bytes(), "VERSION": version}, executable=["web.py"])


def broken(version: str) -> bytes:
    """A release that unpacks, and ends as soon as it is started."""
    return archive({"web.py": "#!/bin/sh\nexit 9\n", "VERSION": version}, executable=["web.py"])


class Directory:
    """A `file://` registry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"file://{path}"
        path.mkdir()

    def publish(self, tag: str, data: bytes, name: str = "app_linux_amd64.tar.gz") -> None:
        (self.path / tag).mkdir(exist_ok=True)
        part = self.path / tag / f"{name}.part"
        part.write_bytes(data)
        part.rename(self.path / tag / name)


class Node:
    """One dewy in a directory of its own. Polls five times a second; logs JSON at DEBUG."""

    def __init__(self, root: Path, mode: str, registry: str, *args: str, env: dict[str, str] | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.port = free_port()
        self.log = root.parent / f"{root.name}.log"
        options = ["--registry", registry, "-i", "200ms", "-l", "debug", "-f", "json"]
        options += args or (["-p", f"127.0.0.1:{self.port}", "--", "./current/web.py"] if mode == "server" else [])
        self._command = [sys.executable, "-m", "dewy", mode, *options]
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self._command],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what it did ---------------------------------------------------------------------------------------------------

    def records(self) -> list[dict[str, Any]]:
        """The log; what an application printed in between is left out."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"time"') and line.endswith("}")]

    def logged(self, message: str, /, **facts: Any) -> list[dict[str, Any]]:
        """Records with this message and facts."""
        return [r for r in self.records() if r["msg"] == message and facts.items() <= r.items()]

    def wait_logged(self, message: str, /, count: int = 1, **facts: Any) -> dict[str, Any]:
        """The `count`-th record of these."""
        return self._wait(lambda: (found := self.logged(message, **facts))[count - 1 :] and found[count - 1 :][:1])[0]

    def wait_ticks(self, count: int = 2) -> None:
        """Until so many ticks found nothing to do."""
        seen = len(self.logged("Deploy skipped", reason="up to date"))
        self.wait_logged("Deploy skipped", count=seen + count, reason="up to date")

    def _wait(self, condition: Callable[[], Any]) -> Any:
        try:
            return wait_for(condition, "in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}; the log is\n{self.log.read_text(errors='replace')[-6000:]}") from None

    @property
    def current(self) -> Path:
        return self.root / "current"

    def deployed(self) -> str | None:
        """The version that `current` holds."""
        try:
            return (self.current / "VERSION").read_text().strip()
        except FileNotFoundError:
            return None

    def wait_deployed(self, version: str) -> None:
        self._wait(lambda: self.deployed() == version)

    def served(self) -> dict[str, Any] | None:
        """What the application answers; None while nothing answers."""
        try:
            return self.get("/")
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def get(self, path: str) -> dict[str, Any]:
        """What the application answers there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        connection.request("GET", path, headers={"Connection": "close"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer

    def wait_served(self, version: str) -> dict[str, Any]:
        """Until two answers in a row come from this version: during a hand-over both may answer."""
        answers: list[dict[str, Any] | None] = []

        def settled() -> dict[str, Any] | None:
            answers.append(self.served())
            ok = len(answers) > 1 and all(a is not None and a["version"] == version for a in answers[-2:])
            return answers[-1] if ok else None

        return self._wait(settled)  # type: ignore[no-any-return]  # what `settled` returns

    def releases(self) -> list[str]:
        """Releases on disk, oldest first."""
        directory = self.root / "releases"
        return sorted(p.name for p in directory.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z(-\d+)?", p.name))
