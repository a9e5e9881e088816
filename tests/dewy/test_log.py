"""`dewy.log`: both forms, compared with what Go's `slog` (1.26) wrote for the same records; secrets; one line each."""

import io
import json
import logging
import re
import warnings
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.log import JSONFormatter, Log, Redactor, TextFormatter, seconds, set_up
from dewy.quoting import go_quote, needs_quotes

GO_TEXT = {
    "": '""',
    "plain": "plain",
    "a b": '"a b"',
    "a=b": '"a=b"',
    'a"b': r'"a\"b"',
    "a\\b": "a\\b",
    "tab\t": r'"tab\t"',
    "nl\n": r'"nl\n"',
    "del\x7f": "del\x7f",
    "del \x7f": r'"del \x7f"',
    "é": "é",
    "日本": "日本",
    "\u00a0": r'"\u00a0"',
    "\u2028x": r'"\u2028x"',
    "\u200b": r'"\u200b"',
    "a\u0301": "a\u0301",
    "\udcff": r'"\xff"',
    "x\udcffy z": r'"x\xffy z"',
    "😀": "😀",
    "\U000e0001": r'"\U000e0001"',
    "\x00": r'"\x00"',
    "\x1b[31m": r'"\x1b[31m"',
    "<a&b>": "<a&b>",
    "{}": "{}",
    "[x]": "[x]",
    "'": "'",
    "\b\f\v\a\r": r'"\b\f\v\a\r"',
}
GO_JSON = {
    "\u2028x": r'"\u2028x"',
    "\udcff": '"\ufffd"',
    "x\udcffy z": '"x\ufffdy z"',
    "<a&b>": '"<a&b>"',
    "日本": '"日本"',
    "\x1b[31m": r'"\u001b[31m"',
}


@pytest.fixture
def root_logger():
    """What `set_up` changes is put back."""
    root, ours = logging.getLogger(), logging.getLogger("dewy")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before
    logging.captureWarnings(False)


def logged(write, *, level="DEBUG", form="text", env=None) -> list[str]:
    stream = io.StringIO()
    set_up(level, form, env or {}, stream)
    write(Log())
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("text", GO_TEXT)
def test_quoting_is_go_s(text: str) -> None:
    assert (go_quote(text) if needs_quotes(text) else text) == GO_TEXT[text]


