"""The supervisor with real processes and sockets: starts, restarts, crashes, stops, and what workers are handed."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time

import psutil
import pytest

from dewy.errors import StartFailed
from dewy.supervision import (
    Launch,
    Settings,
    WorkerFinishing,
    WorkerGone,
    WorkerKilled,
    WorkerRefused,
    WorkerStarted,
    WorkerUp,
)
from dewy.supervisor import Supervisor
from tests.dewy.supervised import PATIENCE, alive, application, kill, wait_for
from tests.load.load import Load


@pytest.fixture
def app(tmp_path):
    with application(tmp_path / "app") as app:
        yield app


# ---- Start ----


def test_start_returns_when_the_worker_is_up(app):
    app.supervisor.start()
    assert app.get()["version"] == "v1"
    snapshot = app.supervisor.snapshot()
    assert snapshot.running
    assert (snapshot.generation, snapshot.crashes, snapshot.draining, snapshot.starting) == (1, 0, (), None)
    assert app.get()["pid"] == snapshot.pid
    assert abs(snapshot.since - time.time()) < PATIENCE
    assert [type(event) for event in app.events] == [WorkerStarted, WorkerUp]


def test_a_worker_that_dies_at_once_is_start_failed(app):
    app.env["WEB_CRASH_AT_START"] = "7"
    with pytest.raises(StartFailed, match=r"^exited with status 7 after 0\.\d s, before it was up$"):
        app.supervisor.start()
    assert not app.supervisor.snapshot().running
    del app.env["WEB_CRASH_AT_START"]
    app.supervisor.start()
    assert app.get()["generation"] == "2"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-command-here", "cannot start no-such-command-here: command not found; it is in no directory of PATH"),
        ("./missing", "cannot start ./missing: no such file"),
        ("./plain.txt", "cannot start ./plain.txt: permission denied; it has to be executable (chmod +x)"),
        ("./folder", "cannot start ./folder: it is a directory"),
        ("./no-interpreter", "cannot start ./no-interpreter: the file exists, but not the interpreter"),
        ("./no-program", "cannot start ./no-program: neither a program for this machine nor a script that begins with"),
    ],
)
def test_what_cannot_be_executed_is_said_in_one_line(tmp_path, command, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain.txt").write_text("#!/bin/sh\n")
    for name, content in {"no-interpreter": "#!/no/such/interpreter\n", "no-program": "\x00\x01"}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    with Supervisor([command], cwd=str(tmp_path)) as supervisor, pytest.raises(StartFailed) as caught:
        supervisor.start()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_working_directory_that_is_not_there(tmp_path):
    with (
        Supervisor(["true"], cwd=str(tmp_path / "gone")) as supervisor,
        pytest.raises(StartFailed, match=r"^cannot enter the working directory .*/gone: No such file or directory$"),
    ):
        supervisor.start()


def test_arguments_with_nul_are_refused():
    with Supervisor(["true", "a\0b"]) as supervisor, pytest.raises(StartFailed, match="cannot start true"):
        supervisor.start()


def test_text_without_an_encoding_is_refused():
    with Supervisor(["true"], env={"TOKEN": "s3cret\ud800"}) as supervisor, pytest.raises(StartFailed) as caught:
        supervisor.start()
    assert str(caught.value) == "cannot start 'true': an argument or a variable of its environment has no encoding here"


def test_no_descriptors_left_is_one_line_and_the_old_one_serves_on(app):
    app.supervisor.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        with pytest.raises(StartFailed, match=r"^cannot start .*: no new process: .*Too many open files"):
            app.supervisor.restart()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert app.get()["generation"] == "1"
    app.supervisor.restart()
    assert app.supervisor.snapshot().generation == 3


# ---- Restart ----


def test_a_restart_serves_the_new_release_and_the_old_one_finishes(app):
    app.supervisor.start()
    old = app.pid()
    app.release("v2")
    app.supervisor.restart()
    app.wait_drained()
    assert app.get() == {"version": "v2", "pid": app.pid(), "generation": "2", "busy": 1}
    assert not alive(old)
    assert app.told(WorkerFinishing)[0].pid == old
    assert app.told(WorkerGone)[0].how == "exited with status 0"


def test_a_request_in_flight_is_finished_by_the_old_worker(app):
    app.supervisor.start()
    answers = []
    slow = app.begin("/slow?s=1.5", answers)
    app.release("v2")
    app.supervisor.restart()
    wait_for(lambda: app.get()["version"] == "v2", "only the new one accepts")
    slow.join()
    assert answers[0]["version"] == "v1"


def test_restarts_while_old_ones_drain_are_all_carried_out(app):
    """Dewy v2 drops a restart while an older worker drains (B4)."""
    app.supervisor.start()
    answers = []
    slow = app.begin("/slow?s=3", answers)
    app.supervisor.restart()
    assert app.supervisor.snapshot().draining
    app.supervisor.restart()
    assert app.supervisor.snapshot().draining
    wait_for(lambda: app.get()["generation"] == "3", "only the third accepts")
    slow.join()
    assert answers[0]["generation"] == "1"


def test_many_requests_at_once_are_few_restarts_and_all_are_answered(app):
    app.supervisor.start()
    futures = [app.supervisor.request_restart() for _ in range(20)]
    for future in futures:
        future.result(PATIENCE)
    # One was under way when the others came, and one served all of those.
    assert app.supervisor.snapshot().generation == 3


def test_a_new_worker_that_fails_leaves_the_old_one_untouched(app):
    app.supervisor.start()
    old = app.pid()
    app.env["WEB_CRASH_AT_START"] = "1"
    with Load("127.0.0.1", app.port, clients=2) as load:
        for _ in range(3):
            with pytest.raises(StartFailed, match="exited with status 1"):
                app.supervisor.restart()
        with pytest.raises(StartFailed, match="command not found"):
            app.supervisor.restart(Launch(("no-such-command-here",)))
    report = load.stop()
    assert report.requests and not report.failed, report
    assert set(report.pids) == {old}
    assert app.supervisor.snapshot().pid == old
    assert not app.told(WorkerFinishing)
    assert len(app.told(WorkerRefused)) == 4


def test_readiness_decides_and_explains(tmp_path):
    ready = threading.Event()
    seen = []

    def check(candidate):
        seen.append(candidate)
        return None if ready.is_set() else "still warming up"

    with application(tmp_path / "app", ready=check, ready_timeout=0.5) as app:
        with pytest.raises(StartFailed, match=r"^not ready within 0\.5 s: still warming up$"):
            app.supervisor.start()
        wait_for(lambda: not alive(seen[0].pid), "the refused one gone")
        assert len(seen) > 1
        ready.set()
        app.supervisor.start()
        assert seen[-1].pid == app.pid()
        assert seen[-1].generation == 2


def test_a_readiness_check_that_hangs_or_fails_holds_up_nothing_else(tmp_path):
    released = threading.Event()

    def check(candidate):
        match candidate.generation:
            case 2:
                raise OSError("connection refused")
            case 3:
                released.wait(PATIENCE)

    with application(tmp_path / "app", ready=check, ready_timeout=0.5) as app:
        app.supervisor.start()
        with pytest.raises(StartFailed, match=r"not ready within 0\.5 s: OSError: connection refused"):
            app.supervisor.restart()
        with pytest.raises(StartFailed, match=r"not ready within 0\.5 s"):
            app.supervisor.restart()
        assert app.supervisor.snapshot().generation == 1
        assert app.get()["version"] == "v1"
        released.set()


def test_an_observer_that_fails_or_waits_for_its_teller_harms_nothing(tmp_path, caplog):
    told = []

    def observe(event):
        told.append(event)
        supervisor.restart()  # would wait for itself

    with Supervisor(["sleep", "600"], settings=Settings(settle=0.1), on_event=observe) as supervisor:
        supervisor.start()
        assert supervisor.snapshot().running
    assert len(told) >= 2
    assert "an observer must not wait for the supervisor" in caplog.text


# ---- Stop ----


def test_stop_waits_for_requests_in_flight(app):
    app.supervisor.start()
    pid, answers = app.pid(), []
    slow = app.begin("/slow?s=1", answers)
    app.supervisor.stop()
    assert not alive(pid)
    slow.join()
    assert answers[0]["version"] == "v1"
    assert not app.supervisor.snapshot().running
    with pytest.raises(StartFailed, match="dewy is stopping"):
        app.supervisor.start()


def test_a_worker_that_ignores_sigterm_is_killed_when_its_time_is_up(tmp_path):
    with application(tmp_path / "app", drain=0.5) as app:
        app.env["WEB_IGNORE_TERM"] = "1"
        app.supervisor.start()
        old = app.pid()
        app.supervisor.restart()
        killed = app.wait_told(WorkerKilled)[0]
        assert killed.pid == old
        assert killed.after >= 0.5
        app.wait_drained()
        assert app.told(WorkerGone)[0].how == "killed by SIGKILL"
        app.supervisor.stop()
        assert len(app.told(WorkerKilled)) == 2


def test_children_of_a_worker_end_with_it(tmp_path):
    with application(tmp_path / "app", drain=0.5, drain_failed=0.5, backoff_base=0.1) as app:
        app.env["WEB_CHILD"] = "stubborn"
        app.supervisor.start()
        children = app.get("/children")
        app.supervisor.restart()
        wait_for(lambda: not alive(children[0]), "the stubborn child of the replaced worker is killed")
        children = app.get("/children")
        kill(app.pid())
        wait_for(lambda: not alive(children[0]), "the stubborn child of the crashed worker is killed")
        wait_for(lambda: app.supervisor.snapshot().running, "restarted")
        children = app.get("/children")
        app.supervisor.stop()
        assert not alive(children[0])


def test_a_shell_that_ends_first_leaves_its_child_the_time_to_finish(app):
    """`sh -c "app; ..."` dies of SIGTERM at once; the application that it started must still drain."""
    app.supervisor.restart(Launch(("sh", "-c", f"{sys.executable} web.py; exit $?"), str(app.directory), app.env))
    shell, worker, answers = app.pid(), app.get()["pid"], []
    assert shell != worker
    slow = app.begin("/slow?s=1", answers)
    app.supervisor.stop()
    slow.join()
    assert answers[0]["pid"] == worker
    assert not alive(worker)


def test_stop_ends_a_start_that_is_under_way(tmp_path):
    with application(tmp_path / "app", ready=None, settle=PATIENCE) as app:
        future = app.supervisor.request_restart()
        starting = wait_for(lambda: app.supervisor.snapshot().starting, "starting")
        app.supervisor.stop()
        with pytest.raises(StartFailed, match="dewy is stopping"):
            future.result(0)
        assert not alive(starting)


def test_stop_from_many_threads_and_again_afterwards(app):
    others = set(psutil.Process().children())  # servers of the session, for one
    app.supervisor.start()
    threads = [threading.Thread(target=app.supervisor.stop) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert set(psutil.Process().children()) <= others
    app.supervisor.stop()


def test_stop_without_a_start():
    supervisor = Supervisor(["true"])
    supervisor.stop()
    with pytest.raises(StartFailed):
        supervisor.start()


def test_settings_that_would_be_a_tight_loop_are_refused():
    with pytest.raises(ValueError, match="tight loop"):
        Settings(backoff_base=0)
    with pytest.raises(ValueError, match="drain: -1"):
        Settings(drain=-1)
