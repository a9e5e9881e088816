"""A web site in a thread, which answers as a test says and remembers what it was asked."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[["Recorder"], None]


class Recorder(BaseHTTPRequestHandler):
    """Answers as its server is told to, and remembers what was asked."""

    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers, self.client_address))
        self.server.answering(self)

    do_POST = do_CONNECT = do_GET

    def reply(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answering: Answering, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Recorder)
        self.answering = answering
        self.asked: list[tuple[str, str, Message, Any]] = []
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is part of these tests."""

    @property
    def credentials(self) -> list[str | None]:
        return [headers.get("Authorization") for _, _, headers, _ in self.asked]
