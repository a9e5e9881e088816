"""What every server of `tests.servers` owes a test: its own port and directory, a clear failure, a certain end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest

from tests.servers import MissingServer, Redis, StartFailed, process
from tests.servers.binaries import ROOT, bundled, node_script, script
from tests.servers.ports import COMPANION, reserve

pytestmark = pytest.mark.servers


def gone(pid):
    """Waits until the process is gone (or a zombie that only waits for its parent)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_server_ends_with_its_block_and_leaves_nothing():
    with Redis() as server:
        pid, folder = server.pid, server.dir
        assert server.client().ping()
    assert gone(pid)
    assert not folder.exists()


def test_a_restart_keeps_port_and_data():
    with Redis(durable=True) as server:
        port, pid = server.port, server.pid
        server.client().set("key", "value")
        server.kill()
        assert not server.running
        with pytest.raises(RuntimeError, match="does not run"):
            _ = server.pid
        server.start()
        assert (server.port, server.client().get("key")) == (port, b"value")
        server.restart()
        assert server.client().get("key") == b"value"
        assert server.pid != pid


def test_a_paused_server_answers_when_it_is_resumed():
    with Redis() as server, server.client() as client:
        client.ping()
        server.pause()
        waiting = threading.Thread(target=client.ping)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        server.resume()
        waiting.join(20)
        assert not waiting.is_alive()


def test_a_paused_server_can_be_stopped(monkeypatch):
    monkeypatch.setattr(process, "STOP_WITHIN", 0.2)
    with Redis() as server:
        pid = server.pid
        server.pause()
        server.stop()
        assert gone(pid)


def test_a_start_that_fails_shows_the_log():
    server = Redis("--no-such-option", "yes")
    with pytest.raises(StartFailed, match="no-such-option"), server:
        pass
    assert not server.dir.exists()


def test_a_server_that_is_not_installed_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("tests.servers.binaries.CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for find in (
        lambda: script("no-such-program"),
        lambda: bundled("no_such_package", "*"),
        lambda: node_script("azurite/dist/src/blob/main.js"),
        lambda: Redis().command(),
    ):
        with pytest.raises(MissingServer, match="run `make setup`"):
            find()


def test_a_server_survives_the_thread_that_started_it():
    server = Redis()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        time.sleep(0.2)
        assert server.client().ping()
    finally:
        server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_a_server_dies_with_the_tests_that_are_killed():
    code = (
        "from tests.servers import Redis\n"
        "server = Redis().start()\n"
        "print(server.pid, server.dir, flush=True)\n"
        "input()\n"
    )
    tests = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with tests:
        pid, folder = tests.stdout.readline().decode().split()
        pid = int(pid)
        assert psutil.pid_exists(pid)
        os.kill(tests.pid, signal.SIGKILL)
    assert gone(pid)
    shutil.rmtree(folder)  # nobody is left to do it


def test_ports_are_kept_from_every_other_test_process():
    mine = [reserve() for _ in range(20)]
    code = "from tests.servers.ports import reserve\nprint(*[reserve().number for _ in range(200)])"
    theirs = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert not {port.number for port in mine} & set(map(int, theirs.split()))
    for port in mine:
        port.release()
        port.release()


def test_a_port_whose_companion_is_taken_is_not_given_out(monkeypatch):
    import socket

    taken = reserve()
    with socket.socket() as companion:
        companion.bind(("127.0.0.1", taken.number + COMPANION))
        companion.listen()
        taken.release()
        numbers = iter([taken.number, taken.number + 1])
        monkeypatch.setattr("tests.servers.ports._draw.randint", lambda *_: next(numbers, 0))
        other = reserve()
    assert other.number == taken.number + 1
    other.release()
