"""The command `kvcache`, as a process."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time

import pytest

import kvcache
from kvcache.backends.memory import MemoryStore
from kvcache.codec import encode
from kvcache.inspection import as_text, inspect_all
from kvcache.record import Answer, Failure, Lock, Record
from kvcache.terminal import progress


def run(*arguments: str, stdin: bytes = b""):
    done = subprocess.run(
        [sys.executable, "-m", "kvcache.cli", *arguments], input=stdin, capture_output=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/store?locking=flock"


def test_values(url, tmp_path):
    assert run("put", url, "a/b", stdin=b"\x00binary")[0] == 0
    assert run("get", url, "a/b") == (0, b"\x00binary", "")
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert run("put", url, "c", str(tmp_path / "file"))[0] == 0
    assert run("get", url, "c", str(tmp_path / "copy"))[0] == 0
    assert (tmp_path / "copy").read_bytes() == b"x" * 100_000
    assert run("ls", url)[1] == b"a/b\nc\n"
    assert run("ls", url, "a")[1] == b"a/b\n"
    assert json.loads(run("stat", url, "c", "--json")[1])["size"] == 100_000
    assert run("rm", url, "c")[0] == run("rm", url, "c")[0] == 0
    assert run("ls", url)[1] == b"a/b\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["get", "file:///nowhere-at-all", "k"], 1, "not found: k"),
        (["get", "memory://", "../k"], 2, "path traversal"),
        (["get", "nonsense://x", "k"], 2, "unknown scheme 'nonsense'"),
        (["get", "memory://?sise=3", "k"], 2, "sise"),
        (["get", "memory://"], 2, "Missing argument 'KEY'. See 'kvcache get --help'"),
        (["frobnicate"], 2, "No such command 'frobnicate'. See 'kvcache --help'"),
        ([], 2, "Missing command. See 'kvcache --help'"),
        (["get", "memory://", "k", "/nowhere-at-all/file"], 2, "expected a file in a directory that exists"),
        (["get", "memory://", "k", "/"], 2, "is a directory"),
        (["put", "memory://", "k", "/nowhere-at-all"], 2, "does not exist"),
        (["stat", "memory://", "k"], 1, "not found: k"),
        (["inspect", "memory://", "k"], 1, "not found: k"),
        (["ls", "redis://user:geheim@127.0.0.1:1/0?timeout=100ms"], 1, "redis://user:***@127.0.0.1:1/0"),
        (["put", "--absent", "file:///nowhere-at-all", "k"], 1, "Unsupported"),
    ],
)
def test_errors_are_one_line(arguments, code, says, tmp_path):
    arguments = [part.replace("/nowhere-at-all", str(tmp_path / "empty")) for part in arguments]
    returned, out, err = run(*arguments)
    assert (returned, out) == (code, b"")
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("kvcache: ")
    assert "geheim" not in err and "Traceback" not in err


def test_put_absent(url):
    assert run("put", "--absent", url, "k", stdin=b"1")[0] == 0
    refused = run("put", "--absent", url, "k", stdin=b"2")
    assert refused == (1, b"", "kvcache: k: there is a value already; nothing was written\n")
    assert run("get", url, "k", "-")[1] == b"1"


def test_stat_is_for_people_unless_json_is_wanted(url):
    run("put", url, "k", stdin=b"123")
    text = run("stat", url, "k")[1].decode()
    assert re.search(r"^size: 3 bytes\nversion: \S+\nmodified: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, .+s ago$", text, re.M)
    facts = json.loads(run("stat", url, "k", "--json")[1])
    assert abs(facts["modified"] - time.time()) < 300


def test_a_reader_that_stops_reading_is_no_error(url, tmp_path):
    run("put", url, "k", stdin=bytes(4_000_000))
    script = f"{sys.executable} -m kvcache.cli get '{url}' k 2>'{tmp_path}/err' | head -c 1 | wc -c"
    assert subprocess.run(script, shell=True, capture_output=True, timeout=60).stdout.strip() == b"1"
    assert (tmp_path / "err").read_bytes() == b""


def test_progress_is_shown_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    now = [0.0]
    monkeypatch.setattr("kvcache.terminal.time.monotonic", lambda: now[0])
    for screen, told in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", screen)
        with progress("key", 4 * 2**20) as shown:
            assert (shown is not None) is told
            if shown is not None:
                shown(2**20)  # over at once: not worth a line
                assert screen.getvalue() == ""
                now[0] += 1
                shown(3 * 2**20)
                assert screen.getvalue().endswith("key: 3.0 MiB of 4.0 MiB, 75 %")
        assert screen.getvalue().endswith("\r\x1b[K" if told else "")
        assert bool(screen.getvalue()) is told


def test_inspect_tells_whose_lock_how_old_and_why(url):
    now = time.time()
    record = Record(
        "n",
        Answer({"Tag": "v1"}, now - 90),
        Lock(now - 10, "host-a:42", 30.0),
        Failure(3, "rate-limited", "API rate limit exceeded", now - 20, now + 600),
    )
    key = "registry-cache/0123456789abcdef.json"
    with kvcache.open_store(url) as store:
        store.write(key, encode(record))
        store.write("registry-cache/0123456789abcdee.json", b"garbage")
        store.write("v1--app.tar.gz", b"no record")
    code, out, err = run("inspect", url)
    text = out.decode()
    assert (code, err) == (0, "")
    assert "host-a:42" in text and "of its lease" in text
    assert "failed 3 time(s)" in text and "API rate limit exceeded" in text
    assert "no record: not JSON" in text and "v1--app" not in text
    facts = json.loads(run("inspect", url, key, "--json")[1])[0]
    assert 85 < facts["age"] < 200 and facts["lock"]["by"] == "host-a:42"
    assert 0 < facts["failure"]["next_call_in"] <= 600
    assert 'value: {"Tag": "v1"}' in text and facts["value"] == {"Tag": "v1"}


def test_inspect_finds_the_records_of_any_library_user(url):
    assert (
        run("inspect", url)[1]
        == b"no records where dewy keeps its own: name a KEY, or look under every key with --all\n"
    )

    def refuse(ctx):
        raise kvcache.UpstreamError("401 https://user:geheim@host/", authoritative=True)

    with kvcache.open_store(url) as store:
        cache = kvcache.SharedCache(store, ttl=30)
        cache.get("one", lambda ctx: "an answer")
        with pytest.raises(kvcache.UpstreamUnavailable):
            cache.get("two", refuse)
        store.write("no record", b"{}")
        store.write("large", bytes(2**20 + 1))
    text = run("inspect", url, "--all")[1].decode()
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["one", "", "two"]
    assert 'value: "an answer"' in text
    assert "why: authoritative: 401 https://user:***@host/" in text and "geheim" not in text
    assert "the upstream means it" in text
    assert "no record: neither fetched_at nor locked_at" in run("inspect", url, "no record")[1].decode()


def test_inspect_outlives_what_vanishes_and_what_is_damaged(monkeypatch):
    store = MemoryStore()
    for name in "abc":
        store.write(f"registry-cache/{name * 16}.json", encode(Record("n", Answer(name, time.time()))))
    read = store.read_versioned

    def read_versioned(key):
        if "a" * 16 in key:
            raise kvcache.NotFound(key)
        if "b" * 16 in key:
            raise kvcache.CorruptRecord("part 2 of 3 is damaged")
        return read(key)

    monkeypatch.setattr(store, "read_versioned", read_versioned)
    damaged, sound = inspect_all(store, everywhere=False)
    assert as_text(damaged).endswith("no record: part 2 of 3 is damaged; a refresh under this key would replace it")
    assert sound["value"] == "c"


def test_help_needs_no_cloud_client():
    script = "import sys, kvcache.cli; sys.exit(any(m in sys.modules for m in ('s3fs', 'gcsfs', 'redis', 'fsspec')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert run("--help")[0] == 0
