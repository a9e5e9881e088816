"""`dewy.settings`, the TOML file, and `dewy config`: which value is in force, and where it comes from."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy import cli
from dewy.configfile import MOST_BYTES, interpret, read_config_file
from dewy.errors import ConfigError
from dewy.inforce import without_secrets
from dewy.options import OPTIONS, Option
from dewy.settings import Source, settle

VALUES = {
    "registry": ("file:///a", "file:///b", "file:///c"),
    "interval": ("1s", "2s", "3s"),
    "tick-timeout": ("1m", "2m", "3m"),
    "slot": ("blue", "green", "red"),
    "calver": ("YYYY.MICRO", "YY.MICRO", "YYYY.0M"),
    "fallback": ("true", "false", "true"),
    "checksums": ("require", "off", "auto"),
    "signature-key": tuple(base64.b64encode(b"Ed" + bytes([key]) * 40).decode() for key in (1, 2, 3)),
    "keep": ("1", "2", "3"),
    "rollback": ("false", "true", "false"),
    "cache": ("file:///a", "memory://", "file:///c"),
    "port": ("8001", "8002", "8003"),
    "health-path": ("/a", "/b", "/c"),
    "health-timeout": ("1s", "2s", "3s"),
    "health-port": ("1", "2", "3"),
    "drain-time": ("1s", "2s", "3s"),
    "before-deploy-hook": ("a", "b", "c"),
    "after-deploy-hook": ("a", "b", "c"),
    "hook-timeout": ("1s", "2s", "3s"),
    "before-hook-vetoes": ("true", "false", "true"),
    "notifier": ("slack://a", "slack://b", "slack://c"),
    "notify-once": ("true", "false", "true"),
    "telemetry": ("true", "false", "true"),
    "otlp-endpoint": ("a:1", "b:2", "c:3"),
    "otlp-insecure": ("true", "false", "true"),
    "admin-port": ("1", "2", "3"),
    "admin-host": ("a", "b", "c"),
    "log-level": ("debug", "warn", "error"),
    "log-format": ("json", "text", "json"),
}
"""Of each option: a value for the flag, one for the environment, one for the file."""
KEY = VALUES["signature-key"][0]
IN_FILE = [option for option in OPTIONS if option.in_file]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("DEWY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(args)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def in_force(run: Any) -> Any:
    """What `dewy config --json` says with these words."""

    def ask(*args: str) -> Any:
        code, out, err = run("config", "--json", *args)
        assert (code, err) == (0, "")
        return json.loads(out)

    return ask


def written(option: Option, text: str) -> str:
    """A line of a TOML file."""
    return f"{option.name} = {text if option.kind.is_flag else json.dumps(text)}\n"


def typed(option: Option, text: str) -> list[str]:
    """An option on a command line."""
    if option.kind.is_flag:
        return [option.flag if text == "true" else f"--no-{option.name}"]
    return [option.flag, text]


def expected(option: Option, text: str) -> Any:
    if option.kind.is_flag:
        return text == "true"
    value = int(text) if option.kind.numbers and text.isdecimal() else option.show(text)
    return [text if option.show(text) == text else option.show(text)] if option.repeatable else value


def test_every_option_is_in_this_table() -> None:
    assert list(VALUES) == [option.name for option in IN_FILE]


@pytest.mark.parametrize("option", IN_FILE, ids=lambda option: option.name)
def test_flag_before_environment_before_file_before_default(
    option: Option, in_force: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flag, variable, key = VALUES[option.name]
    file = tmp_path / "dewy.toml"

    def found(*args: str) -> tuple[Any, str, str | None]:
        entry = in_force(*args)["options"][option.name]
        return entry["value"], entry["source"], entry["place"]

    by_default = [option.default] if option.repeatable and option.default else [] if option.repeatable else None
    if option.default and not option.repeatable:
        by_default = expected(option, option.default)
    assert found() == (by_default, "default", None)
    file.write_text(written(option, key))
    assert found("--config", str(file)) == (expected(option, key), "file", f"{file}: {option.name}")
    monkeypatch.setenv(option.variable, variable)
    assert found("--config", str(file)) == (expected(option, variable), "environment", option.variable)
    assert found(*typed(option, flag), "--config", str(file)) == (expected(option, flag), "flag", option.flag)
    monkeypatch.setenv(option.variable, "")  # empty: not set
    assert found("--config", str(file))[1] == "file"


@pytest.mark.parametrize("option", [o for o in IN_FILE if o.short], ids=lambda option: option.name)
def test_short_options_in_every_form(option: Option, in_force: Any) -> None:
    text, _, _ = VALUES[option.name]
    for form in ([f"-{option.short}", text], [f"-{option.short}{text}"], [f"-{option.short}={text}"]):
        assert in_force(*form)["options"][option.name]["value"] == expected(option, text)


def test_an_empty_flag_takes_back_what_the_environment_says(in_force: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEWY_SLOT", "blue")
    assert in_force("--slot", "")["options"]["slot"] == {"value": None, "source": "flag", "place": "--slot"}


def test_several_values(in_force: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ports(*args: str) -> Any:
        return in_force(*args)["options"]["port"]["value"]

    (tmp_path / "f").write_text('port = [8000, "127.0.0.1:9000", "7000-7003"]\n')
    assert ports("--config", "f") == ["8000", "127.0.0.1:9000", "7000-7003"]
    (tmp_path / "f").write_text("port = 8000\n")
    assert ports("--config", "f") == ["8000"]
    monkeypatch.setenv("DEWY_PORT", "8000, 8001  8002,8003")
    assert ports() == ["8000,", "8001", "8002,8003"]
    assert ports("-p", "1", "--port=2") == ["1", "2"]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_command_may_stand_in_the_file(run: Any, in_force: Any, tmp_path: Path, monkeypatch: Any) -> None:
    runs = []
    monkeypatch.setattr("dewy.assembly.run", lambda config, env: runs.append(config) or 0)
    (tmp_path / "dewy.toml").write_text('registry = "file:///r"\ncommand = ["./current/app", "-x"]\n')
    monkeypatch.setenv("DEWY_CONFIG", "dewy.toml")
    assert run("server") == (0, "", "")
    assert run("server", "--", "other", "-y") == (0, "", "")
    assert [config.command for config in runs] == [("./current/app", "-x"), ("other", "-y")]
    assert in_force("server")["command"] == {"value": ["./current/app", "-x"], "place": "dewy.toml"}
    assert in_force("server", "--", "other")["command"] == {"value": ["other"], "place": None}


WRONG_FILES = {
    "unknown key": ("intervall = 3", "intervall", "did you mean interval?"),
    "underscores": ("log_level = 'info'", "log_level", "did you mean log-level?"),
    "unlike anything": ("zzzzzz = 3", "zzzzzz", "dewy server --help"),
    "table": ("[server]\nregistry = 'x'", "server", "no such key"),
    "config in it": ("config = 'other.toml'", "config", "no such key"),
    "boolean for a text": ("registry = true", "registry: a boolean", "a text"),
    "number for a text": ("slot = 3", "slot: a number", "a text"),
    "text for a flag": ("telemetry = 'yes'", "telemetry: a text", "true or false"),
    "number for a flag": ("telemetry = 1", "telemetry: a number", "true or false"),
    "list for a scalar": ("interval = ['1s', '2s']", "interval: a list", "a text or a number"),
    "table for a scalar": ("cache = { url = 'redis://u:hunter2@h' }", "cache: a table", "a text"),
    "mixed list": ("port = [8000, true]", "port: a list", "a text or a number, or a list of them"),
    "date": ("interval = 2026-01-01", "interval: a date", "a text or a number"),
    "bad value": ("interval = 'soon'", "interval: 'soon'", "30s"),
    "negative number": ("keep = -1", "keep: '-1'", "a whole number from 1 to 10000"),
    "not a number": ("interval = nan", "interval: 'nan'", "30s"),
    "bad port": ("port = [8000, 'http']", "port: 'http'", "8000"),
    "bad registry": ("registry = 'ghr://o/r?nope=%'", "registry: ghr://o/r?nope=%", "hexadecimal"),
    "bad cache": ("cache = 'redis://u:hunter2@h/0?max-size=x'", "cache: redis://u:***@h/0", "64MiB"),
    "command as text": ("command = './app -x'", "command", 'a list of texts such as ["./current/app"'),
    "empty command": ("command = []", "command", "a list of texts"),
    "not TOML": ("interval: 3", "not TOML", "line 1"),
    "twice": ("keep = 1\nkeep = 2\n", "not TOML", "line 2"),
    "not UTF-8": (b"slot = '\xff'", "not UTF-8", "in UTF-8"),
    "too large": (b"#" * (MOST_BYTES + 1), "larger than", "a TOML file"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_one_line_and_exit_code_2(name: str, run: Any, tmp_path: Path) -> None:
    content, part, form = WRONG_FILES[name]
    file = tmp_path / "dewy.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run("assets", "--config", str(file))
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("dewy: ") and str(file) in line and part in line and form in line
    assert "hunter2" not in line


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_cannot_be_read(path: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for args in (["--config", path], []):
        code, out, err = run("config", *args)
        assert (code, out) == (2, "") and err.startswith(f"dewy: --config: {path}: ") and err.count("\n") == 1
        monkeypatch.setenv("DEWY_CONFIG", path)


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*VALUES, "command", "config"]) | st.text(max_size=10), toml_values, max_size=3))
def test_any_table_is_read_or_refused_in_one_line(content: dict[str, Any]) -> None:
    try:
        settle({}, {}, interpret(Path("f"), content)).values()
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith("f: ")


# -- environment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("DEWY_PORT", "tcp://10.0.0.1:80", "DEWY_PORT: 'tcp://10.0.0.1:80'"),  # Kubernetes, for a service named dewy
        ("DEWY_TELEMETRY", "maybe", "DEWY_TELEMETRY: 'maybe': true or false"),
        ("DEWY_INTERVAL", "0", "DEWY_INTERVAL: '0': at least 100ms"),
        ("DEWY_REGISTRY", "ftp://h/d", "DEWY_REGISTRY: ftp://h/d: unsupported registry"),
        ("DEWY_CALVER", "major", "DEWY_CALVER: calver format 'major'"),
        ("DEWY_CACHE", "carrier-pigeon://x", "DEWY_CACHE: carrier-pigeon://x"),
        ("DEWY_LOG_LEVEL", "loud", "DEWY_LOG_LEVEL: 'loud': debug, info, warn or error"),
    ],
)
def test_an_error_names_the_variable(variable: str, value: str, part: str, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("DEWY_REGISTRY", "file:///nowhere")
    monkeypatch.setenv(variable, value)
    code, out, err = run("assets")
    assert (code, out) == (2, "")
    assert err.startswith(f"dewy: {part}") and err.count("\n") == 1


names = st.sampled_from([option.name for option in IN_FILE])


@given(st.dictionaries(names, st.just(("x",))), st.sets(names), st.dictionaries(names, st.just(("y",))))
def test_one_source_wins_whatever_the_others_say(flags: Any, variables: set[str], file: Any) -> None:
    from dewy.configfile import ConfigFile

    env = {option.variable: "z" for option in OPTIONS if option.name in variables}
    settings = settle(flags, env, ConfigFile(Path("f"), file))
    for name, setting in settings.by_name.items():
        wanted = (
            Source.FLAG if name in flags
            else Source.ENVIRONMENT if name in variables
            else Source.FILE if name in file
            else Source.DEFAULT
        )  # fmt: skip
        assert setting.source is wanted


# -- dewy config -------------------------------------------------------------------------------------------------------


def test_what_is_in_force_as_text(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dewy.toml").write_text("keep = 3\n")
    monkeypatch.setenv("DEWY_SLOT", "blue")
    code, out, err = run(
        "config", "--config", "dewy.toml", "assets", "--registry", "file:///r", "-p", "80", "--", "a b"
    )
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    shown = {name: " ".join(rest.split()) for name, rest in lines}
    assert shown["registry"] == "file:///r --registry"
    assert shown["slot"] == "blue DEWY_SLOT"
    assert shown["keep"] == "3 dewy.toml: keep"
    assert shown["calver"] == "(not set) default"
    assert shown["command"] == "'a b' command line"
    assert out.endswith(
        "without effect: --port: assets starts no application\nwithout effect: COMMAND: assets starts no application\n"
    )


def test_a_line_for_every_option(run: Any) -> None:
    out = run("config")[1]
    assert [line.split()[0] for line in out.splitlines()] == [*(option.name for option in OPTIONS), "command", "cache"]


def test_the_cache_directory_is_told(in_force: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def directory(*args: str) -> Any:
        return in_force(*args)["cache_directory"]

    assert directory() == {"value": str(tmp_path / ".dewy" / "cache"), "place": None}
    assert directory("-c", "file:///srv/cache?max-size=1GiB") == {"value": "/srv/cache", "place": "--cache"}
    monkeypatch.setenv("DEWY_CACHEDIR", "x")
    assert directory("-c", "s3://region/bucket") == {"value": str(tmp_path / "x"), "place": "DEWY_CACHEDIR"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "part"),
    [(["server"], "--registry"), (["server", "--registry", "file:///r"], "COMMAND"), (["--keep", "0"], "--keep")],
)
def test_config_checks(args: list[str], part: str, run: Any) -> None:
    code, out, err = run("config", *args)
    assert (code, out) == (2, "") and err.startswith(f"dewy: {part}: ")


def test_config_shows_no_secret(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "tops3cret1")
    monkeypatch.setenv("DEWY_CACHE", "redis://u:tops3cret2@h/0")
    monkeypatch.setenv("DEWY_SIGNATURE_KEY", KEY)
    args = ["--registry", "ghr://o/r", "--notifier", "discord://id/tops3cret3", "--notifier", "json://tops3cret4@h"]
    args += ["--before-deploy-hook", "curl -H 'Authorization: Bearer tops3cret5' https://u:tops3cret6@h"]
    args += ["--otlp-endpoint", "https://u:tops3cret7@h", "--slot", "tops3cret1"]
    args += ["--", "app", "--password", "tops3cret8", "--api-key=tops3cret9", "pg://u:tops3cret0@h/d"]
    for form in ([], ["--json"]):
        code, out, err = run("config", "server", *form, *args)
        assert (code, err) == (0, "")
        assert "tops3cret" not in out and KEY in out and "discord://***" in out


def test_values_of_secret_options_of_a_command_are_hidden() -> None:
    words = ["app", "--token", "x", "--token", "--verbose", "-p", "80", "--token=y", "token"]
    assert without_secrets(words) == [
        "app",
        "--token",
        "***",
        "--token",
        "--verbose",
        "-p",
        "80",
        "--token=***",
        "token",
    ]


def test_control_characters_stay_on_their_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEWY_AFTER_DEPLOY_HOOK", "echo a\necho \x1b[31mb")
    out = run("config")[1]
    assert "\x1b" not in out and len(out.splitlines()) == len(OPTIONS) + 2


def test_reading_a_pipe(tmp_path: Path) -> None:
    """As `--config <(decrypt dewy.toml)` hands it over."""
    read, write = os.pipe()
    os.write(write, b"keep = 5\n")
    os.close(write)
    assert read_config_file(Path(f"/dev/fd/{read}")).options == {"keep": ("5",)}
    os.close(read)
