"""Breaks the code on purpose, one fault at a time, and shows which check finds it. `make mutants`.

Each fault is applied to a copy of the tree, so the working tree is never touched. Exit code 1 if one survives.
"""

from __future__ import annotations

import os
import re
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
    tests: str = "tests/protocol"


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
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=find"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "HOME": directory}
        run = subprocess.run(
            [*command, *mutant.tests.split()], cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
    if run.returncode == 0:
        print(f"SURVIVED  {mutant.name}")
        return True
    found = re.search(r"^(?:E| *\\|)\s+(\S*(?:Violation|Error|assert).*)$", run.stdout, re.MULTILINE)
    print(f"found     {mutant.name}: {found[1][:110] if found else run.stdout[-200:]}", flush=True)
    return False


if __name__ == "__main__":
    chosen = [m for m in MUTANTS if not sys.argv[1:] or any(word in m.name for word in sys.argv[1:])]
    survivors = [m for m in chosen if survives(m)]
    print(f"{len(chosen)} mutants, {len(survivors)} survived")
    sys.exit(1 if survivors else 0)
