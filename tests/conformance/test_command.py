"""`kvcache conformance`, as a process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from kvcache.conformance.command import Examination
from kvcache.conformance.page import as_page
from kvcache.conformance.report import as_line, as_summary
from tests.conformance.subjects import url_of


def run(*arguments: str, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "kvcache.cli", "conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env=env,
    )
    return done.returncode, done.stdout, done.stderr


class Page(HTMLParser):
    """Its text, what it would fetch, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.links, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_sound_store(tmp_path):
    url = f"file://{tmp_path}/store?locking=flock"
    code, out, err = run(
        url, "--seed", "7", "--json", str(tmp_path / "report.json"), "--html", str(tmp_path / "report.html")
    )
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    most = int(re.search(r"at most ([\d,]+) requests", first)[1].replace(",", ""))
    assert url in first
    assert len([line for line in lines if line.startswith("kept")]) > 35
    assert lines[-1].startswith("Fit for a cache shared by the nodes of one host")

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fit"] is True
    assert report["seed"] == 7
    assert 100 < report["requests"] <= report["most_requests"] == most
    assert {"python", "kvcache-dewy"} <= set(report["versions"])
    assert len(report["promises"]) == len(lines) - 2
    assert report["capabilities"]["scope"] == "host"

    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert page.links == []
    for shown in (url, "--seed 7", report["judgement"], report["began"], "What is read is byte for byte"):
        assert shown in page.text
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file() and ".kvcache" not in path.parts] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense://x"], "unknown scheme"),
        (["memory://?sise=1"], "sise"),
        (["memory://", "--seed", "many"], "--seed"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage(arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_store_that_is_not_there(tmp_path):
    code, out, err = run("redis://user:secret@127.0.0.1:1/0", "--json", str(tmp_path / "json"), "--time-limit", "5")
    assert code == 1
    assert "secret" not in out + err


def test_a_broken_store_ends_with_one(nanio, monkeypatch, tmp_path):
    for name, value in nanio.env.items():
        monkeypatch.setenv(name, value)
    code, out, _ = run(url_of(nanio), "--seed", "1", "--time-limit", "25", "--html", str(tmp_path / "report.html"))
    assert code == 1
    assert re.search(r"^BROKEN +stale ", out, re.MULTILINE)
    assert re.search(r"^ +\| write_if .* due was Conflict$", out, re.MULTILINE)
    assert "its conditional writes cannot be trusted" in out.splitlines()[-1]
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert "due was Conflict" in page.text
    assert nanio.secret_key not in page.text + out


def test_what_is_written_into_the_page_is_text():
    with Examination("memory://<script>alert(1)</script>", seed=1) as examination:
        report = examination.run(time_limit=60)
    page = as_page(report)
    assert "<script" not in page
    assert Page(page).open == []
    assert "<script>" in Page(page).text
    assert as_summary(report).splitlines()[1] == report.judgement
    assert as_line(report.findings[0]).startswith("kept")
