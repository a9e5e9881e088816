"""The command `kvcache`, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import kvcache
from kvcache.codec import encode
from kvcache.record import Answer, Failure, Lock, Record


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
        (["get", "memory://"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
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


def test_put_absent(url):
    assert run("put", "--absent", url, "k", stdin=b"1")[0] == 0
    assert run("put", "--absent", url, "k", stdin=b"2")[0] == 1
    assert run("get", url, "k")[1] == b"1"


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
    assert "unreadable" in text and "v1--app" not in text
    facts = json.loads(run("inspect", url, key, "--json")[1])[0]
    assert 85 < facts["age"] < 200 and facts["lock"]["by"] == "host-a:42"
    assert 0 < facts["failure"]["next_call_in"] <= 600


def test_help_needs_no_cloud_client():
    script = "import sys, kvcache.cli; sys.exit(any(m in sys.modules for m in ('s3fs', 'gcsfs', 'redis', 'fsspec')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert run("--help")[0] == 0
