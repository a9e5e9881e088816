"""Several real processes on one store: `python -m tests.stores.processes JOB URL KEY TIMES`, all begun together."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import kvcache.url
from kvcache.conformance.races import increment
from kvcache.errors import Conflict
from kvcache.kvs import ABSENT, Store

TIMEOUT = 120.0


def count_up(store: Store, key: str, times: int) -> int:
    """Raises the counter under `key` `times` times; how often it did."""
    for _ in range(times):
        increment(store, key)
    return times


def create(store: Store, key: str, times: int) -> int:
    """Tries to create `key 0`, `key 1`, ...; how many were created by this process."""
    won = 0
    for number in range(times):
        try:
            store.write_if(f"{key} {number}", secrets.token_bytes(8), ABSENT)
            won += 1
        except Conflict:
            pass
    return won


JOBS = {"count_up": count_up, "create": create}


def run_together(job: str, url: str, key: str, times: int, processes: int = 8) -> list[int]:
    """The results of `job` in that many processes."""
    command = [sys.executable, "-m", "tests.stores.processes", job, url, key, str(times)]
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [int(process.communicate(timeout=TIMEOUT)[0]) for process in started]
        assert [process.returncode for process in started] == [0] * processes
        return results
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    job, url, key, times = sys.argv[1:]
    with kvcache.url.open_store(url) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        print(JOBS[job](store, key, int(times)))


if __name__ == "__main__":
    main()
