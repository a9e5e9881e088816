"""The table of options, its page and its help text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dewy import cli
from dewy.configfile import interpret
from dewy.options import GROUPS, OPTIONS
from dewy.settings import OTHER_VARIABLES, settle
from tests.dewy.options_page import PAGE, updated


def test_the_page_has_every_option_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == updated(page), "run: python -m tests.dewy.options_page"


def test_the_page_s_file_is_one_that_dewy_takes() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    settings = settle({}, {}, interpret(Path("dewy.toml"), tomllib.loads(text)))
    assert settings.values()["interval"] == 30.0 and settings.command == ("./current/app", "--verbose")


def test_names_are_used_once() -> None:
    for names in (
        [option.name for option in OPTIONS],
        [option.field for option in OPTIONS],
        [option.short for option in OPTIONS if option.short],
        [option.variable for option in OPTIONS] + sorted(OTHER_VARIABLES),
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_row_is_sound(option) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name)
    assert option.about[0].isupper() or option.about.startswith("debug") or option.about.startswith("text")
    assert option.about.endswith(".") and "\n" not in option.about
    option.kind.read(option.default_texts)  # its own default is accepted
    assert option.kind.is_flag == (option.default in ("true", "false"))
    assert (option.only is None) == (option.why_not == "")


@pytest.mark.parametrize("mode", ["server", "assets"])
def test_help_has_every_option_that_has_an_effect_under_its_heading(mode: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([mode, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    sections = {found[1]: found[2] for found in re.finditer(r"^(\S[^\n]*):\n(.*?)(?=^\S|\Z)", out, re.M | re.S)}
    for heading, rows in GROUPS.items():
        for row in rows:
            listed = re.search(rf"(^|\s){row.flag}\b(?!-)", sections.get(heading, ""), re.M) is not None
            assert listed == (row.only in (None, mode)), row.name
            if listed and row.short:
                assert f"-{row.short}, {row.flag}" in sections[heading]
    assert "Examples:" in out and "Exit codes:" in out and "dewy config" in out
