"""The commands of an operator about one node: `dewy status`, `history`, `rollback`, `pin` and `unpin`.

They read and write the node's directory alone, so they work whether dewy runs there or not. Only click is imported; the
rest when a command runs.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import click

from dewy.commandline import HELP, settings_of, takes
from dewy.errors import DewyError

_directory = click.option(
    "-C",
    "--directory",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The node's working directory, which holds releases/ and current; this one unless given.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(short_help="Show what runs here.", context_settings=HELP)
@_directory
@takes("cache", "config")
@_as_json
@click.option("--check", is_flag=True, help="Exit with 1 unless a release is deployed and running.")
def status(directory: Path, as_json: bool, check: bool, **options: Any) -> None:
    """What runs here, since when, what is known to be newest, and what stands in the way.

    With --cache (or DEWY_CACHE, or the file) also what the fleet shares: the answer's age, and who holds its lock.
    """
    from dewy.status import as_text, gather, what_is_missing

    facts = gather(directory.resolve(), settings_of(options)["cache"].value())
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else as_text(facts, time.time()))
    if check and (missing := what_is_missing(facts)) is not None:
        raise DewyError(missing)


@click.command(short_help="Show what has happened here.", context_settings=HELP)
@_directory
@_as_json
def history(directory: Path, as_json: bool) -> None:
    """What has happened here, oldest first: deploys, failures, roll-backs, restarts. With --json one object a line."""
    from dewy.history import History, as_text
    from dewy.state import StateFile

    for deed in History(StateFile(directory).directory).read():
        click.echo(json.dumps(deed, ensure_ascii=False) if as_json else as_text(deed))


@click.command(short_help="Go back to an earlier release.", context_settings=HELP)
@_directory
@click.argument("tag", required=False)
def rollback(directory: Path, tag: str | None) -> None:
    """Go back to the last good release, or to TAG. What is left is not deployed again before it changes."""
    from dewy.control import Control

    click.echo(Control(directory.resolve()).rollback(tag))


@click.command(short_help="Stay at a release.", context_settings=HELP)
@_directory
@click.argument("tag")
def pin(directory: Path, tag: str) -> None:
    """Stay at TAG, whatever the registry announces, until `dewy unpin`."""
    from dewy.control import Control

    click.echo(Control(directory.resolve()).pin(tag))


@click.command(short_help="Follow the registry again.", context_settings=HELP)
@_directory
def unpin(directory: Path) -> None:
    """Follow the registry again, and give what failed, or was left, another chance."""
    from dewy.control import Control

    click.echo(Control(directory.resolve()).unpin())


COMMANDS: Final = (status, history, rollback, pin, unpin)
