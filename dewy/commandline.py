"""How `dewy` reads a command line: the rows of `dewy.options` as click's options, in the forms that Dewy v2 takes.

Values stay texts here; `dewy.settings` reads them. Only click is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from dewy.errors import ConfigError, DewyError
from dewy.options import BY_NAME, GROUPS, OPTIONS, Option
from dewy.settings import Settings, config_path, settle

F = TypeVar("F", bound=Callable[..., Any])

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Of every command."""

VERSION: Final = ("-v", "--version")
_OTHER: Final = "Other"
"""The heading of options that are no rows."""


class Anywhere(click.Group):
    """Takes a command's options before its name too, and its value also as `-x=value`, as Dewy v2 does.

    `--version` is the command `version`, whatever else is there.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, rest = args, []
        if "--" in args:
            own, rest = args[: args.index("--")], args[args.index("--") :]
        line = self._read(own)
        helped = not line.given.keys().isdisjoint(HELP["help_option_names"])
        if not helped and not line.given.keys().isdisjoint(VERSION):
            own, rest = ["version"], []
            for name in ("-f", "--log-format"):
                own += [name, line.given[name]] if name in line.given else []
        elif line.command_at is not None:
            own = [line.args[line.command_at], *line.args[: line.command_at], *line.args[line.command_at + 1 :]]
        elif not helped and not ctx.resilient_parsing:
            raise ConfigError(f"command: not set: {self._choices}")
        return super().parse_args(ctx, own + rest)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise ConfigError(f"command: {args[0][:40]!r}: {self._choices}")
        return super().resolve_command(ctx, args)

    @property
    def _choices(self) -> str:
        return f"one of {', '.join(self.commands)}; dewy --help tells more"

    def _read(self, args: Sequence[str]) -> _Line:
        """Tells options, their values and other words from one another, by the options of all commands."""
        options = [
            param for command in self.commands.values() for param in command.params if isinstance(param, click.Option)
        ]
        with_value = {name for option in options if not option.is_flag for name in option.opts}
        line = _Line([], {})
        awaiting = ""
        for arg in args:
            if awaiting:
                line.given[awaiting] = arg
                awaiting = ""
            elif arg.startswith("-") and len(arg) > 1:
                name, value = _split(arg)
                if name in with_value and value is None:
                    awaiting = name
                line.given[name] = value or ""
                if value is not None and not arg.startswith("--"):
                    line.args += (name, value)
                    continue
            elif line.command_at is None:
                line.command_at = len(line.args)
            line.args.append(arg)
        return line


@dataclass(slots=True)
class _Line:
    """The words of a command line up to `--`, in forms that click takes; `given` are options with their last value."""

    args: list[str]
    given: dict[str, str]
    command_at: int | None = None
    """Where the first word stands that is neither an option nor the value of one."""


def _split(arg: str) -> tuple[str, str | None]:
    """Name and value of `--name=value`, `-x=value` and `-xvalue`; no value of any other option."""
    if arg.startswith("--"):
        name, mark, value = arg.partition("=")
        return name, value if mark else None
    return arg[:2], arg[2:].removeprefix("=") if len(arg) > 2 else None


class Row(click.Option):
    """A row of the table as an option. Its default is shown, and known to `dewy.settings` alone."""

    def __init__(self, param_decls: Sequence[str], row: Option, **attrs: Any) -> None:
        self.row = row
        shown = row.default_shown or row.default
        about = f"{row.about}  [default: {shown}]" if shown and not row.kind.is_flag else row.about
        if row.kind.is_flag:
            attrs |= {"is_flag": True, "default": None}
        else:
            attrs |= {"metavar": row.kind.metavar, "multiple": row.repeatable, "type": _Text(row)}
        super().__init__(param_decls, help=about, **attrs)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Of a flag that is off by default one form is enough: the other one is for taking it back."""
        record = super().get_help_record(ctx)
        return (self.row.flag, record[1]) if record and self.row.default == "false" else record


def _names(row: Option) -> tuple[str, ...]:
    if row.kind.is_flag:
        return (f"{row.flag}/--no-{row.name}",)
    return (f"-{row.short}", row.flag) if row.short else (row.flag,)


class _Text(click.types.StringParamType):
    """Any text. For a shell: the words that may stand there, or files."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self._option = option

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self._option.kind.metavar == "FILE":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in self._option.kind.choices if word.startswith(incomplete)]


class Grouped(click.Command):
    """A command whose help shows options under the headings of the table: those that have an effect in it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*GROUPS, _OTHER)}
        for param in self.get_params(ctx):
            without_effect = isinstance(param, Row) and param.row.only not in (None, self.name)
            if not isinstance(param, click.Option) or without_effect:
                continue
            if (record := param.get_help_record(ctx)) is not None:
                sections[_heading(param)].append(record)
        width = max(len(name) for records in sections.values() for name, _ in records)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(name.ljust(width), about) for name, about in records])


def _heading(param: click.Option) -> str:
    row = param.row if isinstance(param, Row) else None
    return next((heading for heading, rows in GROUPS.items() if row in rows), _OTHER)


def takes(*names: str) -> Callable[[F], F]:
    """The options of these names, or all, for a click command. It hands them as keywords to `settings_of`."""
    rows = [BY_NAME[name] for name in names] if names else OPTIONS

    def add(function: F) -> F:
        for row in reversed(rows):
            function = click.option(*_names(row), cls=Row, row=row)(function)
        return function

    return add


def settings_of(
    options: Mapping[str, Any], command: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> Settings:
    """What is in force, of the keywords that a command of `takes` was called with. ConfigError."""
    flags = {name: texts for name, row in BY_NAME.items() if (texts := _given(options.get(row.key))) is not None}
    path = config_path(flags, env)
    if path is None:
        return settle(flags, env, None, command)
    from dewy.configfile import read_config_file  # with a parser behind it

    return settle(flags, env, read_config_file(path), command)


def _given(value: Any) -> tuple[str, ...] | None:
    """The texts of what click hands over; None where the option was not given."""
    match value:
        case None | ():
            return None
        case bool():
            return (str(value).lower(),)
        case tuple():
            return value
        case _:
            return (str(value),)


def completion_script(group: click.Group, shell: str) -> str:
    """What a shell has to read to complete the command lines of `group`. It then asks the program itself."""
    found = get_completion_class(shell)
    assert found is not None and group.name is not None
    return found(group, {}, group.name, f"_{group.name.upper()}_COMPLETE").source()


def error_line(error: Exception) -> str:
    """What an operator is told, on one line: `<part>: <value>: <accepted form>` of what click or dewy refused."""
    match error:
        case click.NoSuchOption():
            near = f"did you mean {' or '.join(error.possibilities)}?" if error.possibilities else "see dewy --help"
            text = f"{error.option_name}: no such option: {near}"
        case click.BadOptionUsage():
            text = f"{error.option_name}: {error.format_message()}"
        case click.ClickException():
            text = error.format_message()
        case DewyError():
            text = str(error)
        case OSError() if error.strerror:
            text = f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
        case _:
            from kvcache import scrub  # nobody has looked through this text yet

            text = scrub(f"{type(error).__name__}: {error}")
    return " ".join(text.split())
