"""Ten releases under load, and thirty restarts: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import psutil

from tests.dewy.supervised import application, descendants, wait_for
from tests.load.load import Load


def test_ten_releases_under_load_lose_no_request(tmp_path):
    with application(tmp_path / "app") as app:
        app.supervisor.start()
        with Load("127.0.0.1", app.port, clients=6) as load:
            for number in range(2, 12):
                app.release(f"v{number}")
                app.supervisor.restart()
                wait_for(lambda version=f"v{number}": load.so_far().versions[version] > 5, f"answers of v{number}")
            app.wait_drained()
        report = load.stop()
        assert report.failed == 0, report
        assert report.requests > 100
        assert set(report.versions) == {f"v{number}" for number in range(1, 12)}
        print(report)


def test_slow_requests_survive_a_release_too(tmp_path):
    with application(tmp_path / "app") as app:
        app.supervisor.start()
        with Load("127.0.0.1", app.port, path="/slow?s=0.3", clients=6) as load:
            for number in range(2, 6):
                app.release(f"v{number}")
                app.supervisor.restart()
            wait_for(lambda: load.so_far().versions["v5"] > 5, "answers of v5")
        report = load.stop()
        assert report.failed == 0, report


def test_a_worker_that_starts_slowly_keeps_clients_waiting_but_loses_none(tmp_path):
    """It counts as up before it accepts; its connections wait in the kernel's queue."""
    with application(tmp_path / "app", ready=None, settle=0.1) as app:
        app.env["WEB_START_DELAY"] = "0.5"
        app.supervisor.start()
        with Load("127.0.0.1", app.port, clients=4) as load:
            app.release("v2")
            app.supervisor.restart()
            wait_for(lambda: load.so_far().versions["v2"] > 5, "answers of v2")
        report = load.stop()
        assert report.failed == 0, report


def test_the_load_would_notice(tmp_path):
    """The same, with a server that goes down between two releases: a count of nought has to be able to be another."""
    with application(tmp_path / "app") as app:
        app.supervisor.start()
        with Load("127.0.0.1", app.port, clients=2) as load:
            wait_for(lambda: load.so_far().requests > 20, "requests")
            app.supervisor.stop()
            app.listeners.close()
            wait_for(lambda: load.so_far().failed > 5, "failures")
        assert any("refused" in failure for failure in load.stop().failures)


def test_thirty_restarts_leave_no_process_no_zombie_no_descriptor_no_thread(tmp_path):
    me, others = psutil.Process(), set(descendants())  # servers of the session, for one
    with application(tmp_path / "app") as app:
        app.env["WEB_CHILD"] = "1"
        app.supervisor.start()
        app.supervisor.restart()
        app.wait_drained()
        # What goes on without workers, and one worker with its child: counted after the first handover.
        processes, descriptors = wait_for(lambda: quiet(app, me), "quiet")
        threads = threading.active_count()
        for _ in range(30):
            app.supervisor.restart()
        app.wait_drained()
        assert app.supervisor.snapshot().generation == 32
        wait_for(lambda: quiet(app, me) == (processes, descriptors), "as many processes and descriptors as before")
        wait_for(lambda: threading.active_count() <= threads, "as many threads as before")
        assert psutil.STATUS_ZOMBIE not in descendants().values()
        app.supervisor.stop()
        assert set(descendants()) <= others


def quiet(app, me):
    gc.collect()
    found = descendants()
    if app.supervisor.snapshot().draining or psutil.STATUS_ZOMBIE in found.values():
        return None
    return len(found), len(list(Path(f"/proc/{me.pid}/fd").iterdir()))
