"""What systemd is told: over a real socket, as systemd's own end would read it."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dewy.log import Log, set_up
from dewy.pulse import SLACK, Pulse, longest_silence
from dewy.systemd import Systemd
from tests.dewy.node import Directory, Node, web


class Ears:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.settimeout(30)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().splitlines())

    def hear_until(self, name: str) -> list[dict[str, str]]:
        heard = [self.hear()]
        while name not in heard[-1]:
            heard.append(self.hear())
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def ears(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ears]:
    path = str(tmp_path / "notify") if request.param == "file" else f"@dewy-test-{os.getpid()}"
    ears = Ears(path)
    yield ears
    ears.close()


def test_what_is_said(ears: Ears) -> None:
    systemd = Systemd.of({"NOTIFY_SOCKET": ears.path})
    systemd.started()
    systemd.started()  # once is enough
    systemd.reloading()
    systemd.ready()
    systemd.status("v1\nserves")
    systemd.status("v1 serves")
    systemd.alive()
    systemd.stopping()
    assert ears.hear() == {"READY": "1"}
    reloading = ears.hear()
    assert reloading.pop("RELOADING") == "1" and reloading.pop("MONOTONIC_USEC").isdecimal() and not reloading
    assert ears.hear() == {"READY": "1"}
    assert ears.hear() == {"STATUS": "v1 serves"}
    assert ears.hear() == {"WATCHDOG": "1"}
    assert ears.hear() == {"STOPPING": "1"}


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    for systemd in (Systemd.of({}), Systemd.of({"NOTIFY_SOCKET": str(tmp_path / "nobody")})):
        systemd.started()
        systemd.status("fine")
        systemd.stopping()
        assert systemd.watchdog_interval > 1000


@pytest.mark.parametrize(
    ("env", "interval"),
    [
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, 3600.0),
        ({"WATCHDOG_USEC": "0"}, 3600.0),
        ({"WATCHDOG_USEC": "soon"}, 3600.0),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_has_to_be(env: dict[str, str], interval: float) -> None:
    assert Systemd.of(env).watchdog_interval == interval


def test_a_node_tells_when_it_is_ready_reloads_and_stops(tmp_path: Path) -> None:
    registry = Directory(tmp_path / "registry")
    registry.publish("v1.0.0", web("v1.0.0"))
    ears = Ears(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": ears.path, "WATCHDOG_USEC": "400000"}
    with Node(tmp_path / "node", "server", registry.url, env=env) as node:
        heard = ears.hear_until("READY")
        assert node.served() is not None, "it is ready when the application is"
        assert {"STATUS": "v1.0.0 serves; newest is v1.0.0"} in [*heard, *ears.hear_until("STATUS")]
        ears.hear_until("WATCHDOG")
        node.signal(signal.SIGHUP)
        ears.hear_until("RELOADING")
        ears.hear_until("READY")
        assert node.wait_served("v1.0.0")["generation"] == "2"
        assert "NOTIFY_SOCKET" not in node.get("/env"), "that is between systemd and dewy"
    ears.hear_until("STOPPING")
    ears.close()


# -- the watchdog's food -----------------------------------------------------------------------------------------------


def test_a_loop_that_is_stuck_has_no_pulse() -> None:
    config = cast(Any, SimpleNamespace(tick_timeout=10.0, hook_timeout=5.0, health_timeout=1.0, interval=2.0))
    assert longest_silence(config) == 22.0 + SLACK
    now = [0.0]
    pulse = Pulse(config, lambda: now[0])
    now[0] = 22.0 + SLACK
    assert pulse.beats() and not pulse.in_tick
    pulse.tick_began()
    assert pulse.in_tick
    now[0] *= 2
    assert pulse.beats() and pulse.silent_for == 22.0 + SLACK
    now[0] += 0.1
    assert not pulse.beats()
    pulse.tick_ended()
    assert pulse.beats()


# -- the journal -------------------------------------------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    root, dewy = logging.getLogger(), logging.getLogger("dewy")
    before = (root.handlers[:], root.level, dewy.level)
    yield
    root.handlers[:], _, _ = before
    root.setLevel(before[1])
    dewy.setLevel(before[2])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_for_the_journal_carry_priorities(restored: None, tmp_path: Path, log_format: str) -> None:
    with (tmp_path / "log").open("w+") as stream:
        found = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        set_up("DEBUG", log_format, env, stream)  # type: ignore[arg-type]  # one of the two
        for write in (Log().debug, Log().info, Log().warn, Log().error):
            write("hello")
        logging.getLogger("other").critical("hello")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<3>"]
    assert all("hello" in line for line in lines)


@pytest.mark.parametrize("stream", ["1:2", "", "x"])
def test_lines_for_anybody_else_do_not(restored: None, tmp_path: Path, stream: str) -> None:
    with (tmp_path / "log").open("w+") as file:
        set_up("INFO", "text", {"JOURNAL_STREAM": stream}, file)
        Log().info("hello")
        file.seek(0)
        assert file.read().startswith("time=")
    memory = io.StringIO()
    set_up("INFO", "text", {"JOURNAL_STREAM": "1:2"}, memory)
    Log().info("hello")
    assert memory.getvalue().startswith("time=")
