"""A counted GitHub: the part of its REST API that releases need, as a real HTTP server in a process of its own.

    with FakeGitHub() as github:
        github.publish("v1.2.3", {"app_linux_amd64.tar.gz": data})
        ...                                      # with github.env in the environment, and ghr://acme/app
        assert len(github.calls(path="/releases")) == 1

By hand: `python tests/fakes/github.py --port 0 --state DIR` prints its port and serves until it is stopped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):  # run as a program: the tests' root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.servers.process import Server, direct

Mode = Literal[
    "healthy", "outage", "status", "hang", "drop", "rate-limited", "secondary", "slow", "drip", "drip-headers", "cut",
    "corrupt",
]  # fmt: skip
Target = Literal["api", "assets", "uploads"]


class FakeGitHub(Server):
    """Starts, stops and directs a fake GitHub. State and calls outlive `kill()` and `restart()`. Thread-safe."""

    name = "fake-github"
    ports_needed = 2

    def __init__(self, repo: str = "acme/app") -> None:
        super().__init__()
        self.repo = repo
        """The repository that is meant where a call names none."""

    # -- what a server of the tests has to say ------------------------------------------------------------------------

    def command(self) -> list[str]:
        ports = ["--port", str(self.port), "--asset-port", str(self.port_at(1))]
        return [
            sys.executable,
            str(Path(__file__).with_name("github_server.py").resolve()),
            *ports,
            "--state",
            str(self.dir / "state"),
        ]

    def is_ready(self) -> bool:
        return "assets" in self._do("ping")

    @property
    def env(self) -> dict[str, str]:
        """For a client: where the API is."""
        return {"GITHUB_API_URL": self.url}

    @property
    def registry(self) -> str:
        """The registry's URL for dewy."""
        return f"ghr://{self.repo}"

    # -- releases -----------------------------------------------------------------------------------------------------

    def publish(
        self,
        tag: str,
        assets: Mapping[str, bytes | Path] | None = None,
        *,
        repo: str | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        """A release with these assets, seen when all are there. `about` replaces fields: `draft`, `published_at`."""
        repo = repo or self.repo
        self._do("publish", repo=repo, tag=tag, **{**about, "draft": True})
        for name, data in (assets or {}).items():
            self.add_asset(tag, name, data, repo=repo)
        release: dict[str, Any] = self._do("publish", repo=repo, tag=tag, **{"draft": False, **about})
        return release

    def add_asset(
        self, tag: str, name: str, data: bytes | Path, *, repo: str | None = None, **about: Any
    ) -> dict[str, Any]:
        """An asset of a release; `about` replaces fields, as in `state="starter"` or `digest=None`."""
        with tempfile.NamedTemporaryFile(dir=self.dir) as file:
            path = Path(file.name) if isinstance(data, bytes) else data
            if isinstance(data, bytes):
                path.write_bytes(data)
            asset: dict[str, Any] = self._do(
                "add_asset", repo=repo or self.repo, tag=tag, name=name, path=str(path.resolve()), **about
            )
            return asset

    def remove_asset(self, tag: str, name: str, *, repo: str | None = None) -> None:
        self._do("remove_asset", repo=repo or self.repo, tag=tag, name=name)

    def withdraw(self, tag: str, *, repo: str | None = None) -> None:
        self._do("withdraw", repo=repo or self.repo, tag=tag)

    # -- behaviour ----------------------------------------------------------------------------------------------------

    def mode(self, mode: Mode, target: Target = "api", *, times: int | None = None, **options: Any) -> None:
        """How `target` behaves from now on, or for the next `times` calls.

        healthy; outage (status=500, headers=); status (status=, message=, headers=); hang; drop (the connection,
        without an answer); rate-limited (reset_in=, status=); secondary (retry_after=, as_date=, unnamed=, status=);
        slow (delay=, in seconds); drip, drip-headers (delay= per byte); cut (after= bytes of the body, reset=True: by
        RST); corrupt (one bit of the body).
        """
        self._do("mode", target=target, mode=mode, times=times, options=options)

    def configure(self, **settings: Any) -> None:
        """See `github_world.Settings`."""
        self._do("configure", settings=settings)

    def set_limit(self, limit: int, token: str = "") -> None:
        """`limit` calls in the next hour for a token ("": nobody), whatever was used before."""
        self._do("set_limit", token=token, limit=limit)

    def remaining(self, token: str = "") -> int:
        """Calls left in this hour for a token."""
        return int(self._do("remaining", token=token)[1])

    # -- what happened ------------------------------------------------------------------------------------------------

    def calls(
        self,
        *,
        host: str | None = None,
        path: str | None = None,
        method: str | None = None,
        token: str | None = None,
        since: int = 0,
    ) -> list[dict[str, Any]]:
        """Every call since the first start, oldest first, but for the `since` first; those that fit.

        `host` is api, assets or uploads; `path` is how the path ends. A call has `at` (Unix time), `mono`
        (time.monotonic() of this machine), `status` (None: none was sent), `token`, `authorization` (whether that
        header came), `conditional`, `counted` (against the rate limit), `range`.
        """
        return [
            call
            for call in self._do("calls", since=since)
            if host in (None, call["host"])
            and (path is None or call["path"].endswith(path))
            and method in (None, call["method"])
            and token in (None, call["token"])
        ]

    def polls(self, since: int = 0) -> list[dict[str, Any]]:
        """The calls that list releases."""
        return self.calls(host="api", path="/releases", since=since)

    def downloads(self, since: int = 0) -> list[dict[str, Any]]:
        """The calls that fetched an asset's bytes from the host of the assets."""
        return self.calls(host="assets", since=since)

    def _do(self, do: str, **args: Any) -> Any:
        request = urllib.request.Request(f"{self.url}/_control", json.dumps({"do": do, "args": args}).encode())
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)


if __name__ == "__main__":
    from tests.fakes.github_server import main

    main()
