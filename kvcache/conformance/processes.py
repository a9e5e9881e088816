"""The race of one register between processes, each with a store of its own: what a fleet on one host is.

A child is told what to do on stdin, the store's URL included: a command line could be read by every user of the host.
`time.monotonic` is one clock for all processes of a host, so their records can be laid side by side.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from kvcache.conformance.check import Check, scratch
from kvcache.conformance.history import Client, script
from kvcache.conformance.linearizability import Operation
from kvcache.conformance.meter import Metered
from kvcache.conformance.registers import expect_linearizable
from kvcache.errors import StoreUnavailable
from kvcache.kvs import Store
from kvcache.url import open_store

PROCESSES: Final = 3
LENGTH: Final = 40
"""Operations of each process."""
OPENING: Final = 10
"""Requests that opening the store costs a process at the most."""
TIMEOUT: Final = 60.0


def linearizable_across_processes(url: str, seed: int, *, faults: bool = False) -> Check:
    """The check whose processes open `url` and follow the scripts of `seed`; see `registers.linearizable`."""
    do = "read and conditionally write" if faults else "read, write and delete"
    return Check(
        name="linearizable_across_processes",
        promise=f"What processes that {do} one key at once see, one after the other could see.",
        needs=("atomic_replace", "conditional_write") if faults else ("atomic_replace",),
        run=partial(check_history_of_processes, url=url, seed=seed, faults=faults),
        at_most=PROCESSES * (LENGTH + OPENING) + 10,
    )


def check_history_of_processes(store: Store, url: str, seed: int, faults: bool = False) -> None:
    """Broken if what the processes recorded together is not linearizable."""
    can = store.capabilities
    length = 5 if can.min_write_interval else LENGTH
    with scratch(store) as key:
        tasks = [
            {
                "url": url,
                "key": key("register"),
                "who": f"process-{number}",
                "kinds": script((seed, number), length, conditional=can.conditional_write, faults=faults),
            }
            for number in range(PROCESSES)
        ]
        if isinstance(store, Metered):
            store.charge(PROCESSES * (length + OPENING))
        expect_linearizable([_recorded(store, task, said) for task, said in zip(tasks, _run(tasks), strict=True)])


def _run(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a process for each task says, all begun together. StoreUnavailable where one could not do its work."""
    command = [sys.executable, "-m", "kvcache.conformance.processes"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in tasks
    ]
    try:
        for process, task in zip(started, tasks, strict=True):
            _tell(process, json.dumps(task))
        for process in started:
            assert process.stdout is not None  # asked for above
            process.stdout.readline()  # "ready", or nothing from one that failed
        for process in started:
            _tell(process, "go")
        said = [process.communicate(timeout=TIMEOUT)[0] for process in started]
        codes = [process.returncode for process in started]
        if any(codes):
            raise StoreUnavailable(f"processes that open the store for themselves ended with {codes}")
        return [json.loads(text) for text in said]
    except subprocess.TimeoutExpired as error:
        raise StoreUnavailable(f"a process did not end within {TIMEOUT:g} s") from error
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None  # asked for by `_run`
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended: its code tells


def _recorded(store: Store, task: dict[str, Any], said: dict[str, Any]) -> Client:
    client = Client(store, task["key"], task["who"])
    client.operations = [Operation(**operation) for operation in said["operations"]]
    client.versions = [(value, token) for value, token in said["versions"]]
    return client


def main() -> None:
    """A child: reads its task, opens the store, waits for the word, and prints what it recorded."""
    task = json.loads(sys.stdin.readline())
    with open_store(task["url"]) as store:
        print("ready", flush=True)  # noqa: T201  # the parent reads it
        sys.stdin.readline()
        client = Client(store, task["key"], task["who"])
        client.follow(task["kinds"])
    said = {"operations": [asdict(operation) for operation in client.operations], "versions": client.versions}
    print(json.dumps(said))  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main()
