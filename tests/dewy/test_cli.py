"""`dewy` as a command: real processes, since what counts is what a shell sees."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy import cli
from dewy.errors import StartFailed

HEAVY = ("s3fs", "gcsfs", "adlfs", "fsspec", "botocore", "redis", "urllib3", "py7zr", "zstandard", "jwt", "asyncio")


ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def dewy(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dewy", *args],
        cwd=cwd,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("args", ["--help", "-h", "server --help", "assets -h", "--help server", "demo --help"])
def test_help_is_on_stdout_and_succeeds(tmp_path: Path, args: str) -> None:
    """B12."""
    done = dewy(*args.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: dewy" in done.stdout
    assert list(tmp_path.iterdir()) == []  # C19: looking creates nothing


@pytest.mark.parametrize("args", [["version"], ["--version"], ["-v"], ["server", "--version"], ["-v", "assets"]])
def test_version(tmp_path: Path, args: list[str]) -> None:
    done = dewy(*args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"dewy version: \S+\n", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args", ["--version -f json", "-f json -v", "server --log-format=JSON --version", "-fjson -v", "version -f=json"]
)
def test_version_as_a_record(tmp_path: Path, args: str) -> None:
    done = dewy(*args.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    record = json.loads(done.stderr)
    assert list(record) == ["time", "level", "msg", "version", "commit", "date"]
    assert (record["level"], record["msg"]) == ("INFO", "Dewy version")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from dewy.cli import main\n"
        "try: main(['server', '--help'])\n"
        "finally: print('MODULES', *sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=60
    )
    modules = done.stdout.partition("MODULES ")[2].split()
    assert "click" in modules
    assert [name for name in modules if name.partition(".")[0] in (*HEAVY, "kvcache")] == []


FILES = "file:///nowhere"
WRONG = {
    "no command": ([], "command", "one of server, assets, "),
    "options alone": (["--registry", FILES], "command", "one of server"),
    "unknown command": (["container", "--registry", FILES], "'container'", "one of server"),
    "unknown option": (["server", "--registri", FILES], "--registri", "did you mean --registry?"),
    "option without value": (["assets", "--registry"], "--registry", "requires an argument"),
    "flag with value": (["assets", "--telemetry=1"], "--telemetry", "not take a value"),
    "no registry": (["assets"], "--registry", "ghr://owner/repo"),
    "registry without scheme": (["assets", "--registry", "owner/repo"], "'owner/repo'", "scheme://"),
    "unknown registry": (["assets", "--registry", "ftp://h/d"], "ftp://h/d", "ghr"),
    "registry without repository": (["assets", "--registry", "ghr://owner"], "ghr://owner", "ghr://"),
    "unknown registry parameter": (["assets", "--registry", "ghr://o/r?prerelease=true"], "prerelease", "pre-release"),
    "malformed registry parameter": (["assets", "--registry", "ghr://o/r?pre-release=maybe"], "maybe", "pre-release"),
    "bad calver": (["assets", "--registry", FILES, "--calver", "major"], "major", "YYYY"),
    "no application": (["server", "--registry", FILES], "COMMAND", "-- COMMAND"),
    "bad port": (["server", "--registry", FILES, "-p", "http", "--", "x"], "--port", "8000"),
    "bad interval": (["assets", "--registry", FILES, "-i", "0x10"], "--interval", "30s"),
    "zero interval": (["assets", "--registry", FILES, "--interval=0"], "--interval", "30s"),
    "bad level": (["assets", "--registry", FILES, "-l", "loud"], "'loud'", "debug, info, warn or error"),
    "bad format": (["assets", "--registry", FILES, "-f=xml"], "'xml'", "text or json"),
    "unknown cache": (["assets", "--registry", FILES, "-c", "carrier-pigeon://x"], "carrier-pigeon", "file, memory"),
    "bad ttl": (["assets", "--registry", FILES, "-c", "memory://?registry-ttl=30"], "registry-ttl", "30s"),
    "unknown cache parameter": (["assets", "--registry", FILES, "-c", "memory://?ttl=30s"], "ttl", "max-size"),
    "unknown notifier": (["assets", "--registry", FILES, "--notifier", "pager://x"], "--notifier", "pager://"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """B1, B12."""
    args, *parts = WRONG[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("dewy: ")
    for part in parts:
        assert part in line


def test_wrong_usage_in_a_shell(tmp_path: Path) -> None:
    done = dewy("assets", "--registry", "ghr://o/r?prerelease=true", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dewy: --registry: ghr://o/r?prerelease=true: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_a_refused_url_is_not_shown(tmp_path: Path) -> None:
    done = dewy("assets", "--registry", FILES, "-c", "redis://u:hunter2@h/0?nope=1", cwd=tmp_path)
    assert done.returncode == 2 and "hunter2" not in done.stderr and "nope" in done.stderr


# -- where options may stand -------------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch):
    """What `dewy server` would run with."""
    runs = []
    monkeypatch.setattr("dewy.cli._run", lambda mode, command, options: runs.append((mode, command, options)) or 0)

    def parse(*args: str):
        with pytest.raises(SystemExit) as ended:
            cli.main(args)
        assert ended.value.code == 0
        mode, command, options = runs.pop()
        return mode, command, {name: value for name, value in options.items() if value is not None and value != ()}

    return parse


@pytest.mark.parametrize(
    "args",
    [
        ["server", "--registry", "R", "-i", "5", "-p", "80", "-p", "81", "--", "app", "-x", "--registry"],
        ["--registry", "R", "server", "-i5", "-p", "80", "-p81", "--", "app", "-x", "--registry"],
        ["--registry=R", "-i=5", "-p=80", "--port=81", "server", "--", "app", "-x", "--registry"],
        ["-p", "80", "server", "-i", "5", "-p", "81", "--registry=Q", "--registry=R", "--", "app", "-x", "--registry"],
        ["--registry", "R", "-i", "5", "-p", "80", "-p", "81", "server", "app", "--", "-x", "--registry"],
    ],
)  # fmt: skip
def test_options_before_and_after_the_command_and_in_every_form(taken, args: list[str]) -> None:
    mode, command, options = taken(*args)
    assert (mode, command) == ("server", ("app", "-x", "--registry"))
    assert options == {"registry": "R", "interval": "5", "port": ("80", "81")}


def test_a_value_that_looks_like_a_command_is_a_value(taken) -> None:
    mode, _, options = taken("--slot", "assets", "server", "--registry", "R", "app")
    assert (mode, options["slot"]) == ("server", "assets")


SHORT = {"-i": "interval", "-c": "cache", "-s": "slot", "-l": "log_level", "-f": "log_format"}
VALUES = st.sampled_from(["server", "assets", "-v", "--version", "-h", "a=b", "-x=1", "5", " ", "--registry"])
FORMS = {
    "apart": lambda short, value: [short, value],
    "joined": lambda short, value: [f"{short}{value}"],
    "with =": lambda short, value: [f"{short}={value}"],
    "long": lambda short, value: [f"--{SHORT[short].replace('_', '-')}", value],
    "long with =": lambda short, value: [f"--{SHORT[short].replace('_', '-')}={value}"],
}


@given(
    st.lists(st.tuples(st.sampled_from(list(SHORT)), VALUES, st.sampled_from(list(FORMS))), max_size=6),
    st.integers(0, 6),
    st.lists(VALUES, max_size=3),
)
def test_every_form_in_every_place_says_the_same(
    options: list[tuple[str, str, str]], at: int, command: list[str]
) -> None:
    words = [FORMS[form](short, value) for short, value, form in options]
    words.insert(min(at, len(words)), ["server"])
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("dewy.cli._run", lambda *ran: seen.append(ran) or 0)
        cli.main([*itertools.chain(*words), "--", *command])
    assert ended.value.code == 0
    [(mode, ran, given_options)] = seen
    assert (mode, ran) == ("server", tuple(command))
    expected = {SHORT[short]: value for short, value, _ in options}  # the last one counts
    assert {name: value for name, value in given_options.items() if value not in (None, ())} == expected


@pytest.mark.parametrize("value", ["-v", "--version", "-x=1", "-h", "server"])
def test_a_value_that_looks_like_an_option_is_a_value(taken, value: str) -> None:
    assert taken("--after-deploy-hook", value, "server", "app")[2] == {"after_deploy_hook": value}
    assert taken("server", f"--after-deploy-hook={value}", "app")[2] == {"after_deploy_hook": value}


def test_assets_takes_extra_words(taken) -> None:
    assert taken("assets", "--registry", "R", "whatever")[:2] == ("assets", ("whatever",))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StartFailed("cannot listen on port 80: in use"), "cannot listen on port 80: in use"),
        (PermissionError(13, "Permission denied", "/srv/state"), "/srv/state: permission denied"),
        (OSError(28, "No space left on device"), "no space left on device"),
        (ValueError("bad\nredis://u:hunter2@h/0"), "ValueError: bad redis://u:***@h/0"),
    ],
)
def test_an_error_at_work_is_one_line_and_exit_code_1(error: Exception, line: str, monkeypatch, capsys) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr("dewy.cli._run", fail)
    for level, traced in (("info", False), ("debug", True)):
        monkeypatch.setenv("DEWY_LOG_LEVEL", level)
        with pytest.raises(SystemExit) as ended:
            cli.main(["assets"])
        assert ended.value.code == 1
        first, _, rest = capsys.readouterr().err.partition("\n")
        assert first == f"dewy: {line}"
        assert "hunter2" not in rest
        assert ("Traceback" in rest) == (traced and isinstance(error, ValueError))
