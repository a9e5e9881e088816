"""The specification and the tests are one: no clause without a test, no dead name, no row that the code contradicts."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections import defaultdict

import pytest

from kvcache.clock import Now
from kvcache.conformance import CONTRACT
from kvcache.events import Fail, Give
from kvcache.kvs import Version
from kvcache.record import Answer, Failure, Lock, Record
from kvcache.view import NOTHING, Follow, Lead, Policy, Serve, absorb, judge
from tests.spec.clauses import INDEX, ROOT, SPEC, Clause, clauses, index

CLAUSES = clauses()


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_every_clause_names_tests_that_exist(clause: Clause):
    assert clause.tests, f"{clause.name} names no test"
    assert len(clause.text) < 500, f"{clause.name} says too much for one clause"
    for test in clause.tests:
        assert test.name in _tests(test.path), f"{clause.name}: {test} does not exist"
        if test.case:
            assert test.path == "tests/stores/test_contract.py"
            assert test.case in {check.name for check in CONTRACT}, f"{clause.name}: {test} does not exist"


@functools.cache
def _tests(path: str) -> set[str]:
    """Names of the tests in a file: functions, and classes, also those that are assigned."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Assign([ast.Name(name)]):
                names.add(name)
    return {name for name in names if name.startswith(("test_", "Test"))}


def test_clauses_are_numbered_without_a_gap():
    numbers = defaultdict(list)
    for clause in CLAUSES:
        numbers[clause.page, clause.letter].append(clause.number)
    assert {"artifact.md", "deploy.md", "kvs.md", "record.md", "refresh.md"} <= {page for page, _ in numbers}
    for (page, letter), found in numbers.items():
        assert found == list(range(1, len(found) + 1)), f"{page}: {letter}"
    letters = [letter for _, letter in numbers]
    assert len(letters) == len(set(letters)), "a letter belongs to one page"


def test_nothing_that_looks_like_a_clause_is_overlooked():
    written = [
        name for page in SPEC.glob("*.md") for name in re.findall(r"(?m)^.{0,4}\*\*([A-Z]\d+)", page.read_text())
    ]
    assert sorted(written) == sorted(clause.name for clause in CLAUSES)
    named = sum(page.read_text().count("::") for page in SPEC.glob("*.md") if page.name != "README.md")
    assert named == sum(len(clause.tests) for clause in CLAUSES), "a test's name is not written as one"


def test_the_index_is_up_to_date():
    page = (SPEC / "README.md").read_text()
    assert page[page.index(INDEX) :] == index(), "run: python -m tests.spec.clauses"


def test_the_contract_is_specified_whole():
    named = {test.case for clause in CLAUSES for test in clause.tests}
    missing = {check.name for check in CONTRACT} - named
    # Details of a promise that is specified, or of one way to use it.
    assert missing <= DETAILS, f"promises without a clause: {sorted(missing - DETAILS)}"


DETAILS = {
    "stat",
    "version_of_another_key",
    "made_up_version",
    "delete_and_create_again",
    "a_b_a",
    "same_bytes_twice",
    "upload_and_download",
    "upload_of_file_objects",
    "upload_replaces",
    "long_segments",
    "key_that_begins_another",
}

# -- the table of refresh.md ----------------------------------------------------------------------------------------

POLICY = Policy(ttl=60.0, max_stale=1000.0, lease=30.0, refresh_ahead=0.5)
NOW = Now(10_000.0, 500.0, 0.5, "n")
ANSWERS = {
    "fresh": 10.0,
    "fresh, and due for a refresh ahead": 50.0,
    "stale": 100.0,
    "none": None,
    "older than max-stale": 2000.0,
    "refused by the upstream": 100.0,
}
LOCKS = {
    "live": [Lock(NOW.store - 29.0, "x", 30.0), Lock(NOW.store - 119.0, "v2", None), Lock(NOW.store + 1e6, "x", 30.0)],
    "none": [None, Lock(NOW.store - 30.0, "x", 30.0), Lock(NOW.store - 120.0, "v2", None)],
}
BACKOFFS = {"running": [1.0], "none": [0.0, -50.0]}
"""Seconds from now until the next call is due."""


def rows() -> list[list[str]]:
    table = re.search(r"(?m)^\| answer in hand .*\n\|[-|]+\n((?:\|.*\n)+)", (SPEC / "refresh.md").read_text())
    assert table, "refresh.md has no table"
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def situations(row: list[str]):
    """Every answer, lock and back-off that the row stands for."""
    answers = [row[0]]
    locks = LOCKS if row[1] == "any" else [row[1]]
    backoffs = BACKOFFS if row[2] == "any" else [row[2]]
    return itertools.product(answers, locks, backoffs)


def test_the_table_has_one_row_for_every_situation():
    covered = [situation for row in rows() for situation in situations(row)]
    assert sorted(covered) == sorted(itertools.product(ANSWERS, LOCKS, BACKOFFS))


@pytest.mark.parametrize("row", rows(), ids=lambda row: "-".join(row[:3]))
def test_the_table_is_what_the_code_does(row):
    for answer, lock, backoff in situations(row):
        for record in records(answer, lock, backoff):
            held = absorb(POLICY, NOTHING, record, Version("v"), NOW)
            assert done(judge(POLICY, held, record, NOW)) == row[3], record


def records(answer: str, lock: str, backoff: str):
    """Every record that puts a node which knew nothing into this situation."""
    age, refused = ANSWERS[answer], answer.startswith("refused")
    found = None if age is None else Answer("a", NOW.store - age)
    for standing, wait in itertools.product(LOCKS[lock], BACKOFFS[backoff]):
        due = NOW.store + wait
        yield Record("n", found, standing, Failure(1, "x", "x", due - 2.0, due, authoritative=refused))
        if backoff == "none" and not refused:
            yield Record("n", found, standing)


def done(verdict) -> str:
    match verdict:
        case Serve(Give(_, _, state), _):
            return f"serve it as {state}"
        case Serve(Fail(), _):
            return "serve the failure"
        case Follow():
            return "follow"
        case Lead():
            return "lead"
