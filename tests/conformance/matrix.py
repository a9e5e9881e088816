"""Runs `kvcache conformance` on every subject and prints `docs/stores.md`: `python -m tests.conformance.matrix DIR`.

The JSON report of each is left in DIR, and the page is made of all that are there. Names after DIR choose which
subjects to examine anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conformance.subjects import SUBJECTS, Subject

SEED = 20261125
PORT = re.compile(r"127\.0\.0\.1:\d+")
SIGNS = {"kept": "✓", "broken": "**✗**", "undecided": "?", "not offered": "–"}


def report_file(subject: Subject, reports: Path) -> Path:
    return reports / f"{subject.name.replace(' ', '-').replace(',', '')}.json"


def examine(subject: Subject, reports: Path) -> None:
    """Writes the command's report on one subject."""
    target = report_file(subject, reports)
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as directory, subject.running(Path(directory)) as running:
        command = [sys.executable, "-m", "kvcache.cli", "conformance", running.url, "--seed", str(SEED)]
        done = subprocess.run(
            [*command, "--json", str(target)],
            env={**os.environ, **running.env},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if not target.exists():
        raise SystemExit(f"{subject.name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    report = json.loads(target.read_text())
    print(f"{subject.name}: {report['judgement']} ({report['seconds']} s)", file=sys.stderr)


def as_markdown(reports: dict[str, dict[str, Any]]) -> str:
    what = {subject.name: subject.what for subject in SUBJECTS}
    lines = [
        "# Which stores keep which promise",
        "",
        "What `kvcache conformance URL` said of every store of ours and of every server that the tests run, on one",
        "machine over loopback. It is produced by `python -m tests.conformance.matrix DIR > docs/stores.md`, not by"
        " hand;",
        "run the command on your own store before you trust it. Conditional writes are examined even where kvcache"
        " would",
        "notice at opening that a service ignores them and use it without them (`probe=off` in the URL).",
        "A race that came out well proves less than one that did not: moto checks and writes without a lock, and its",
        "threads are rarely interrupted in between.",
        "",
        "| store | what | verdict | kept | broken | undecided | not offered | requests | seconds |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, report in reports.items():
        counts = [str(report["counts"].get(outcome, 0)) for outcome in SIGNS]
        facts = [name, what[name], report["judgement"], *counts, f"{report['requests']:,}", f"{report['seconds']:.1f}"]
        lines.append(f"| {' | '.join(facts)} |")
    lines += ["", "## Promise by promise", "", "✓ kept, **✗** broken, ? undecided, – not offered (the refusal was"]
    lines += ["tested), blank: not asked, since nobody else shares the store.", ""]
    lines += [f"| promise | {' | '.join(reports)} |", f"|---|{':-:|' * len(reports)}"]
    found = {name: {it["name"]: it for it in report["promises"]} for name, report in reports.items()}
    promises = {it["name"]: it["promise"] for report in reports.values() for it in report["promises"]}
    for check in promises:
        signs = [SIGNS[found[name][check]["outcome"]] if check in found[name] else "" for name in reports]
        lines.append(f"| {check} | {' | '.join(signs)} |")
    lines += ["", "What each of them says:", ""]
    lines += [f"- `{name}`: {promise}" for name, promise in promises.items()]
    lines += ["", "## Evidence", ""]
    for name, report in reports.items():
        found_bad = [it for it in report["promises"] if it["evidence"]]
        if found_bad:
            lines += [f"### {name}", "", "```"]
            lines += [f"{it['name']}: {PORT.sub('127.0.0.1:PORT', it['evidence'])}" for it in found_bad]
            lines += ["```", ""]
    lines += ["## Versions", ""]
    versions = {name: version for report in reports.values() for name, version in report["versions"].items()}
    versions.pop("system", None)
    lines += [", ".join(f"{name} {version}" for name, version in versions.items()), ""]
    return "\n".join(lines)


def main() -> None:
    directory, *names = sys.argv[1:]
    reports = Path(directory)
    reports.mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        if not names or subject.name in names:
            examine(subject, reports)
    there = {subject.name: report_file(subject, reports) for subject in SUBJECTS}
    print(as_markdown({name: json.loads(file.read_text()) for name, file in there.items() if file.exists()}), end="")


if __name__ == "__main__":
    main()
