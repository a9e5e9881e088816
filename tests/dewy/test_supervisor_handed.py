"""What a worker is handed: sockets and how it is told of them, environment, signals; and what it is not."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from dewy.listen import Listener, Listeners
from dewy.ports import Listen
from dewy.supervision import (
    Launch,
)
from dewy.supervisor import Supervisor
from tests.dewy.supervised import application, wait_for


@pytest.fixture
def app(tmp_path):
    with application(tmp_path / "app") as app:
        yield app


def test_a_worker_is_told_of_its_sockets_in_both_ways(app):
    app.env.update({"LISTEN_FDS": "9", "LISTEN_PID": "1", "LISTEN_FDNAMES": "foreign", "MINE": "kept"})
    app.supervisor.start()
    env = app.get("/env")
    assert env["SERVER_STARTER_PORT"] == f"127.0.0.1:{app.port}=3"
    assert env["SERVER_STARTER_GENERATION"] == "1"
    assert env["LISTEN_PID"] == str(app.pid())
    assert (env["LISTEN_FDS"], env["LISTEN_FDNAMES"], env["MINE"]) == ("1", str(app.port), "kept")


def test_systemd_s_way_alone_is_enough(app):
    app.supervisor.restart(
        Launch(("sh", "-c", "unset SERVER_STARTER_PORT; exec python3 web.py"), str(app.directory), app.env)
    )
    assert app.get()["version"] == "v1"


def test_without_ports_no_socket_is_announced(tmp_path):
    script = 'env > "$0.tmp"; mv "$0.tmp" "$0"; exec sleep 600'
    with Supervisor(
        ["sh", "-c", script, str(tmp_path / "env")], env={"PATH": os.environ["PATH"], "LISTEN_FDS": "1"}
    ) as supervisor:
        supervisor.start()
        lines = written(tmp_path / "env").splitlines()
    assert "SERVER_STARTER_PORT=" in lines
    assert not any(line.startswith("LISTEN_") for line in lines)


def written(path: Path) -> str:
    """What a worker writes to `path` by way of a rename."""
    return wait_for(lambda: path.exists() and path.read_text(), path.name)


def test_a_worker_has_its_sockets_the_standard_three_and_nothing_else(app):
    secret = os.open(app.directory, os.O_RDONLY)
    app.supervisor.start()  # so that there is another worker, with its pipes and its guard
    with Supervisor(["sleep", "600"], app.listeners) as supervisor:
        supervisor.start()
        directory = Path(f"/proc/{supervisor.snapshot().pid}/fd")
        descriptors = {link.name: str(link.readlink()) for link in directory.iterdir()}
    os.close(secret)
    assert sorted(descriptors) == ["0", "1", "2", "3"]
    assert descriptors["0"] == "/dev/null"
    assert descriptors["3"] == f"socket:[{os.fstat(app.listeners.fds[0]).st_ino}]"


def test_many_sockets_arrive_in_order_whatever_their_numbers_here(tmp_path):
    """More than ten, whose numbers here overlap those there, in another order."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(15)]
    sockets.sort(key=lambda sock: -sock.fileno())
    listeners = Listeners(Listener(Listen(sock.getsockname()[1], "127.0.0.1"), sock) for sock in sockets)
    script = (
        "import os, socket, sys, time\n"
        "fds = range(3, 3 + int(os.environ['LISTEN_FDS']))\n"
        "sockets = [socket.socket(fileno=fd) for fd in fds]\n"
        "ports = [str(sock.getsockname()[1]) for sock in sockets]\n"
        "open(sys.argv[1] + '.tmp', 'w').write(' '.join(ports))\n"
        "os.rename(sys.argv[1] + '.tmp', sys.argv[1])\n"
        "time.sleep(600)"
    )
    out = tmp_path / "ports"
    with listeners, Supervisor([sys.executable, "-c", script, str(out)], listeners) as supervisor:
        supervisor.start()
        assert written(out).split() == [str(listener.listen.port) for listener in listeners]


def test_a_worker_starts_with_default_signals_and_leads_a_session_of_its_own(app):
    app.supervisor.start()
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{app.pid()}/status").read_text().splitlines() if ":\t" in line
    )
    assert int(status["SigBlk"], 16) == 0
    python_ignores = 1 << 12 | 1 << 24  # SIGPIPE and SIGXFSZ, ignored by the application's own interpreter
    assert ignored(status["SigIgn"]) & ~python_ignores == 0
    assert os.getsid(app.pid()) == os.getpgid(app.pid()) == app.pid()


def test_a_plain_program_has_no_signal_ignored():
    with Supervisor(["sleep", "600"]) as supervisor:
        supervisor.start()
        status = Path(f"/proc/{supervisor.snapshot().pid}/status").read_text()
    assert ignored(status.partition("SigIgn:\t")[2].split()[0]) == 0


def ignored(mask: str) -> int:
    """Without the signals that the C library keeps for itself: nobody can reset those (Go and runc have 32 ignored)."""
    ours = sum(1 << (number - 1) for number in signal.valid_signals())
    return int(mask, 16) & ours


def test_the_environment_is_handed_on_to_the_byte():
    """Whatever the locale: the launcher's interpreter adds nothing (it would set LC_CTYPE) and recodes nothing."""
    env = {"PATH": os.environ["PATH"], "ODD": os.fsdecode(b"\xff\xfe"), "UNI": "Grüße\n=x"}
    with Supervisor(["sleep", "600"], env=env) as supervisor:
        supervisor.start()
        raw = Path(f"/proc/{supervisor.snapshot().pid}/environ").read_bytes()
    variables = dict(entry.split(b"=", 1) for entry in raw.rstrip(b"\0").split(b"\0"))
    assert variables == {
        b"PATH": os.environb[b"PATH"],
        b"ODD": b"\xff\xfe",
        b"UNI": "Grüße\n=x".encode(),
        b"SERVER_STARTER_PORT": b"",
        b"SERVER_STARTER_GENERATION": b"1",
    }
