"""Breaks the code on purpose, one fault at a time, and shows which check finds it. `make mutants`.

Each fault is applied to a copy of the tree, so the working tree is never touched. Exit code 1 if one survives.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str = "tests/protocol/test_protocol.py tests/spec/test_vectors.py tests/protocol"
    """What pytest is told to run, in this order, until something fails."""


CODEC = "tests/test_codec.py tests/spec/test_vectors.py"
MEMORY = "tests/stores/test_memory.py tests/stores/test_contract.py -k 'memory and not fsspec'"
FILE = "tests/stores/test_file.py tests/crash/test_file_store.py tests/stores/test_contract.py -k 'file and not soak'"
STAGING = "tests/test_staging.py tests/crash/test_staging.py"
KIT = "tests/conformance tests/stores/test_contract_finds.py -m 'not servers and not soak'"

MUTANTS = [
    Mutant(
        "conflict check removed (claim): a refused claim counts as won",
        "kvcache/protocol.py",
        "        case ev.Refused():\n            return _verify(flight, claiming)",
        "        case ev.Refused():\n            return _lead(flight, claiming, Version('?'), now)",
    ),
    Mutant(
        "conflict check removed (publish): a refused publish counts as landed",
        "kvcache/protocol.py",
        "        case ev.Refused():\n            return _verify(flight, publishing)",
        "        case ev.Refused():\n            return _shared(flight, publishing, publishing.claim.version, now)",
    ),
    Mutant(
        "lease ignored: a lock is never live",
        "kvcache/view.py",
        "    return max(0.0, min(by_store, by_sight))",
        "    return 0.0 * min(by_store, by_sight)",
    ),
    Mutant(
        "lease ignored: a lock is live for ever",
        "kvcache/view.py",
        "    return max(0.0, min(by_store, by_sight))",
        "    return max(1.0, min(by_store, by_sight))",
    ),
    Mutant(
        "back-off dropped",
        "kvcache/view.py",
        "    if failure is None:\n        return 0.0\n    longest",
        "    if failure is None or True:\n        return 0.0\n    longest",
    ),
    Mutant(
        "Retry-After ignored", "kvcache/view.py", "    if retry_after is not None:", "    if False and retry_after:"
    ),
    Mutant(
        "nonce constant",
        "kvcache/protocol.py",
        "lease=flight.policy.lease, nonce=now.nonce",
        "lease=flight.policy.lease, nonce='n'",
    ),
    Mutant(
        "healing removed: unreadable bytes count as a read that failed",
        "kvcache/protocol.py",
        "            step = _judged(replace(flight, healing=True), EMPTY, version, now)\n",
        "            return _store_down(flight, why, now)\n            step = _judged(flight, EMPTY, version, now)\n",
    ),
    Mutant(
        "healing without condition: unreadable bytes are claimed as absent",
        "kvcache/protocol.py",
        "            step = _judged(replace(flight, healing=True), EMPTY, version, now)\n",
        "            step = _judged(replace(flight, healing=True), EMPTY, ABSENT, now)\n",
    ),
    Mutant(
        "read-back skipped: an unknown claim counts as won",
        "kvcache/protocol.py",
        "            return _verify(flight, claiming, why)",
        "            return _lead(flight, claiming, Version('?'), now)",
    ),
    Mutant(
        "a date in the future is believed",
        "kvcache/view.py",
        "        return known if self.own else min(self.as_of, known)",
        "        return self.as_of",
    ),
    Mutant(
        "an older answer replaces a newer one",
        "kvcache/view.py",
        "    if held.answer is not None and as_of <= known.as_of:",
        "    if False:",
    ),
    Mutant(
        "max-stale ignored",
        "kvcache/view.py",
        "(policy.max_stale is None or age <= policy.max_stale)",
        "(policy.max_stale is None or age >= 0)",
    ),
    Mutant(
        "a lost lease publishes all the same",
        "kvcache/protocol.py",
        "        if loading.lost:\n            return Step(replace(flight, phase=Comparing(own, None)), ev.Read())",
        "        if False:\n            return Step(replace(flight, phase=Comparing(own, None)), ev.Read())",
    ),
    Mutant(
        "the lease is not renewed",
        "kvcache/protocol.py",
        "    if claim is None or loading.lost or now.mono < loading.renew_at:",
        "    if True or claim is None:",
    ),
    Mutant(
        "a follower with a usable answer waits",
        "kvcache/view.py",
        "    if locked:\n        if answer is not None and usable:",
        "    if locked:\n        if False and answer is not None:",
    ),
    Mutant(
        "the answer is lost when a load fails",
        "kvcache/record.py",
        "    return replace(claim, nonce=nonce, lock=None, failure=failure)",
        "    return Record(nonce, None, None, failure)",
    ),
    Mutant(
        "an authoritative failure is forgotten",
        "kvcache/protocol.py",
        "    authoritative = came.authoritative or (last is not None and last.authoritative)",
        "    authoritative = False",
    ),
    Mutant(
        "a lease is written in whole seconds",
        "kvcache/codec.py",
        'ours["lease"] = round(lock.lease, 6)',
        'ours["lease"] = round(lock.lease)',
        CODEC,
    ),
    Mutant(
        "a later format is guessed at",
        "kvcache/codec.py",
        ' or ours.get("format") != FORMAT:',
        ' or "format" not in ours:',
        CODEC,
    ),
    Mutant(
        "Go's zero time is a time",
        "kvcache/codec.py",
        "    if whole == _ZERO_SECONDS and nanoseconds == 0:",
        "    if False:",
        CODEC,
    ),
    Mutant("names of fields match in one case only", "kvcache/codec.py", "{key.lower(): value", "{key: value", CODEC),
    Mutant(
        "an offset counts in the wrong direction",
        "kvcache/codec.py",
        '(-1 if sign == "-" else 1)',
        '(1 if sign == "-" else -1)',
        CODEC,
    ),
    Mutant(
        "a record of ours without a nonce is taken",
        "kvcache/codec.py",
        "    if not isinstance(nonce, str) or not nonce:",
        "    if nonce is not None and not isinstance(nonce, str):",
        CODEC,
    ),
    Mutant(
        "Go's escapes are left out",
        "kvcache/codec.py",
        "    return _GO_ESCAPES.sub(",
        "    return text or _GO_ESCAPES.sub(",
        CODEC,
    ),
    Mutant(
        "deep nesting is another error than corrupt",
        "kvcache/codec.py",
        "    except RecursionError:\n",
        "    except ZeroDivisionError:\n",
        CODEC,
    ),
    Mutant(
        "memory: conditions are ignored",
        "kvcache/backends/memory.py",
        "            if condition is not ANYWAY and (",
        "            if False and (",
        MEMORY,
    ),
    Mutant(
        "memory: a version is a digest of the bytes",
        "kvcache/backends/memory.py",
        'Version(f"{self._life}-{self._writes}")',
        "Version(bytes(data).hex())",
        MEMORY,
    ),
    Mutant(
        "memory: the newest is evicted",
        "kvcache/backends/memory.py",
        "self._remove(next(iter(self._entries)))",
        "self._remove(next(reversed(self._entries)))",
        MEMORY,
    ),
    Mutant(
        "memory: a deletion wakes nobody",
        "kvcache/backends/memory.py",
        "            self._remove(key)\n            self._changed.notify_all()\n",
        "            self._remove(key)\n",
        MEMORY,
    ),
    Mutant(
        "file: no lock between check and rename",
        "kvcache/backends/file.py",
        "        return self._directory.key_lock(key) if self._locking else nullcontext()",
        "        return nullcontext()",
        FILE,
    ),
    Mutant(
        "file: the condition is not checked under the lock",
        "kvcache/backends/file.py",
        "            self._check(key, condition)\n            self._directory.put_in_place",
        "            self._directory.put_in_place",
        FILE,
    ),
    Mutant(
        "file: a version is size and time alone",
        "kvcache/backends/file.py",
        "(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)",
        "(status.st_size, status.st_mtime_ns // 10**9)",
        FILE,
    ),
    Mutant(
        "file: the name comes before the bytes are on disk",
        "kvcache/backends/file.py",
        "        flush_to_disk(fd)\n        finished = os.fstat(fd)",
        "        finished = os.fstat(fd)",
        FILE,
    ),
    Mutant(
        "file: a change in place while it is read goes unnoticed",
        "kvcache/backends/file.py",
        "            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):",
        "            if after:",
        FILE,
    ),
    Mutant(
        "staging: what was fetched is not compared with what is due",
        "kvcache/staging.py",
        "            if not measured.fits(sha256, size):",
        "            if False:",
        STAGING,
    ),
    Mutant(
        "staging: damage on the disk goes unnoticed",
        "kvcache/staging.py",
        "            damaged = record is not None and measured.sha256 != record.sha256",
        "            damaged = False",
        STAGING,
    ),
    Mutant(
        "staging: a file that nothing vouches for is used",
        "kvcache/staging.py",
        "                if record is None and sha256 is None and size is None:",
        "                if False:",
        STAGING,
    ),
    Mutant(
        "staging: what is in use is evicted",
        "kvcache/staging.py",
        "                    if free:",
        "                    if True:",
        STAGING,
    ),
    Mutant(
        "staging: what is pinned is evicted",
        "kvcache/staging.py",
        " and other not in kept:",
        ":",
        STAGING,
    ),
    Mutant(
        "staging: the most recently used goes first",
        "kvcache/staging.py",
        "sorted(found, key=itemgetter(0))]",
        "sorted(found, key=itemgetter(0), reverse=True)]",
        STAGING,
    ),
    Mutant(
        "staging: the file comes before its record",
        "kvcache/staging.py",
        "            self._write_record(name, measured, status)\n            with self._directory.key_lock(name):\n"
        "                self._directory.put_in_place(fetched, name)\n",
        "            with self._directory.key_lock(name):\n"
        "                self._directory.put_in_place(fetched, name)\n"
        "            self._write_record(name, measured, status)\n",
        STAGING,
    ),
    Mutant(
        "kit: any history is taken for linearizable",
        "kvcache/conformance/history.py",
        "    if order_of(operations) is not None:",
        "    if True:",
        KIT,
    ),
    Mutant(
        "kit: a write whose answer was lost counts as refused",
        "kvcache/conformance/history.py",
        '            outcome = "unknown"',
        '            outcome = "conflict"',
        KIT,
    ),
    Mutant(
        "kit: what is not offered is not tested to be refused",
        "kvcache/conformance/check.py",
        "                if need in _refusals:",
        "                if False:",
        KIT,
    ),
    Mutant(
        "kit: a check that was stopped counts as kept",
        "kvcache/conformance/run.py",
        '    finding = Finding(check, "undecided", "", 0, 0.0)\n    try:',
        '    finding = Finding(check, "kept", "", 0, 0.0)\n    try:',
        KIT,
    ),
]


def survives(mutant: Mutant) -> bool:
    source = (ROOT / mutant.file).read_text()
    if source.count(mutant.old) != 1:
        sys.exit(f"mutants: {mutant.name}: its text stands {source.count(mutant.old)} times in {mutant.file}")
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for part in ("kvcache", "dewy", "tests", "spec"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        (tree / mutant.file).write_text(source.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        if "tests/protocol" in mutant.tests:
            command.append("--hypothesis-profile=find")  # known to its conftest only
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "HOME": directory}
        run = subprocess.run(
            [*command, *shlex.split(mutant.tests)],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode not in (0, 1):
        sys.exit(f"mutants: {mutant.name}: the tests did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    by = "nothing: it SURVIVED" if run.returncode == 0 else f"`{found[1]}`" if found else "a test"
    print(f"| {mutant.name} | {mutant.file} | {by} |", flush=True)
    return run.returncode == 0


if __name__ == "__main__":
    chosen = [m for m in MUTANTS if not sys.argv[1:] or any(word in m.name for word in sys.argv[1:])]
    survivors = [m for m in chosen if survives(m)]
    print(f"{len(chosen)} mutants, {len(survivors)} survived")
    sys.exit(1 if survivors else 0)
