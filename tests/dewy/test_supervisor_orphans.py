"""Whatever ends dewy, also kill -9: its workers, and their children, end too. And as process 1 it collects the dead."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.dewy.supervised import PATIENCE, WEB, alive, application, free_port, wait_for

ROOT = Path(__file__).parents[2]
MARK = "DEWY_TEST_MARK"

PARENT = """
import json, sys
from dewy.listen import open_listeners
from dewy.ports import parse_ports
from dewy.supervisor import Settings, Supervisor

port, settings, command = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
listeners = open_listeners(parse_ports([port]), environ={}, patience=30)
supervisor = Supervisor(command, listeners, settings=Settings(orphan_grace=0.5, **settings))
supervisor.start()
print("up", flush=True)
match sys.stdin.readline().strip():
    case "restart for ever":
        while True:
            supervisor.restart()
    case "raise":
        raise ValueError("a bug of dewy")
"""


class Parent:
    """A dewy-like process. All that it starts, and what that starts, is found by a mark in the environment."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, settle: float = 1.0) -> None:
        self.mark = uuid.uuid4().hex
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, f"127.0.0.1:{self.port}", json.dumps({"settle": settle}), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, **(env or {}), MARK: self.mark},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def others(self) -> list[psutil.Process]:
        """Everything that lives and is not the parent itself."""
        return [process for process in psutil.process_iter() if process.pid != self.process.pid and self._mine(process)]

    def guard(self) -> psutil.Process | None:
        others = self.others()
        return next((process for process in others if "standalone/guard.py" in " ".join(process.cmdline())), None)

    def _mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except psutil.Error:  # gone, or a zombie, which has no environment
            return False


@contextmanager
def parent(*command: str, **options) -> Iterator[Parent]:
    parent = Parent(*command, **options)
    try:
        yield parent
    finally:
        parent.process.kill()
        for process in parent.others():  # only where the test has failed
            process.kill()
        parent.process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("env", [{"WEB_CHILD": "1"}, {"WEB_CHILD": "stubborn"}, {"WEB_IGNORE_TERM": "1"}], ids=str)
def test_kill_9_of_dewy_leaves_no_orphan(env):
    with parent(sys.executable, str(WEB), env=env) as dewy:
        assert len(dewy.others()) == (3 if "WEB_CHILD" in env else 2), "guard, worker, and the worker's child"
        dewy.process.kill()
        wait_for(lambda: not dewy.others(), "nobody left")


@pytest.mark.parametrize("last_words", ["return", "raise"])
def test_a_dewy_that_ends_without_a_stop_leaves_no_orphan(last_words):
    with parent(sys.executable, str(WEB), env={"WEB_CHILD": "stubborn"}) as dewy:
        dewy.tell(last_words)
        dewy.process.wait(PATIENCE)
        wait_for(lambda: not dewy.others(), "nobody left")


def test_kill_9_at_any_moment_of_a_restart_leaves_no_orphan():
    for _ in range(5):
        with parent("sleep", "600", settle=0.01) as dewy:
            dewy.tell("restart for ever")
            time.sleep(random.uniform(0, 0.3))
            dewy.process.kill()
            wait_for(lambda dewy=dewy: not dewy.others(), "nobody left")


def test_kill_9_of_dewy_and_its_guard_together():
    """Linux: the kernel itself tells the worker. (Elsewhere only the guard does.)"""
    with parent("sleep", "600") as dewy:
        guard = dewy.guard()
        dewy.process.send_signal(signal.SIGSTOP)  # so that it cannot start another guard first
        guard.kill()
        dewy.process.kill()
        wait_for(lambda: not dewy.others(), "nobody left")


def test_a_guard_that_dies_is_replaced_and_the_new_one_knows_all_workers():
    with parent(sys.executable, str(WEB), env={"WEB_CHILD": "stubborn"}) as dewy:
        first = dewy.guard()
        first.kill()
        wait_for(lambda: (guard := dewy.guard()) and guard.pid != first.pid, "another guard")
        assert len(dewy.others()) == 3
        dewy.process.kill()
        wait_for(lambda: not dewy.others(), "nobody left")


def test_signals_to_the_whole_service_do_not_end_the_guard():
    """As systemd sends them: SIGTERM to every process of the unit."""
    with parent(sys.executable, str(WEB), env={"WEB_IGNORE_TERM": "1"}) as dewy:
        for process in dewy.others():
            process.send_signal(signal.SIGTERM)
        assert dewy.guard() is not None
        time.sleep(0.2)
        dewy.process.kill()
        wait_for(lambda: not dewy.others(), "nobody left")


def test_a_successor_of_a_killed_dewy_gets_its_port():
    with parent(sys.executable, str(WEB), env={"WEB_IGNORE_TERM": "1"}) as dewy:
        dewy.process.kill()
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, f"127.0.0.1:{dewy.port}", "{}", "sleep", "600"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, MARK: dewy.mark},
        ) as successor:
            assert successor.stdout.readline() == b"up\n"
            successor.communicate(b"return\n")


def test_a_finished_worker_is_forgotten_by_the_guard(tmp_path):
    """Its number may belong to somebody else by the time that dewy dies."""
    with application(tmp_path / "app") as app:
        app.supervisor.start()
        sent = []
        app.supervisor._guard._send = sent.append  # the one place where what a guard is told can be seen
        old = app.pid()
        app.supervisor.restart()
        app.wait_drained()
        assert wait_for(lambda: sent, "the old worker was taken off the list") == [b"-%d\n" % old]
        assert alive(app.pid())


# ---- Process 1 ----

SUBREAPER = """
import ctypes, subprocess, sys, time
from dewy.supervisor import Settings, Supervisor

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to process 1
mine = subprocess.Popen(["sh", "-c", "exit 7"])
# A subshell starts a process and ends: an orphan.
worker = ["sh", "-c", '(sleep 0.3 & echo $! > "$0"); exec sleep 600', sys.argv[1]]
with Supervisor(worker, settings=Settings(settle=0.1, reap_orphans=True)) as supervisor:
    supervisor.start()
    print("up", flush=True)
    time.sleep(2)
    print(mine.wait(), flush=True)
    sys.stdin.readline()
"""


def test_adopted_dead_are_collected_and_own_children_left_alone(tmp_path):
    """Linux. A process whose parent has gone becomes ours; one that was started here is left to who waits for it."""
    note = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", SUBREAPER, str(note)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as dewy:
        assert dewy.stdout.readline() == b"up\n"
        orphan = psutil.Process(int(note.read_text()))
        assert orphan.ppid() == dewy.pid
        wait_for(lambda: orphan.status() == psutil.STATUS_ZOMBIE, "the orphan has ended")
        assert dewy.stdout.readline() == b"7\n", "nobody else took the status of a child that is waited for"
        wait_for(lambda: not psutil.pid_exists(orphan.pid), "the orphan was collected")
        dewy.communicate(b"\n")
