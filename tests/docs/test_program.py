"""The runner of pages finds what is wrong with a page."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.docs.pages import Block, blocks
from tests.docs.program import Failed, command_of, run
from tests.docs.world import Servers, World


def page(tmp_path: Path, *texts: tuple[str, str], not_run: frozenset[str] = frozenset()) -> str:
    tmp_path.mkdir(exist_ok=True)
    made = [Block("page.md", number * 10, language, text) for number, (language, text) in enumerate(texts, 1)]
    world = World("page.md", "\n".join(block.text for block in made), tmp_path / "page", cast(Servers, None))
    return run(made, world, set(not_run))


def test_blocks_share_one_shell(tmp_path: Path) -> None:
    printed = page(tmp_path, ("sh", "mkdir a && cd a\nexport X=1\n"), ("sh", 'test "$X" = 1; basename "$PWD"\n'))
    assert printed.endswith("a\n")


def test_a_command_that_fails_fails_the_page_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"page\.md:20"):
        page(tmp_path, ("sh", "true\n"), ("sh", "false\n"), ("sh", "true\n"))


def test_what_a_command_prints_has_to_be_what_the_page_says(tmp_path: Path) -> None:
    page(tmp_path, ("console", "$ echo one two\none …\n$ true\n"))
    with pytest.raises(Failed, match="should print"):
        page(tmp_path / "again", ("console", "$ echo one\ntwo\n"))


def test_files_are_parsed_and_written_for_the_commands_after_them(tmp_path: Path) -> None:
    assert "a = 1" in page(tmp_path, ("toml", "# x.toml\na = 1\n"), ("sh", "cat x.toml\n"))
    with pytest.raises(ValueError, match="Invalid"):
        page(tmp_path / "again", ("toml", "a = \n"))


def test_what_is_not_to_be_run_is_left_out_with_all_its_lines(tmp_path: Path) -> None:
    text = "pip install \\\n    x   # or y\necho done\n"
    assert "done" in page(tmp_path, ("sh", text), not_run=frozenset({"pip install x"}))
    assert command_of("$ make  test   # all") == "make  test"


def test_absolute_paths_and_ports_lead_into_the_world(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    world = World("page.md", "file:///srv/releases", tmp_path / "x" / "page", cast(Servers, None))
    assert world.moved("file:///srv/releases") == f"file://{world.absolute}/srv/releases"
    assert world.moved("./opt/x $HOME/opt/x") == "./opt/x $HOME/opt/x"
    assert world.moved("-p 8000 http://localhost:8000/") == f"-p 127.0.0.1:{world.port} http://127.0.0.1:{world.port}/"
    assert (world.absolute / "srv/releases").is_dir()


def test_fences_are_found_where_they_are_indented(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("1. a\n\n   ```sh\n   ls\n   ```\n\n```\nnot run\n```\n")
    assert [(block.language, block.text) for block in blocks(path)] == [("sh", "ls\n"), ("", "not run\n")]
