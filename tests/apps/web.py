#!/usr/bin/env python3
"""A small, real HTTP application, for tests and the demo. Needs nothing but Python; is one file, so that it can be a
release by itself.

It serves what `VERSION` beside it says (read once, at the start), on the sockets that it is handed
(`SERVER_STARTER_PORT`, else systemd's `LISTEN_FDS`), or on `WEB_PORT`.

    GET /            {"version", "pid", "generation", "busy": requests that it answers just now}
    GET /slow?s=0.5  the same, after so many seconds
    GET /fds         its open descriptors, {number: what}
    GET /env         its environment
    GET /children    process ids of its children
    GET /healthz     an empty answer
    GET /crash       ends at once, status 3, without an answer

On SIGTERM it stops accepting, finishes the requests that it has begun, answers one last request on each idle
connection (closing it under a client that is just sending would lose that request), and exits with 0.

    WEB_VERSION=TEXT       instead of the file
    WEB_START_DELAY=SECS   sleeps before it accepts
    WEB_CRASH_AT_START=N   exits at once, with that status
    WEB_CRASH_AFTER=N      exits with status 3 in place of answering the N-th request
    WEB_IGNORE_TERM=1      ignores SIGTERM
    WEB_HEALTH=503         the status of /healthz (200)
    WEB_CHILD=1            starts a child that sleeps; WEB_CHILD=stubborn: one that ignores SIGTERM
    WEB_READY_DIR=DIR      writes an empty file, named by its session, there when it begins to accept
    WEB_LINGER=SECS        how long an idle connection may stay open after SIGTERM (1)
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

LINGER = float(os.environ.get("WEB_LINGER", "1"))
CRASH_AFTER = int(os.environ.get("WEB_CRASH_AFTER", "0"))

draining = threading.Event()
wake_reader, wake_writer = socket.socketpair()
"""The reader becomes readable, for ever, when draining begins: it wakes whoever waits for a connection or request."""
requests_lock = threading.Lock()
requests_begun = 0
requests_ended = 0


def version() -> str:
    if text := os.environ.get("WEB_VERSION"):
        return text
    try:
        return Path(__file__).with_name("VERSION").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "unknown"


VERSION = version()


def listeners() -> list[socket.socket]:
    if named := os.environ.get("SERVER_STARTER_PORT"):
        fds = [int(pair.rpartition("=")[2]) for pair in named.split(";")]
    elif os.environ.get("LISTEN_PID") == str(os.getpid()):
        fds = list(range(3, 3 + int(os.environ["LISTEN_FDS"])))
    else:
        return [socket.create_server(("127.0.0.1", int(os.environ.get("WEB_PORT", "8000"))))]
    return [socket.socket(fileno=fd) for fd in fds]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one segment for an answer

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection and self.next_request_comes():
            self.handle_one_request()

    def next_request_comes(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            selector.register(wake_reader, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select()}
            if self.connection in ready:
                return True
            selector.unregister(wake_reader)
            return bool(selector.select(LINGER))

    def do_GET(self) -> None:
        count_request()
        try:
            self.respond()
        finally:
            count_answer()

    def respond(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/":
                self.answer(identity())
            case "/slow":
                time.sleep(float(parse_qs(url.query)["s"][0]))
                self.answer(identity())
            case "/fds":
                self.answer(open_descriptors())
            case "/env":
                self.answer(dict(os.environ))
            case "/children":
                self.answer([child.pid for child in children])
            case "/healthz":
                self.answer(None, HTTPStatus(int(os.environ.get("WEB_HEALTH", "200"))))
            case "/crash":
                os._exit(3)
            case _:
                self.answer({"error": "not found"}, HTTPStatus.NOT_FOUND)

    def answer(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if draining.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def count_request() -> None:
    global requests_begun
    with requests_lock:
        requests_begun += 1
        if requests_begun == CRASH_AFTER:
            os._exit(3)


def count_answer() -> None:
    global requests_ended
    with requests_lock:
        requests_ended += 1


def identity() -> dict[str, object]:
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "generation": os.environ.get("SERVER_STARTER_GENERATION"),
        "busy": requests_begun - requests_ended,
    }


def open_descriptors() -> dict[str, str]:
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


children: list[subprocess.Popen[bytes]] = []


def start_child(kind: str) -> None:
    script = "import signal, time\n"
    if kind == "stubborn":
        script += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "print('ready', flush=True)\ntime.sleep(600)"
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it ignores SIGTERM by now
    children.append(child)


def serve(sockets: list[socket.socket]) -> None:
    """Accepts until draining begins, then waits for every connection to end."""
    connections: list[threading.Thread] = []
    with selectors.DefaultSelector() as selector:
        for listener in sockets:
            listener.setblocking(False)  # another worker may be quicker between readiness and accept
            selector.register(listener, selectors.EVENT_READ)
        selector.register(wake_reader, selectors.EVENT_READ)
        if directory := os.environ.get("WEB_READY_DIR"):
            Path(directory, str(os.getsid(0))).touch()
        while not draining.is_set():
            for key, _ in selector.select():
                if key.fileobj is not wake_reader:
                    accept(key.fileobj, connections)
            connections = [thread for thread in connections if thread.is_alive()]
    for listener in sockets:
        listener.close()
    for thread in connections:
        thread.join()


def accept(listener: socket.socket, connections: list[threading.Thread]) -> None:
    try:
        connection, peer = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return
    connection.setblocking(True)
    thread = threading.Thread(target=converse, args=(connection, peer), daemon=True)
    thread.start()
    connections.append(thread)


def converse(connection: socket.socket, peer: object) -> None:
    with connection:
        try:
            Handler(connection, peer, None)
        except ConnectionError:
            return  # the client has gone
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return


def drain(*_: object) -> None:
    draining.set()
    wake_writer.close()


def main() -> None:
    if status := int(os.environ.get("WEB_CRASH_AT_START", "0")):
        sys.exit(status)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("WEB_IGNORE_TERM") else drain)
    if kind := os.environ.get("WEB_CHILD"):
        start_child(kind)
    time.sleep(float(os.environ.get("WEB_START_DELAY", "0")))
    serve(listeners())


if __name__ == "__main__":
    main()
