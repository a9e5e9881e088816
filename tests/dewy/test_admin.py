"""The HTTP server for monitoring: what it answers, where it listens, and what it puts up with."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dewy import admin
from dewy.admin import AT_ONCE, TRIES, AdminServer, Page
from dewy.config import configure
from dewy.log import Log
from dewy.monitoring import health_page, name_of, status_of
from dewy.settings import settle
from dewy.telemetry.view import Seen
from tests.dewy.supervised import free_port, wait_for

PAGES = {
    "/text": lambda: Page("hällo\n"),
    "/json": lambda: Page.of_json({"a": [1, None]}),
    "/broken": lambda: Page(str(1 // 0)),
}


@pytest.fixture
def server() -> Iterator[AdminServer]:
    with ExitStack() as stack:
        server = AdminServer(PAGES, Log())
        stack.callback(server.close)
        server.open("127.0.0.1", free_port())
        yield server


def ask(server: AdminServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    assert server.port is not None
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), body


def test_pages(server: AdminServer) -> None:
    status, headers, body = ask(server, "/text?x=1")
    assert (status, headers["Content-Type"], body.decode()) == (200, "text/plain; charset=utf-8", "hällo\n")
    assert headers["Server"] == "dewy" and headers["Content-Length"] == str(len(body))
    status, headers, body = ask(server, "/json")
    assert (headers["Content-Type"], json.loads(body)) == ("application/json", {"a": [1, None]})


def test_head_has_no_body(server: AdminServer) -> None:
    status, headers, body = ask(server, "/json", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "15", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_in_v2_s_words(server: AdminServer, method: str) -> None:
    status, headers, body = ask(server, "/text", method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"Method not allowed\n")


@pytest.mark.parametrize("path", ["/", "/nothing", "/text/", "/../text", "text"])
def test_other_pages_are_not_there(server: AdminServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_a_page_that_fails_is_not_the_end(server: AdminServer, caplog: pytest.LogCaptureFixture) -> None:
    status, _, body = ask(server, "/broken")
    assert (status, body) == (500, b"Internal server error\n")
    assert [record.message for record in caplog.records] == ["admin page failed"]
    assert ask(server, "/text")[0] == 200


def test_the_next_port_is_taken_where_one_is_not_free() -> None:
    with ExitStack() as stack:
        servers = [AdminServer(PAGES, Log()) for _ in range(3)]
        first = free_port()
        for server in servers:
            stack.callback(server.close)
            server.open("127.0.0.1", first)
        ports = [server.port for server in servers]
        assert ports[0] == first and len(set(ports)) == 3
        assert all(port is not None and first <= port < first + TRIES for port in ports)
        assert {ask(server, "/text")[0] for server in servers} == {200}


def test_no_port_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(admin, "TRIES", 1)
        server = AdminServer(PAGES, Log())
        server.open("127.0.0.1", taken)
        server.open("no.such.host.invalid", taken)
        server.close()
    assert server.port is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "failed to bind admin API" in caplog.text


def test_the_last_port() -> None:
    """One more than there are is not asked for."""
    server = AdminServer(PAGES, Log())
    with ExitStack() as stack:
        stack.callback(server.close)
        server.open("127.0.0.1", 65535)
        assert server.port in (None, 65535)


def test_ipv6() -> None:
    server = AdminServer(PAGES, Log())
    with ExitStack() as stack:
        stack.callback(server.close)
        server.open("::1", free_port())
        assert server.port is not None
        with socket.create_connection(("::1", server.port)) as client:
            client.sendall(b"GET /text HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").readline() == b"HTTP/1.0 200 OK\r\n"


def test_clients_that_say_nothing_do_not_pile_up(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin._Handler, "timeout", 600.0)
    before = threading.active_count()
    assert server.port is not None
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(AT_ONCE + 10)
        ]
        clients[-1].settimeout(30)
        assert clients[-1].recv(1) == b""  # hung up on
        assert threading.active_count() <= before + AT_ONCE
    wait_for(lambda: _answers(server), "an answer when they have gone")


def _answers(server: AdminServer) -> bool:
    try:
        return ask(server, "/text")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("rubbish", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000])
def test_rubbish(server: AdminServer, rubbish: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.port is not None
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        try:
            client.sendall(rubbish)
            client.shutdown(socket.SHUT_WR)
            client.recv(1 << 16)
        except OSError:
            pass  # it has hung up already
    assert ask(server, "/text")[0] == 200
    assert capsys.readouterr().err == ""


# -- what the pages say ------------------------------------------------------------------------------------------------


def test_health() -> None:
    assert health_page(True, 1.23456) == Page('{"status":"ok","silent_for":1.235}\n', "application/json", 200)
    assert health_page(False, 4000.0).status == 503


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        ("ghr://owner/repo", "repo"),
        ("ghr://owner/repo/?pre-release=true", "repo"),
        ("s3://region/bucket/some/prefix", "prefix"),
        ("gs://bucket", "bucket"),
        ("file:///srv/releases", "releases"),
    ],
)
def test_the_name_of_an_application(registry: str, name: str) -> None:
    assert name_of(registry) == name


def test_a_status_is_a_superset_of_v2_s() -> None:
    config = configure("server", settle({"registry": ("ghr://o/shop",)}, {}, None, ("./app",)), cwd=Path("/srv"))
    seen = Seen(started_at=1e9, tag="v1.0.0", ticks=3, error="oh", failed_tag="v2.0.0")
    status = status_of(config, seen, "v1.1.0", True, "v1")
    assert {name: status[name] for name in ("command", "current_version", "is_running", "name", "proxy_backends")} == {
        "command": 0,
        "current_version": "v1.1.0",
        "is_running": True,
        "name": "shop",
        "proxy_backends": 0,
    }
    assert status["started_at"] == "2001-09-09T01:46:40.000Z" and status["last_success_at"] is None
    assert status_of(config, seen, "", False, "v1")["current_version"] == "v1.0.0"
