"""`dewy`: parse, call, print.

    dewy server|assets [options] [-- COMMAND ARG...]      dewy config|completion|demo|version
    dewy status|history|rollback|pin|unpin [-C DIR]

As in Dewy v2 options may stand before or after the command's name. Exit codes: 0 done, 1 failed at work, 2 wrong usage,
with one line on stderr that says what to do. Only `click` is imported here; the rest when a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from dewy import epilogs
from dewy.commandline import HELP, VERSION, Anywhere, Grouped, completion_script, error_line, settings_of, takes
from dewy.errors import ConfigError, DewyError
from dewy.operator import COMMANDS
from dewy.options import BY_NAME, Mode

DISTRIBUTION: Final = "kvcache-dewy"
WRONG_USAGE: Final = 2
FAILED: Final = 1


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # half of the time of `dewy --help`

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "dev"


# Only for the help text: `Anywhere` takes it for the command `version`.
_version_option = click.option(*VERSION, is_flag=True, expose_value=False, help="Show the version.")


@click.group(cls=Anywhere, context_settings=HELP, epilog=epilogs.DEWY)
@_version_option
def dewy() -> None:
    """Keeps an application, or a directory of files, at the newest release that a registry announces."""


@dewy.command(
    cls=Grouped, short_help="Deploy releases and run an application.", context_settings=HELP, epilog=epilogs.RUN
)
@takes()
@_version_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
def server(command: tuple[str, ...], **options: Any) -> int:
    """Deploy releases and run COMMAND; a new release takes over without dropping a connection."""
    return _run("server", command, options)


@dewy.command(
    cls=Grouped, short_help="Deploy releases of files and run nothing.", context_settings=HELP, epilog=epilogs.RUN
)
@takes()
@_version_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="")
def assets(command: tuple[str, ...], **options: Any) -> int:
    """Deploy releases and run nothing: static files, data, configuration."""
    return _run("assets", command, options)


for _command in COMMANDS:
    dewy.add_command(_command)


@dewy.command(short_help="Show a small fleet at work on this machine.", context_settings=HELP)
def demo() -> int:
    """A small fleet on this machine deploys an application and moves it to a new release, under load."""
    from dewy.demo import run

    return run()


@dewy.command(
    "config", cls=Grouped, short_help="Show which options are in force.", context_settings=HELP, epilog=epilogs.CONFIG
)
@takes()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[server|assets] [-- COMMAND [ARG]...]")
def show_config(words: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check options, and show which value of each is in force and where it comes from. Starts nothing.

    With the command line of a server, or of assets, behind it: is that one complete?
    """
    from dewy.config import checked, configure, without_effect
    from dewy.inforce import Page

    mode: Mode | None = "server" if words[:1] == ("server",) else "assets" if words[:1] == ("assets",) else None
    settings = settings_of(options, words if mode is None else words[1:])
    if mode is None:
        checked(settings)
    else:
        configure(mode, settings, cwd=Path.cwd())
    page = Page(settings, tuple(without_effect(mode, settings)), env=os.environ, cwd=Path.cwd())
    click.echo(page.as_json() if as_json else page.as_text())


@dewy.command(short_help="Print a shell's completion script.", context_settings=HELP, epilog=epilogs.COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that teaches a shell to complete dewy's command lines."""
    click.echo(completion_script(dewy, shell))


@dewy.command("version", context_settings=HELP)
@takes("log-format")
def show_version(**options: Any) -> None:
    """Show the version."""
    if (options["log_format"] or "").lower() == "json":  # a record on stderr, as Dewy v2 has it
        from dewy.log import Log, set_up

        set_up("INFO", "json", {})
        Log().info("Dewy version", version=_installed_version(), commit="none", date="unknown")
    else:
        click.echo(f"dewy version: {_installed_version()}")


def _run(mode: Mode, command: tuple[str, ...], options: dict[str, Any]) -> int:
    from dewy.config import configure

    settings = settings_of(options, command)
    config = configure(mode, settings, cwd=Path.cwd())
    from dewy.assembly import run  # later, since it takes its time: a wrong option is told at once

    try:
        return run(config, os.environ)
    except ConfigError as error:
        raise settings.located(error) from error


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line (of this process, unless given) and exits."""
    try:
        code = dewy.main(args=args, prog_name="dewy", standalone_mode=False)
    except (ConfigError, click.ClickException) as error:
        _say(error)
        code = WRONG_USAGE
    except DewyError as error:
        _say(error)
        code = FAILED
    except click.Abort:
        code = FAILED
    except OSError as error:  # of a command about a node: its directory cannot be read, or its disk is full
        _say(error)
        code = FAILED
    except Exception as error:
        # A fault of ours. An operator has no use for a traceback, unless one is asked for.
        _say(error)
        if os.environ.get(BY_NAME["log-level"].variable, "").lower() == "debug":
            import traceback

            from dewy.log import Redactor

            print(Redactor(os.environ)(traceback.format_exc()), file=sys.stderr)
        code = FAILED
    sys.exit(code or 0)


def _say(error: Exception) -> None:
    print(f"dewy: {error_line(error)}", file=sys.stderr)
