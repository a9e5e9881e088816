"""`dewy.config`, `dewy.cachedir`, `dewy.notify` and `dewy.hooks`: what is checked and chosen before anything starts."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dewy.config import Options, configure
from dewy.errors import ConfigError

GIVEN = Options(registry="ghr://owner/repo")


def configured(mode="server", command=("/opt/app",), **options):
    return configure(mode, replace(GIVEN, **options), command, cwd=Path("/srv/app"))


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
    config = configured("assets", command=("x",), port=("8000",), telemetry=("--telemetry",))
    assert [option for option, _ in config.ignored] == ["--port", "COMMAND", "--telemetry"]
    assert config.listen == () and config.command == ()
    assert configured().ignored == ()


def test_secrets_are_not_shown() -> None:
    config = configured(cache="redis://u:hunter2@h/0", registry="s3://k:hunter2@x/y")
    assert "hunter2" not in repr(config)
    with pytest.raises(ConfigError) as refused:
        configured(cache="redis://u:hunter2@h/0?registry-ttl=x")
    assert "hunter2" not in str(refused.value)


# -- the notifier ------------------------------------------------------------------------------------------------------


def test_an_unsupported_notifier_is_refused() -> None:
    from dewy.notify import open_channel

    with pytest.raises(ConfigError, match="--notifier: 'slack://general'"):
        open_channel("slack://general")


def test_failures_are_told_three_times_and_news_always() -> None:
    from dewy.log import Log
    from dewy.notify import Notices

    class Kept(list):
        send = list.append

    channel = Kept()
    notices = Notices(Log(), channel)
    for _ in range(5):
        notices.failed("no route")
    notices.tell("Start notification", "Server started for `v1`")
    notices.worked()
    notices.failed("again")
    assert channel == [
        "Error occurred (count: 1): no route",
        "Error occurred (count: 2): no route",
        "No more error notifications will be sent until it works again. Error occurred (count: 3): no route",
        "Server started for `v1`",
        "Error occurred (count: 1): again",
    ]


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
