"""`dewy`: parse, call, print.

    dewy server|assets [options] [-- COMMAND ARG...]      dewy demo      dewy version

As in Dewy v2 options may stand before or after the command's name. Exit codes: 0 done, 1 failed at work, 2 wrong usage,
with one line on stderr that says what to do. Only `click` is imported here; the rest when a command runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from dewy.errors import ConfigError, DewyError

DISTRIBUTION: Final = "kvcache-dewy"
WRONG_USAGE: Final = 2
FAILED: Final = 1

F = TypeVar("F", bound=Callable[..., Any])

_HELP: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_SHORT_WITH_EQUALS: Final = re.compile(r"(-[A-Za-z])=(.*)", re.DOTALL)
_EXAMPLES: Final = """\b
Examples:
  dewy server --registry ghr://owner/repo -p 8000 -- /opt/app/current/app
  dewy assets --registry file:///srv/releases --interval 1m
  dewy server --registry ghr://owner/repo \\
      --cache 's3://ap-northeast-1/bucket/app?registry-ttl=30s' -- ./current/app
"""


class Anywhere(click.Group):
    """Takes a command's options before its name too, and its value also as `-x=value`, as Dewy v2 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, rest = args, []
        if "--" in args:
            own, rest = args[: args.index("--")], args[args.index("--") :]
        own = [part for arg in own for part in _split_short(arg)]
        at = self._command_at(ctx, own)
        if at is not None:
            own = [own[at], *own[:at], *own[at + 1 :]]
        elif not any(arg in ("-h", "--help", "-v", "--version") for arg in own):
            raise ConfigError(f"command: not set: {self._choices}")
        return super().parse_args(ctx, own + rest)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise ConfigError(f"command: {args[0]!r}: {self._choices}")
        return super().resolve_command(ctx, args)

    @property
    def _choices(self) -> str:
        return f"one of {', '.join(self.commands)}; dewy --help tells more"

    def _command_at(self, ctx: click.Context, args: Sequence[str]) -> int | None:
        """Where the first word stands that is neither an option nor an option's value."""
        commands = self.commands.values()
        options = [param for command in commands for param in command.params if isinstance(param, click.Option)]
        with_value = {name for option in options if not option.is_flag for name in option.opts}
        value_follows = False
        for at, arg in enumerate(args):
            if value_follows:
                value_follows = False
            elif arg.startswith("-") and len(arg) > 1:
                value_follows = arg in with_value
            else:
                return at
        return None


def _split_short(arg: str) -> Sequence[str]:
    found = _SHORT_WITH_EQUALS.fullmatch(arg)
    return found.groups() if found else (arg,)


def _installed_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "dev"


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"dewy version: {_installed_version()}")
        ctx.exit()


_version_option = click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)


def _text(*names: str, shown: str, about: str, default: str = "", repeatable: bool = False) -> Callable[[F], F]:
    """An option with a value. All values stay texts here: `dewy.config` reads them."""
    return click.option(
        *names,
        metavar=shown,
        default=None if repeatable else default,
        show_default=bool(default),
        multiple=repeatable,
        help=about,
    )


_RUN_OPTIONS: Final = (
    _text("--registry", shown="URL", about="Where releases are announced: ghr://owner/repo, file:///dir. Required."),
    _text(
        "-c", "--cache", shown="URL", about="Where artifacts and answers are shared; the cache directory unless set."
    ),
    _text("-i", "--interval", shown="TIME", default="10", about="Time between two polls: 10 (seconds), 30s, 1m."),
    _text(
        *("-p", "--port"),
        shown="PORT",
        repeatable=True,
        about="What the application listens on: 8000, 127.0.0.1:8000, 8000-8003, or several with commas. Repeatable.",
    ),
    _text("-s", "--slot", shown="NAME", about="Only versions with this build metadata: blue for v1.2.3+blue."),
    _text("--calver", shown="FORMAT", about="Versions are calendar versions, such as YYYY.0M.MICRO."),
    _text("--notifier", shown="URL", about="Whom to tell; the log alone unless given."),
    _text("--before-deploy-hook", shown="SHELL", about="Run before a release is put in place."),
    _text("--after-deploy-hook", shown="SHELL", about="Run when a new release is in place and running."),
    _text("-l", "--log-level", shown="LEVEL", default="info", about="debug, info, warn or error."),
    _text("-f", "--log-format", shown="FORMAT", default="text", about="text or json."),
    # Dewy v2's, taken so that its command lines go on working; a warning says that they have no effect.
    click.option("--telemetry", is_flag=True, hidden=True),
    click.option("--otlp-endpoint", default="", hidden=True),
    click.option("--otlp-insecure", is_flag=True, hidden=True),
    click.option("--admin-port", default="", hidden=True),
    _version_option,
)
"""The options of `server` and `assets`, in the order of the help text."""


def _options_of_a_run(function: F) -> F:
    for option in reversed(_RUN_OPTIONS):
        function = option(function)
    return function


@click.group(cls=Anywhere, context_settings=_HELP, epilog=_EXAMPLES)
@_version_option
def dewy() -> None:
    """Keeps an application, or a directory of files, at the newest release that a registry announces."""


@dewy.command(context_settings=_HELP, epilog=_EXAMPLES)
@_options_of_a_run
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...")
def server(command: tuple[str, ...], **options: Any) -> int:
    """Deploy releases and run COMMAND; a new release takes over without dropping a connection.

    DEWY_CACHEDIR is the cache directory; .dewy/cache under the working directory unless set.
    """
    return _run("server", command, options)


@dewy.command(context_settings=_HELP, epilog=_EXAMPLES)
@_options_of_a_run
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="")
def assets(command: tuple[str, ...], **options: Any) -> int:
    """Deploy releases and run nothing: static files, data, configuration.

    DEWY_CACHEDIR is the cache directory; .dewy/cache under the working directory unless set.
    """
    return _run("assets", command, options)


@dewy.command(context_settings=_HELP)
def demo() -> int:
    """A small fleet on this machine deploys an application and moves it to a new release, under load."""
    from dewy.demo import run

    return run()


@dewy.command("version", context_settings=_HELP)
def show_version() -> None:
    """Show the version."""
    click.echo(f"dewy version: {_installed_version()}")


def _run(mode: Any, command: tuple[str, ...], options: dict[str, Any]) -> int:
    from dewy.assembly import run
    from dewy.config import Options, configure

    telemetry = [name for name in ("telemetry", "otlp_endpoint", "otlp_insecure", "admin_port") if options.pop(name)]
    given = tuple(f"--{name.replace('_', '-')}" for name in telemetry)
    config = configure(mode, Options(**options, telemetry=given), command, cwd=Path.cwd())
    return run(config, os.environ)


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
    sys.exit(code or 0)


def _say(error: Exception) -> None:
    print(f"dewy: {_usage_line(error)}", file=sys.stderr)


def _usage_line(error: Exception) -> str:
    """`<part>: <value>: <accepted form>` of whatever click or dewy refused."""
    match error:
        case click.NoSuchOption():
            near = f"did you mean {' or '.join(error.possibilities)}?" if error.possibilities else "see dewy --help"
            text = f"{error.option_name}: no such option: {near}"
        case click.BadOptionUsage():
            text = f"{error.option_name}: {error.format_message()}"
        case click.ClickException():
            text = error.format_message()
        case _:
            text = str(error)
    return " ".join(text.split())
