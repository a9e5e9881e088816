"""The small HTTP server for monitoring: GET and HEAD of a few pages, each made anew for whoever asks.

It listens on this host alone unless told otherwise, and shows no secret: no URL of a store, no path of a key.
That it cannot listen is no reason not to deploy.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from dewy.log import Log, one_line

TRIES: Final = 10
"""Ports, from the first one on: several dewys of one host find a place without being told."""
SILENT_AT_MOST: Final = 10.0
"""Seconds in which a client has to send its request, and take the answer."""
AT_ONCE: Final = 16
"""Requests served at the same time; more are hung up on."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    body: str
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200

    @classmethod
    def of_json(cls, value: Any, status: int = 200) -> Page:
        return cls(json.dumps(value, separators=(",", ":")) + "\n", "application/json", status)


Pages = Mapping[str, Callable[[], Page]]
"""Paths, and what makes their pages. Called from several threads."""


class AdminServer:
    """Serves `pages` from `open` to `close`, in threads of its own."""

    def __init__(self, pages: Pages, log: Log) -> None:
        self._pages = pages
        self._log = log
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; None: it does not."""
        return self._server.server_port if self._server is not None else None

    def open(self, host: str, port: int) -> None:
        """Listens on the first of ten ports that can be had. What goes wrong is logged."""
        last: OSError | None = None
        for candidate in range(port, min(port + TRIES, 65536)):
            try:
                self._server = _Server(host, candidate, self._pages, self._log)
            except OSError as error:
                last = error
                continue
            break
        if self._server is None:
            self._log.warn(f"failed to bind admin API after {TRIES} attempts", host=host, port=port, error=last)
            return
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="admin", daemon=True)
        self._thread.start()
        self._log.info("Admin API server started", host=host, port=self._server.server_port)

    def close(self) -> None:
        """Listens no more. Requests under way are not waited for."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, host: str, port: int, pages: Pages, log: Log) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # IPv4 first, as Go has it for `localhost`, which is where Dewy v2 listens.
        self.address_family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        self.pages = pages
        self.log = log
        self._room = threading.Semaphore(AT_ONCE)
        super().__init__((str(address[0]), port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up, or said nothing: no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENT_AT_MOST

    def version_string(self) -> str:
        return "dewy"

    def do_GET(self) -> None:
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            self._send(Page("404 page not found\n", status=HTTPStatus.NOT_FOUND))
            return
        try:
            page = make()
        except Exception as error:
            # Whatever it was, it is the asker's to know, and not the end of the server.
            self.server.log.warn("admin page failed", path=self.path, error=one_line(error))
            page = Page("Internal server error\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(page)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._send(Page("Method not allowed\n", status=HTTPStatus.METHOD_NOT_ALLOWED), Allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _send(self, page: Page, **headers: str) -> None:
        data = page.body.encode()
        self.send_response(page.status)
        for name, value in {**headers, "Content-Type": page.content_type, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
