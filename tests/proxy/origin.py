"""A small real HTTP server for the proxy's own tests: keeps what it is sent, counts what it carries out."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.servers.ports import HOST


class Origin:
    """PUT stores a body, GET gives it back, and the first part of the path says how:

    /length/        with a Content-Length
    /chunked/       in chunks
    /until-close/   to the end of the connection
    /hints/         with a Content-Length, after an interim answer
    /sink/          counts the bytes of a PUT, keeps none
    /refuse/        answers a PUT with 413 without reading the body, and hangs up
    """

    def __init__(self) -> None:
        self.applied: list[tuple[str, str, int]] = []
        """Method, path and size of every request that was carried out to its end."""
        self.values: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), {"origin": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # broken connections are the point
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    origin: Origin

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        if self.path.startswith("/refuse/"):
            self.send_response(413)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.flush()
            time.sleep(2)  # as servers do: a reset would overtake the answer
            self.close_connection = True
            return
        keep = not self.path.startswith("/sink/")
        body, size = bytearray(), 0
        for block in self._blocks():
            size += len(block)
            if keep:
                body += block
        self.origin.values[self.path] = bytes(body)
        self.origin.applied.append(("PUT", self.path, size))
        self._reply(200, b"")

    def _blocks(self):  # type: ignore[no-untyped-def]
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            block = self.rfile.read(min(left, 65536))
            if not block:
                raise ConnectionResetError("the body was cut")
            left -= len(block)
            yield block

    def do_GET(self) -> None:
        self.origin.applied.append((self.command, self.path, 0))
        value = self.origin.values.get(self.path)
        if self.path.startswith("/hints/"):
            self.send_response_only(103)
            self.end_headers()
        if value is None:
            self._reply(404, b"nothing here")
        elif self.path.startswith("/chunked/"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(value), 1000):
                part = value[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path.startswith("/until-close/"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(value)
        else:
            self._reply(200, value)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.origin.applied.append(("DELETE", self.path, 0))
        self.send_response(204)
        self.end_headers()

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Host-Seen", self.headers["Host"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
