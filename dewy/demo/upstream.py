"""What the demo's fleet polls: releases in the form of GitHub's API, on loopback, counted."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dewy.registry.platform import this_platform

LIST = "/repos/demo/app/releases"


class Upstream:
    """A context manager; `calls` are the times (monotonic) of the fleet's list calls, `downloads` those of assets."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.downloads: list[float] = []
        self._releases: list[dict[str, Any]] = []
        self._archives: dict[str, bytes] = {}
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == LIST:
                    upstream.calls.append(time.monotonic())
                    self._answer(json.dumps(upstream._releases).encode(), "application/json")
                elif (archive := upstream._archives.get(path)) is not None:
                    upstream.downloads.append(time.monotonic())
                    self._answer(archive, "application/octet-stream")
                else:
                    self.send_error(404)

            def _answer(self, body: bytes, kind: str) -> None:
                etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                unchanged = self.headers.get("If-None-Match") == etag
                self.send_response(304 if unchanged else 200)
                self.send_header("ETag", etag)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", "0" if unchanged else str(len(body)))
                self.end_headers()
                if not unchanged:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet: the demo tells the story."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def publish(self, tag: str) -> None:
        """A new release with one archive for this platform."""
        archive, platform = _archive(tag), this_platform()
        name = f"app_{platform.os}_{platform.arch}.tar.gz"
        number = len(self._releases) + 1
        self._archives[f"{LIST}/assets/{number}"] = archive
        asset = {
            "id": number,
            "name": name,
            "state": "uploaded",
            "size": len(archive),
            "digest": f"sha256:{hashlib.sha256(archive).hexdigest()}",
            "url": f"{self.url}{LIST}/assets/{number}",
        }
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        release = {"id": number, "tag_name": tag, "draft": False, "prerelease": False, "published_at": now}
        self._releases = [{**release, "assets": [asset]}, *self._releases]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _archive(tag: str) -> bytes:
    """The application as a `.tar.gz`: a start script, the program, its version."""
    program = Path(__file__).with_name("app.py").read_bytes()
    start = f'#!/bin/sh\nexec "{sys.executable}" "$(dirname "$0")/app.py"\n'.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, body, mode in (("app", start, 0o755), ("app.py", program, 0o644), ("VERSION", tag.encode(), 0o644)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(body), mode
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()