def record(message: str, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("dewy", logging.INFO, "", 0, message, None, None)
    made.created = datetime(2026, 11, 24, 20, 39, 11, 90123, UTC).timestamp()
    made.dewy_facts = facts
    return made


@pytest.fixture
def utc(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FACTS = {
    "d": timedelta(seconds=90),
    "e": timedelta(microseconds=1234567),
    "b": True,
    "f": 0.1,
    "g": 1e21,
    "h": 5.0,
    "n": None,
    "l": ["a", "b c"],
    "m": {"a": 1, "b": 2},
    "z": -3,
    "t": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "s": [],
    "p": Path("/a b"),
    "x": ValueError("two\nlines"),
}


def test_text_form(utc) -> None:
    line = TextFormatter(Redactor({})).format(record("Registry result cache enabled", ttl=seconds(30)))
    assert line == 'time=2026-11-24T20:39:11.090Z level=INFO msg="Registry result cache enabled" ttl=30s'
    line = TextFormatter(Redactor({})).format(record("types", **FACTS))
    assert line.split("msg=")[1] == (
        'types d=1m30s e=1.234567s b=true f=0.1 g=1e+21 h=5 n=<nil> l="[a b c]" m="map[a:1 b:2]" z=-3 '
        't=2026-01-02T03:04:05.000Z s=[] p="/a b" x="two lines"'
    )


def test_json_form(utc) -> None:
    line = JSONFormatter(Redactor({})).format(record("Registry result cache enabled", ttl=seconds(30)))
    assert line == (
        '{"time":"2026-11-24T20:39:11.090123Z","level":"INFO","msg":"Registry result cache enabled","ttl":30000000000}'
    )
    facts = json.loads(JSONFormatter(Redactor({})).format(record("types", **FACTS)))
    assert facts["d"] == 90000000000
    assert facts["e"] == 1234567000
    assert (facts["b"], facts["n"], facts["l"], facts["m"]) == (True, None, ["a", "b c"], {"a": 1, "b": 2})
    assert (facts["t"], facts["p"], facts["x"]) == ("2026-01-02T03:04:05Z", "/a b", "two lines")


@pytest.mark.parametrize("text", GO_JSON)
def test_json_text_is_go_s(text: str) -> None:
    assert f'"v":{GO_JSON[text]}' in JSONFormatter(Redactor({})).format(record("m", v=text))


@given(st.text(), st.text())
def test_a_record_is_one_line_that_can_be_written(message: str, value: str) -> None:
    made = record(message, v=value)
    for formatter in (TextFormatter(Redactor({})), JSONFormatter(Redactor({}))):
        line = formatter.format(made)
        assert len(line.splitlines()) == 1
        line.encode()  # no lone surrogates
    facts = json.loads(line)
    assert facts["v"] == re.sub("[\ud800-\udfff]", "\ufffd", value)


@given(st.dictionaries(st.from_regex("[a-z_]{1,9}", fullmatch=True), st.text(max_size=9), max_size=4))
def test_both_forms_carry_the_same_facts(facts: dict[str, str]) -> None:
    made = record("m", **facts)
    as_json = json.loads(JSONFormatter(Redactor({})).format(made))
    as_text = TextFormatter(Redactor({})).format(made)
    assert list(as_json) == ["time", "level", "msg", *[name for name in facts if name not in ("time", "level", "msg")]]
    for name in facts:
        assert f" {name}=" in f" {as_text}"


def test_local_time_has_its_offset(monkeypatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert TextFormatter(Redactor({})).format(record("m")).startswith("time=2026-11-25T05:39:11.090+09:00 ")
    finally:
        monkeypatch.undo()
        time.tzset()
    zone = timezone(timedelta(hours=-3, minutes=-30))
    moment = datetime(2026, 1, 2, tzinfo=zone)
    assert "t=2026-01-02T00:00:00.000-03:30" in TextFormatter(Redactor({})).format(record("m", t=moment))


@pytest.mark.parametrize("form", ["text", "json"])
def test_levels(root_logger, form: str) -> None:
    def write(log: Log) -> None:
        log.debug("d")
        log.info("i")
        log.warn("w")
        log.error("e")

    def levels(lines: list[str]) -> list[str]:
        return [re.search(r'level"?[=:]"?([A-Z]+)', line)[1] for line in lines]

    assert levels(logged(write, level="DEBUG", form=form)) == ["DEBUG", "INFO", "WARN", "ERROR"]
    assert levels(logged(write, level="WARN", form=form)) == ["WARN", "ERROR"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_only_at_debug_and_on_one_line(root_logger, form: str) -> None:
    def write(log: Log) -> None:
        try:
            raise ValueError("boom\nand more")
        except ValueError as error:
            log.exception("Dewy run failure", error)

    [line] = logged(write, level="INFO", form=form)
    assert "boom and more" in line and "Traceback" not in line
    [line, trace] = logged(write, level="DEBUG", form=form)
    assert "test_log.py" in trace and "Traceback" in trace


def test_secrets_of_the_environment_never_appear(root_logger) -> None:
    env = {
        "GH_TOKEN": "ghp_verysecret",
        "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn",
        "GITHUB_APP_PRIVATE_KEY": "-----BEGIN KEY-----\nMIIEabc\n-----END KEY-----",
        "GITHUB_APP_PRIVATE_KEY_PATH": "/etc/dewy/key.pem",
        "SHORT_TOKEN": "a",
        "HOME": "/home/someone",
    }

    def write(log: Log) -> None:
        log.info("calling with ghp_verysecret", header="Bearer ghp_verysecret", many=["x ghp_verysecret"])
        log.info("m", map={"key": "wJalr/XUtn"}, error=ValueError("403 for ghp_verysecret"))
        log.info("m", line="MIIEabc", path="/etc/dewy/key.pem", home="/home/someone", a="a")
        try:
            raise ValueError("token ghp_verysecret")
        except ValueError as error:
            log.exception("failed", error)
        logging.getLogger("urllib3").warning("retry %s", "ghp_verysecret")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("ghp_verysecret", stacklevel=1)

    for form in ("text", "json"):
        lines = logged(write, form=form, env=env)
        out = "\n".join(lines)
        assert len(lines) == 7
        for secret in ("ghp_verysecret", "wJalr", "MIIEabc"):
            assert secret not in out
        assert "***" in out and "/etc/dewy/key.pem" in out and "/home/someone" in out


def test_passwords_of_urls_never_appear(root_logger) -> None:
    def write(log: Log) -> None:
        log.error("cannot reach redis://user:hunter2@host:6379/0", url="rediss://:hunter2@h")

    for form in ("text", "json"):
        [line] = logged(write, form=form)
        assert "hunter2" not in line and "host:6379" in line


def test_other_libraries_are_heard_from_warning_on(root_logger) -> None:
    def write(log: Log) -> None:
        logging.getLogger("urllib3").info("chatter")
        logging.getLogger("urllib3").warning("trouble %d", 1)

    [line] = logged(write, level="DEBUG")
    assert line.endswith('level=WARN msg="trouble 1" logger=urllib3')
