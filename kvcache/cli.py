"""`kvcache`: parse, call, print. What an operator types at three in the morning.

Exit codes: 0 done, 1 failed at work, 2 wrong usage; one line on stderr says what to do.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import click
from click.shell_completion import get_completion_class

from kvcache import inspection
from kvcache.errors import Conflict, InvalidKey, InvalidURL, KVCacheError, NotFound
from kvcache.kvs import ABSENT, Store
from kvcache.redaction import scrub
from kvcache.terminal import progress
from kvcache.units import format_duration
from kvcache.url import open_store

P = ParamSpec("P")
WRONG_USAGE: Final = 2
FAILED: Final = 1

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_url = click.argument("url")
_key = click.argument("key")


def _with_store(command: Callable[..., None]) -> Callable[..., None]:
    """Opens the store of the first argument around the command."""

    @wraps(command)
    def run(url: str, *args: Any, **options: Any) -> None:
        with open_store(url) as store:
            command(store, *args, **options)

    return run


@click.group(
    no_args_is_help=False,  # that would be many lines on stderr
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def kvcache() -> None:
    """Look into stores and shared caches. URL: file:///dir, s3://region/bucket/prefix, redis://host:6379/0, ..."""


@kvcache.command()
@_url
@_key
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@_with_store
def get(store: Store, key: str, file: Path) -> None:
    """Write the value of KEY to stdout, or stream it to FILE, which appears whole or not at all."""
    if str(file) != "-":
        if not file.parent.is_dir():
            raise click.BadParameter(f"'{file}': expected a file in a directory that exists", param_hint="FILE")
        with progress(key) as shown:
            store.download(key, file, shown)
    else:
        sys.stdout.buffer.write(store.read(key))
        sys.stdout.buffer.flush()


@kvcache.command()
@_url
@_key
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True), default="-")
@click.option("--absent", is_flag=True, help="Only if there is nothing under KEY.")
@_with_store
def put(store: Store, key: str, file: Path, absent: bool) -> None:
    """Store FILE, or stdin, under KEY, in place of what is there."""
    piped = str(file) == "-"
    if absent:
        try:
            store.write_if(key, sys.stdin.buffer.read() if piped else file.read_bytes(), ABSENT)
        except Conflict:
            _end(f"{key}: there is a value already; nothing was written", FAILED)
    elif piped:
        store.upload(key, sys.stdin.buffer)
    else:
        with progress(key, file.stat().st_size) as shown:
            store.upload(key, file, shown)


@kvcache.command()
@_url
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="Print each key as JSON.")
@_with_store
def ls(store: Store, prefix: str, as_json: bool) -> None:
    """List the keys that start with PREFIX, one a line, sorted."""
    for key in store.list(prefix):
        click.echo(json.dumps(key) if as_json else key)


@kvcache.command()
@_url
@_key
@_with_store
def rm(store: Store, key: str) -> None:
    """Remove KEY. It need not be there."""
    store.delete(key)


@kvcache.command()
@_url
@_key
@_json
@_with_store
def stat(store: Store, key: str, as_json: bool) -> None:
    """Size, version and time of the last change of KEY."""
    found = store.stat(key)
    facts = {"key": key, "size": found.size, "version": found.version.token, "modified": found.modified}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        texts = {**facts, "size": f"{found.size} bytes", "modified": _moment(found.modified)}
        click.echo("\n".join(f"{name}: {text}" for name, text in texts.items()))


def _moment(at: float | None) -> str:
    if at is None:
        return "unknown"
    ago = format_duration(round(max(0.0, time.time() - at)))
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}, {ago} ago"


@kvcache.command()
@_url
@click.argument("key", required=False)
@click.option("--all", "everywhere", is_flag=True, help="Look under every key of the store: a request or two for each.")
@_json
@_with_store
def inspect(store: Store, key: str | None, everywhere: bool, as_json: bool) -> None:
    """Records of a shared cache: age, lock holder, lease left, failures, next call due.

    Without KEY: those of dewy, which are under registry-cache/ and artifact-cache/.
    """
    reports = [inspection.inspect(store, key)] if key else list(inspection.inspect_all(store, everywhere=everywhere))
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    elif reports:
        click.echo("\n\n".join(inspection.as_text(report) for report in reports))
    else:
        others = "" if everywhere else " where dewy keeps its own: name a KEY, or look under every key with --all"
        click.echo(f"no records{others}")


