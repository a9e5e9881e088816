"""`dewy.config`, `dewy.cachedir`, `dewy.notify` and `dewy.hooks`: what is checked and chosen before anything starts."""

import os
import time
from dataclasses import fields
from pathlib import Path

import pytest

from dewy.config import Config, configure
from dewy.errors import ConfigError
from dewy.options import OPTIONS
from dewy.settings import settle


def configured(mode="server", command=("/opt/app",), env=None, **options):
    """The configuration of a command line with these options."""
    given = {"registry": "ghr://owner/repo", **options}
    texts = {name.replace("_", "-"): (text,) if isinstance(text, str) else text for name, text in given.items()}
    return configure(mode, settle(texts, env or {}, None, command), cwd=Path("/srv/app"))


def test_every_option_has_a_field() -> None:
    known = {field.name for field in fields(Config)}
    others = {"mode", "command", "root", "registry_ttl", "max_size", "ignored"}
    assert known == others | {option.field for option in OPTIONS if option.in_file}


def test_defaults() -> None:
    config = configured()
    assert (config.interval, config.log_level, config.log_format) == (10.0, "INFO", "text")
    assert (config.registry_ttl, config.max_size) == (None, 64 * 1024 * 1024)
    assert config.command == ("/opt/app",) and config.root == Path("/srv/app")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10", 10), ("30s", 30), ("1m", 60), ("1m30s", 90), ("250ms", 0.25), ("2.5", 2.5), ("010", 10)],
)
def test_intervals(text: str, expected: float) -> None:
    """B12."""
    assert configured(interval=text).interval == expected


def test_options_of_the_cache_url() -> None:
    config = configured(cache="s3://r/b?registry-ttl=1m30s&max-size=1GiB")
    assert (config.registry_ttl, config.max_size) == (90.0, 1024**3)
    assert configured(cache="s3://r/b?registry-ttl=0").registry_ttl is None


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"registry": ""}, ["--registry", "not set", "ghr://owner/repo"]),
        ({"registry": "owner/repo"}, ["--registry", "'owner/repo'", "scheme://"]),
        ({"interval": "0"}, ["--interval", "'0'", "30s"]),
        ({"interval": "-5"}, ["--interval", "-5", "30s"]),
        ({"interval": "soon"}, ["--interval", "'soon'", "30s"]),
        ({"interval": "0x10"}, ["--interval", "'0x10'", "30s"]),
        ({"interval": "1ms"}, ["--interval", "'1ms'", "100ms"]),
        ({"port": ("http",)}, ["--port", "'http'", "8000"]),
        ({"log_level": "loud"}, ["--log-level", "'loud'", "debug, info, warn or error"]),
        ({"log_format": "xml"}, ["--log-format", "'xml'", "text or json"]),
        ({"cache": "s3://r/b?registry-ttl=30"}, ["--cache", "registry-ttl", "'30'", "30s"]),
        ({"cache": "s3://r/b?registry-ttl=-1s"}, ["--cache", "registry-ttl", "-1s"]),
        ({"cache": "s3://r/b?max-size=big"}, ["--cache", "max-size", "'big'", "64MiB"]),
        ({"cache": "/srv/cache"}, ["--cache", "/srv/cache", "scheme://"]),
        ({"registry": "ghr://o/r?calver=x"}, ["--calver", "'x'", "YYYY"]),
        ({"calver": "x"}, ["--calver", "'x'", "YYYY"]),
        ({"keep": "0"}, ["--keep", "'0'", "a whole number from 1 to 10000"]),
        ({"keep": "9" * 5000}, ["--keep", "a whole number from 1 to 10000"]),
        ({"admin-port": "65536"}, ["--admin-port", "'65536'", "a whole number from 0 to 65535"]),
        ({"health-port": "0"}, ["--health-port", "'0'", "a whole number from 1 to 65535"]),
        ({"health-timeout": "now"}, ["--health-timeout", "'now'", "30s"]),
        ({"tick-timeout": "500ms"}, ["--tick-timeout", "'500ms'", "at least 1s"]),
        ({"checksums": "maybe"}, ["--checksums", "'maybe'", "auto, require or off"]),
    ],
)
def test_what_is_refused(options: dict, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(**options)
    line = str(refused.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize("command", [(), ("",)])
def test_a_server_needs_a_command(command) -> None:
    with pytest.raises(ConfigError, match="COMMAND"):
        configured(command=command)


def test_what_means_nothing_in_assets_mode_is_named() -> None:
    env = {"DEWY_HEALTH_PATH": "/healthz", "DEWY_INTERVALL": "5s", "DEWY_CACHEDIR": "/x", "DEWY_TAG": "v1"}
    config = configured("assets", command=("x",), port=("8000",), env=env)
    assert [option for option, _ in config.ignored] == ["--port", "DEWY_HEALTH_PATH", "COMMAND", "DEWY_INTERVALL"]
    assert config.ignored[-1][1] == "no such option; did you mean DEWY_INTERVAL?"
    assert (config.listen, config.command, config.health_path) == ((), (), "")
    assert configured().ignored == ()


def test_a_fall_back_is_not_for_a_registry_that_chooses_by_itself() -> None:
    assert configured(registry="grpc://h:1", fallback="true").ignored == (
        ("--fallback", "the server of a grpc:// registry chooses the version"),
    )
    assert configured(registry="grpc://h:1", fallback="false").ignored == ()
    assert configured(fallback="true").ignored == ()


def test_secrets_are_not_shown() -> None:
    config = configured(
        command=("app", "--password=hunter2"),
        cache="redis://u:hunter2@h/0",
        notifier=("discord://id/hunter2",),
        before_deploy_hook="login -p hunter2",
        after_deploy_hook="login -p hunter2",
        otlp_endpoint="https://u:hunter2@h",
    )
    assert "hunter2" not in repr(config)
    for refused in ({"cache": "redis://u:hunter2@h/0?registry-ttl=x"}, {"registry": "s3://k:hunter2@x/y"}):
        with pytest.raises(ConfigError) as error:
            configured(**refused)
        assert "hunter2" not in str(error.value)


# -- hooks -------------------------------------------------------------------------------------------------------------


def run(command: str, tmp_path: Path, timeout: float = 20.0):
    from dewy.hooks import run_hook

    return run_hook(command, cwd=tmp_path, env=os.environ, timeout=timeout)


def test_a_hook_s_output_and_exit_code(tmp_path: Path) -> None:
    result = run("echo out; pwd; echo err >&2; exit 3", tmp_path)
    assert (result.stdout, result.stderr) == (f"out\n{tmp_path}", "err")
    assert (result.exit_code, result.succeeded, result.failure) == (3, False, "exit code 3")
    assert run("exit 0", tmp_path).succeeded


def test_a_hook_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    result = run("sleep 600 & echo $! > child; echo begun; wait", tmp_path, timeout=1.0)
    assert time.monotonic() - began < 10
    assert result.exit_code is None and "stopped after 1 s" in result.failure and result.stdout == "begun"
    assert not alive(int((tmp_path / "child").read_text()))


def test_a_background_child_of_a_hook_does_not_hold_it_up(tmp_path: Path) -> None:
    began = time.monotonic()
    result = run("sleep 20 & echo $!", tmp_path)
    assert result.succeeded and time.monotonic() - began < 10
    os.kill(int(result.stdout), 9)


def test_the_output_of_a_hook_is_bounded(tmp_path: Path) -> None:
    from dewy.hooks import MOST_OUTPUT

    result = run("yes x | head -c 3000000; echo the end", tmp_path)
    assert result.stdout.endswith("the end") and len(result.stdout) <= MOST_OUTPUT


def alive(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True
