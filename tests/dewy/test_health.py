"""The health check reaches the new worker alone, on a port that it shares with the old one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dewy import acceptor
from dewy.errors import ConfigError, StartFailed
from dewy.health import HealthCheck, health_check
from dewy.listen import Listeners, open_listeners
from dewy.ports import parse_ports
from dewy.supervision import Candidate, WorkerGone
from tests.dewy.supervised import Application, application, free_port, wait_for
from tests.load.load import Load


@pytest.fixture
def shared(tmp_path: Path):
    """An application that is checked over HTTP, on the path that a test chooses by `app.path`."""
    port = free_port()
    with application(tmp_path, port=port, ready=HealthCheck(("127.0.0.1", port), "/healthz"), ready_timeout=6.0) as app:
        yield app


def test_a_healthy_release_takes_over_and_an_ill_one_does_not(shared: Application) -> None:
    app = shared
    app.supervisor.start()
    first = app.pid()
    with Load("127.0.0.1", app.port, clients=3) as load:
        app.env["WEB_HEALTH"] = "200"
        app.supervisor.restart()
        second = app.pid()
        assert second != first
        app.env["WEB_HEALTH"] = "503"
        # The old worker answers 200 on the very same port all the while.
        with pytest.raises(StartFailed, match=r"not ready within 6 s: GET /healthz: HTTP status 503"):
            app.supervisor.restart()
        assert app.pid() == second
    report = load.stop()
    assert report.failed == 0, report


def test_a_worker_that_never_accepts_is_not_taken_for_the_old_one(shared: Application) -> None:
    app = shared
    app.supervisor.start()
    app.env["WEB_START_DELAY"] = "600"
    with pytest.raises(StartFailed, match=r"the new worker accepts no connection on 127.0.0.1:\d+ yet"):
        app.supervisor.restart()


def test_the_old_worker_serves_until_a_slow_one_is_well(shared: Application) -> None:
    app = shared
    app.supervisor.start()
    app.env["WEB_START_DELAY"] = "2"
    old = app.pid()
    began = time.monotonic()
    future = app.supervisor.request_restart()
    while not future.done() and time.monotonic() - began < 1.5:
        assert app.get()["pid"] == old
    future.result()
    assert time.monotonic() - began > 2
    app.wait_told(WorkerGone)
    assert app.get()["pid"] == app.pid() != old


def test_tcp_is_met_by_whoever_accepts(tmp_path: Path) -> None:
    port = free_port()
    with application(tmp_path, port=port, ready=HealthCheck(("127.0.0.1", port), "tcp"), ready_timeout=20.0) as app:
        app.env["WEB_HEALTH"] = "503"
        app.supervisor.start()
        app.supervisor.restart()
        assert app.supervisor.snapshot().generation == 2


# -- who accepted ------------------------------------------------------------------------------------------------------

ACCEPT_ALL = (
    "import socket, sys, time\ns = socket.socket(fileno=int(sys.argv[1]))\nc = []\nwhile True: c.append(s.accept())"
)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_who_accepted_is_told_by_process(host: str) -> None:
    """`::` takes IPv4 as well, which the kernel's tables write in a way of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
    address = ("127.0.0.1" if host == "::" else host, listener.getsockname()[1])
    command = [sys.executable, "-I", "-S", "-c", ACCEPT_ALL, str(listener.fileno())]
    with listener, socket.create_connection(address) as early:
        assert acceptor.accepted([early]) == {}  # nobody has accepted it yet
        child = subprocess.Popen(command, pass_fds=[listener.fileno()], start_new_session=True)
        try:
            with socket.create_connection(address) as connection:
                inodes = wait_for(
                    lambda: len(found := acceptor.accepted([early, connection])) == 2 and found, "accepted"
                )
                assert acceptor.held_in_session(inodes.values(), child.pid) == set(inodes.values())
                assert acceptor.held_in_session(inodes.values(), os.getsid(0)) == set()
                mine = os.fstat(connection.fileno()).st_ino
                assert acceptor.held_in_session([mine, 1], os.getsid(0)) == {mine}
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()


@pytest.mark.parametrize("answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"])
def test_an_answer_that_is_none_is_told_in_one_line(answer: bytes) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    check = HealthCheck(server.getsockname(), "/healthz")
    missing = check(Candidate(pid=os.getsid(0), generation=1, age=0.0))
    thread.join()
    server.close()
    assert missing is not None and missing.startswith("GET /healthz: ") and "\n" not in missing


def test_a_closed_port_is_told_in_one_line() -> None:
    check = HealthCheck(("127.0.0.1", free_port()), "/")
    assert "Connection refused" in str(check(Candidate(pid=1, generation=1, age=0.0)))


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_where_it_is_asked() -> None:
    port, other = sorted((free_port(), free_port()))
    with open_listeners(parse_ports([str(port), f"127.0.0.1:{other}"]), environ={}) as listeners:
        assert health_check("", None, listeners) is None
        assert health_check("/up", None, listeners) == HealthCheck(("127.0.0.1", port), "/up")
        assert health_check("tcp", 99, listeners) == HealthCheck(("127.0.0.1", 99), "tcp")
    with pytest.raises(ConfigError, match=r"--health-path: '/up': needs --port, or --health-port"):
        health_check("/up", None, Listeners())
    with pytest.raises(ConfigError, match=r"--health-path: 'up': a path such as /healthz, or tcp"):
        health_check("up", 1, Listeners())
