"""Crashes, with real processes: replaced without a refused connection, ever more slowly, never in a tight loop."""

from __future__ import annotations

import time

from dewy.supervision import (
    Settings,
    WorkerCrashed,
    WorkerRefused,
)
from dewy.supervisor import Supervisor
from tests.dewy.supervised import PATIENCE, application, kill, wait_for
from tests.load.load import Load


def test_a_crashed_worker_is_replaced_and_no_connection_is_refused(tmp_path):
    with application(tmp_path / "app", backoff_base=0.2) as app:
        app.supervisor.start()
        old = app.pid()
        kill(old)
        assert app.get()["generation"] == "2", "a connection waits for the next worker"
        crash = app.wait_told(WorkerCrashed)[0]
        assert (crash.pid, crash.how, crash.crashes) == (old, "killed by SIGKILL", 1)
        assert 0.1 <= crash.retry_in <= 0.2
        wait_for(lambda: app.supervisor.snapshot().running, "running again")


def test_a_crash_loop_slows_down(tmp_path):
    with application(tmp_path / "app", backoff_base=0.2, backoff_cap=0.8) as app:
        app.supervisor.start()
        app.env["WEB_CRASH_AT_START"] = "1"
        began = time.monotonic()
        kill(app.pid())
        refused = app.wait_told(WorkerRefused, 4)
        took = time.monotonic() - began
        waits = [app.told(WorkerCrashed)[0].retry_in, *(event.retry_in for event in refused)]
        for wait, longest in zip(waits, (0.2, 0.4, 0.8, 0.8, 0.8), strict=False):
            assert longest / 2 <= wait <= longest
        assert took >= sum(waits[:4])
        snapshot = app.supervisor.snapshot()
        assert not snapshot.running
        assert snapshot.crashes >= 5
        # What was wrong is put right: the loop ends by itself.
        del app.env["WEB_CRASH_AT_START"]
        wait_for(lambda: app.supervisor.snapshot().running, "recovered")
        assert app.get()["version"] == "v1"


def test_a_command_that_vanishes_is_no_tight_loop(tmp_path):
    """A failed exec spins without pause in Dewy v2 (B5)."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    events = []
    with Supervisor(
        [str(program)], settings=Settings(settle=0.1, backoff_base=0.2), on_event=events.append
    ) as supervisor:
        supervisor.start()
        program.unlink()
        kill(supervisor.snapshot().pid)
        time.sleep(1.0)
        refused = [event for event in events if isinstance(event, WorkerRefused)]
        assert 1 <= len(refused) <= 5
        assert "no such file" in refused[0].reason
        stopped = time.monotonic()
        supervisor.stop()
        assert time.monotonic() - stopped < PATIENCE


def test_a_crash_under_load_loses_only_what_the_crashed_worker_had_begun(tmp_path):
    with application(tmp_path / "app", backoff_base=0.1) as app:
        app.env["WEB_CRASH_AFTER"] = "30"
        app.supervisor.start()
        with Load("127.0.0.1", app.port, clients=2) as load:
            app.wait_told(WorkerCrashed)
            del app.env["WEB_CRASH_AFTER"]
            wait_for(lambda: len(load.so_far().pids) >= 2, "answers of the next worker")
        report = load.stop()
        crashes = len(app.told(WorkerCrashed))
        assert report.failed <= crashes * 2, report
        assert not any("refused" in failure for failure in report.failures)
