"""Signals reach their handlers in a thread of their own, at once, in order, and none is in the way of another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dewy.signals import install_signals
from dewy.supervision import Settings
from dewy.supervisor import Supervisor
from tests.dewy.supervised import PATIENCE, alive, wait_for

ROOT = Path(__file__).parents[2]


def raise_signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_handlers_run_in_another_thread_and_in_order():
    seen = []
    with install_signals(
        {n: lambda n: seen.append((n, threading.current_thread())) for n in (signal.SIGUSR1, signal.SIGHUP)}
    ):
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
            before = len(seen)
            raise_signal(number)
            wait_for(lambda before=before: len(seen) > before, number.name)
    assert [number for number, _ in seen] == [signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1]
    assert all(thread is not threading.main_thread() for _, thread in seen)


def test_a_handler_may_take_a_lock_that_the_main_thread_holds():
    lock, taken = threading.Lock(), threading.Event()

    def handler(_):
        with lock:
            taken.set()

    with install_signals({signal.SIGUSR1: handler}):
        with lock:
            raise_signal(signal.SIGUSR1)
            assert not taken.wait(0.1)
        assert taken.wait(PATIENCE)


def test_a_signal_is_served_while_the_main_thread_is_stuck_in_a_call():
    """The first call ends with the signal, the second one then blocks: no instruction of Python runs any more."""
    script = (
        "import ctypes, os, signal, sys\n"
        "from dewy.signals import install_signals\n"
        "signals = install_signals({signal.SIGTERM: lambda _: os._exit(42)})\n"
        "print('up', flush=True)\n"
        "ctypes.CDLL(None).pause()\n"
        "ctypes.CDLL(None).sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 42


def test_a_handler_that_fails_does_not_end_the_others(caplog):
    seen = threading.Event()

    def bad(_):
        raise OSError("broken")

    with install_signals({signal.SIGUSR1: bad, signal.SIGUSR2: lambda _: seen.set()}):
        raise_signal(signal.SIGUSR1)
        wait_for(lambda: "signal handler failed: SIGUSR1" in caplog.text, "reported")
        raise_signal(signal.SIGUSR2)
        assert seen.wait(PATIENCE)


def test_close_puts_everything_back():
    before = signal.getsignal(signal.SIGUSR1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    old = signal.set_wakeup_fd(writer)
    try:
        with install_signals({signal.SIGUSR1: lambda _: None}):
            assert signal.getsignal(signal.SIGUSR1) != before
        assert signal.getsignal(signal.SIGUSR1) == before
        assert signal.set_wakeup_fd(-1) == writer
    finally:
        signal.set_wakeup_fd(old)
        os.close(reader)
        os.close(writer)


def test_a_handler_may_close_the_whole():
    closed = threading.Event()
    signals = install_signals({signal.SIGUSR1: lambda _: closed.set()})
    raise_signal(signal.SIGUSR1)
    assert closed.wait(PATIENCE)
    signals.close()


def test_only_the_main_thread_may_install():
    errors = []

    def install():
        try:
            install_signals({signal.SIGUSR1: lambda _: None})
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert errors


def test_hup_restarts_and_term_stops_as_the_loop_does_it():
    over = threading.Event()
    with Supervisor(["sleep", "600"], settings=Settings(settle=0.1)) as supervisor:
        handlers = {
            signal.SIGHUP: lambda _: supervisor.request_restart(),
            signal.SIGTERM: lambda _: over.set(),
        }
        with install_signals(handlers):
            supervisor.start()
            first = supervisor.snapshot().pid
            for _ in range(3):
                raise_signal(signal.SIGHUP)
            wait_for(lambda: supervisor.snapshot().generation >= 2, "a restart")
            raise_signal(signal.SIGTERM)
            assert over.wait(PATIENCE)
        last = supervisor.snapshot().pid
        assert last != first
    assert not alive(last)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_does_not_inherit_what_dewy_does_with_signals(number):
    with install_signals({number: lambda _: None}), Supervisor(["sleep", "600"]) as supervisor:
        supervisor.start()
        pid = supervisor.snapshot().pid
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        assert caught == 0
