"""Opening the application's sockets, or adopting those that systemd opened."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from dewy.errors import ConfigError, StartFailed
from dewy.listen import Listeners, open_listeners
from dewy.ports import Listen, parse_ports
from tests.dewy.supervised import free_port


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_socket_takes_connections_before_anybody_accepts():
    port = free_port()
    with open_listeners([Listen(port, "127.0.0.1")], environ={}) as listeners:
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(200)]
        assert len(listeners) == 1
    for connection in held:
        connection.close()
    assert not connects("127.0.0.1", port)


def test_one_address_is_opened_on_that_address_only():
    port = free_port()
    with open_listeners([Listen(port, "127.0.0.1")], environ={}):
        assert connects("127.0.0.1", port)
        assert not connects("127.0.0.2", port)


def test_a_name_is_resolved():
    port = free_port()
    with open_listeners([Listen(port, "localhost")], environ={}):
        assert connects("127.0.0.1", port)


def test_a_port_alone_is_for_all_addresses_and_both_families_can_have_it():
    port = free_port()
    with open_listeners(parse_ports([str(port), f"[::]:{port}"]), environ={}):
        assert connects("127.0.0.1", port)
        assert connects("127.0.0.2", port)
        assert connects("::1", port)


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"host 'nowhere\.invalid' is unknown"):
        open_listeners([Listen(free_port(), "nowhere.invalid")], environ={})


def test_foreign_address():
    with pytest.raises(StartFailed, match="this host has no such address"):
        open_listeners([Listen(free_port(), "203.0.113.1")], environ={})


def test_a_taken_port_is_one_clear_line_and_nothing_stays_open():
    port, taken = sorted((free_port(), free_port()))
    with socket.create_server(("127.0.0.1", taken)):
        with pytest.raises(StartFailed, match=f"cannot listen on port 127.0.0.1:{taken}: address already in use"):
            open_listeners([Listen(port, "127.0.0.1"), Listen(taken, "127.0.0.1")], environ={})
        assert not connects("127.0.0.1", port)


def test_with_patience_a_port_that_is_given_back_is_taken():
    port = free_port()
    holder = socket.create_server(("127.0.0.1", port))
    threading.Timer(0.3, holder.close).start()
    began = time.monotonic()
    with open_listeners([Listen(port, "127.0.0.1")], environ={}, patience=30):
        assert time.monotonic() - began >= 0.3


def test_no_child_inherits_a_socket_unasked():
    with open_listeners([Listen(free_port(), "127.0.0.1")], environ={}) as listeners:
        script = "import os, sys; os.fstat(int(sys.argv[1]))"
        child = subprocess.run(
            [sys.executable, "-c", script, str(listeners.fds[0])], close_fds=False, capture_output=True, check=False
        )
        assert child.returncode != 0
        assert b"Bad file descriptor" in child.stderr


def test_what_workers_are_told():
    listens = parse_ports([str(free_port()), f"127.0.0.1:{free_port()}"])
    with open_listeners(listens, environ={}) as listeners:
        first, second = listens
        assert listeners.environment() == {
            "SERVER_STARTER_PORT": f"{first}=3;{second}=4",
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": f"{first.port}:{second.port}",
        }


def test_without_ports_the_variable_of_server_starter_is_empty():
    assert Listeners().environment() == {"SERVER_STARTER_PORT": ""}


# ---- Socket activation: a child of ours is handed sockets as systemd does it ----

ACTIVATED = """
import os, sys
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"].replace("self", str(os.getpid()))
from dewy.errors import DewyError
from dewy.listen import open_listeners
from dewy.ports import parse_ports
try:
    listeners = open_listeners(parse_ports(sys.argv[1:]))
except DewyError as error:
    sys.exit(f"{type(error).__name__}: {error}")
left = [name for name in os.environ if name.startswith("LISTEN_")]
print([(str(l.listen), l.adopted, l.socket.getsockname()[1], l.socket.get_inheritable()) for l in listeners], left)
"""


def activate(sockets: list[socket.socket], *ports: str, pid: str = "self") -> subprocess.CompletedProcess[str]:
    """Runs `open_listeners` in a process that got `sockets` at 3, 4, ..."""
    shift = "".join(f"exec {100 + index}<&{sock.fileno()}\n" for index, sock in enumerate(sockets))
    place = "".join(f"exec {3 + index}<&{100 + index} {100 + index}<&-\n" for index in range(len(sockets)))
    return subprocess.run(
        ["bash", "-c", f'{shift}{place}exec "$@"', "bash", sys.executable, "-c", ACTIVATED, *ports],
        env={**os.environ, "LISTEN_PID": pid, "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "web"},
        pass_fds=[sock.fileno() for sock in sockets],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def two_sockets():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield one, other


def test_sockets_of_systemd_are_adopted_whatever_their_order(two_sockets):
    ports = [sock.getsockname()[1] for sock in two_sockets]
    done = activate([two_sockets[0], two_sockets[1]], *(f"127.0.0.1:{port}" for port in ports))
    expected = [(f"127.0.0.1:{port}", True, port, False) for port in sorted(ports)]
    assert done.stdout.strip() == f"{expected} []", done.stderr


def test_a_dual_stack_socket_serves_a_plain_port_and_others_are_opened():
    port = free_port()
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as given:
        adopted = given.getsockname()[1]
        done = activate([given], str(adopted), str(port))
    expected = sorted([(str(adopted), True, adopted, False), (str(port), False, port, False)], key=lambda row: row[2])
    assert done.stdout.strip() == f"{expected} []", done.stderr


def test_a_socket_that_no_port_names_is_an_error(two_sockets):
    one, other = two_sockets
    done = activate([one, other], f"127.0.0.1:{one.getsockname()[1]}")
    assert "ConfigError: --port: systemd passed a socket for" in done.stderr
    assert f"127.0.0.1:{other.getsockname()[1]}" in done.stderr


def test_variables_for_another_process_are_ignored(two_sockets):
    port = two_sockets[0].getsockname()[1]
    done = activate([two_sockets[0]], f"127.0.0.1:{port}", pid="1")
    assert "address already in use" in done.stderr