@kvcache.command()
@_url
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a web page.")
@click.option("--seed", type=click.IntRange(0), help="Of what the clients of a race do. [default: by chance]")
@click.option("--time-limit", type=click.FloatRange(1), default=300, show_default=True, help="Seconds for all checks.")
@click.option("--through-faults", is_flag=True, help="Behind a relay that loses requests and replies.")
def conformance(
    url: str,
    json_file: Path | None,
    html_file: Path | None,
    seed: int | None,
    time_limit: float,
    through_faults: bool,
) -> None:
    """Is this store fit? Every promise, one line each. Works under keys of its own and removes them.

    Exit code 0: every promise that the store makes is kept; 1: one is broken, or was not decided.
    """
    from kvcache.conformance.command import Examination
    from kvcache.conformance.report import as_line, as_summary

    with Examination(url, seed, through_faults=through_faults) as examination:
        click.echo(examination.announcement(time_limit))
        report = examination.run(lambda finding: click.echo(as_line(finding)), time_limit)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    if html_file is not None:
        from kvcache.conformance.page import as_page

        html_file.write_text(as_page(report))
    click.echo(as_summary(report))
    if not report.is_fit:
        sys.exit(FAILED)


@kvcache.command()
@click.option("--nodes", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--hours", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Simulated time."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same run.")
@click.option("--ttl", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Seconds.")
@click.option("--interval", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds between polls.")
@click.option("--max-stale", type=click.FloatRange(0), help="Seconds.  [default: for ever]")
@click.option("--faults", default="", help='For example "upstream-down@600-1200,crash-leader@900,lost=0.01".')
@click.option("--dewy-v2", is_flag=True, help="Run Dewy v2's algorithm too, for comparison side by side.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Draw the run as PNG.")
def simulate(faults: str, dewy_v2: bool, json_file: Path | None, plot_file: Path | None, **workload: Any) -> None:
    """Thousands of nodes, one faulty store, virtual time: the real protocol against its bounds.

    Exit code 0: all bounds hold; 1: one is broken.
    """
    from kvcache.simulation import report
    from kvcache.simulation.faults import Workload, parse_faults
    from kvcache.simulation.simulate import DEWY_V2, OURS, Simulation

    try:
        wrong = parse_faults(faults)
        if plot_file is not None:
            report.need_matplotlib()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    outcomes = []
    for algorithm in (OURS, DEWY_V2) if dewy_v2 else (OURS,):
        run = Simulation(Workload(**workload), wrong, algorithm)
        run.run()
        outcomes.append(report.summed_up(run))
        click.echo(report.as_text(outcomes[-1]))
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(outcomes, run), indent=2) + "\n")
    if plot_file is not None:
        report.plot(outcomes, run, plot_file)
    if not outcomes[0].holds:
        sys.exit(FAILED)


@kvcache.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that teaches a shell to complete kvcache's command lines.

    \b
      bash   kvcache completion bash > ~/.local/share/bash-completion/completions/kvcache
      zsh    kvcache completion zsh > ~/.zfunc/_kvcache   (with ~/.zfunc in fpath, before compinit)
      fish   kvcache completion fish > ~/.config/fish/completions/kvcache.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click knows these three
    click.echo(found(kvcache, {}, "kvcache", "_KVCACHE_COMPLETE").source())


def main() -> None:
    """The command `kvcache`."""
    try:
        kvcache.main(prog_name="kvcache", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        sys.exit(FAILED)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "kvcache"
        _end(f"{error.format_message().rstrip('.')}. See '{command} --help'", WRONG_USAGE)
    except click.ClickException as error:
        _end(error.format_message(), WRONG_USAGE)
    except (InvalidURL, InvalidKey) as error:
        _end(str(error), WRONG_USAGE)
    except NotFound as error:
        _end(str(error), FAILED)
    except (KVCacheError, OSError) as error:
        _end(f"{type(error).__name__}: {error}", FAILED)


def _end(message: str, code: int) -> None:
    click.echo(f"kvcache: {scrub(message, limit=2000)}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
