"""`kvcache`: parse, call, print. What an operator types at three in the morning.

Exit codes: 0 done, 1 failed at work, 2 wrong usage; one line on stderr says what to do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import click

from kvcache import inspection
from kvcache.errors import InvalidKey, InvalidURL, KVCacheError, NotFound
from kvcache.kvs import ABSENT, Store
from kvcache.redaction import scrub
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def kvcache() -> None:
    """Look into stores and shared caches. URL: file:///dir, s3://region/bucket/prefix, redis://host:6379/0, ..."""


@kvcache.command()
@_url
@_key
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_with_store
def get(store: Store, key: str, file: Path | None) -> None:
    """Write the value of KEY to stdout, or stream it to FILE."""
    if file is not None:
        store.download(key, file)
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
    """Store FILE, or stdin, under KEY."""
    if absent:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        store.write_if(key, data, ABSENT)
    elif str(file) == "-":
        store.write(key, sys.stdin.buffer.read())
    else:
        store.upload(key, file)


@kvcache.command()
@_url
@click.argument("prefix", default="")
@_json
@_with_store
def ls(store: Store, prefix: str, as_json: bool) -> None:
    """List keys that start with PREFIX."""
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
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


@kvcache.command()
@_url
@click.argument("key", required=False)
@_json
@_with_store
def inspect(store: Store, key: str | None, as_json: bool) -> None:
    """Records of a shared cache: age, lock holder, lease left, failures, next call due. Without KEY: all of them."""
    keys = [key] if key else [name for name in store.list() if inspection.is_record_key(name)]
    reports = [inspection.inspect(store, name) for name in keys]
    if as_json:
        click.echo(json.dumps(reports, indent=2))
    else:
        click.echo("\n\n".join(inspection.as_text(report) for report in reports) or "no records")


@kvcache.command()
@_url
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a web page.")
@click.option("--seed", type=click.IntRange(0), help="Of what the clients of a race do. [default: by chance]")
@click.option("--time-limit", type=click.FloatRange(1), default=300, show_default=True, help="Seconds for all checks.")
def conformance(url: str, json_file: Path | None, html_file: Path | None, seed: int | None, time_limit: float) -> None:
    """Is this store fit? Every promise, one line each. Works under keys of its own and removes them.

    Exit code 0: every promise that the store makes is kept; 1: one is broken, or was not decided.
    """
    from kvcache.conformance.command import Examination
    from kvcache.conformance.report import as_line, as_summary

    with Examination(url, seed) as examination:
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


def main() -> None:
    """The command `kvcache`."""
    try:
        kvcache.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        sys.exit(FAILED)
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
