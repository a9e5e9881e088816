"""Every block of shell and Python that the documentation prints is run as printed; every file that it prints is read.

A page is one program, so that what it does first the rest of it builds on. What cannot be run stands in `not_run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.not_run import NOT_RUN
from tests.docs.pages import blocks, name_of, pages
from tests.docs.program import EXAMINED, SHELL, command_of, logical_lines, run
from tests.docs.world import Servers, World

PAGES = [page for page in pages() if any(block.language in EXAMINED for block in blocks(page))]
AT_A_TIME = 3
"""Most of a page's time is waiting: for a poll, for a new release to have been up for a moment."""


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, page_servers: Servers
) -> Iterator[dict[Path, Future[str]]]:
    """All pages that are asked for, under way. Their worlds are made one by one: servers start in this thread."""
    items = [item for item in request.session.items if item.path == request.path]
    wanted = {item.callspec.params["page"] for item in items if isinstance(item, pytest.Function) and item.callspec}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {page: under_way(page, tmp_path_factory, page_servers, pool) for page in PAGES if page in wanted}


def under_way(
    page: Path, directories: pytest.TempPathFactory, servers: Servers, pool: ThreadPoolExecutor
) -> Future[str]:
    examined = [block for block in blocks(page) if block.language in EXAMINED]
    text = "\n".join(block.text for block in examined)
    world = World(name_of(page), text, directories.mktemp("page", numbered=True) / "page", servers)
    world.publish_directories()
    return pool.submit(run, examined, world, {command for where, command in NOT_RUN if where == world.page})


@pytest.mark.servers
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_does_what_it_says(page: Path, runs: dict[Path, Future[str]]) -> None:
    runs[page].result()


@pytest.mark.parametrize("page", sorted({page for page, _ in NOT_RUN}))
def test_what_is_not_run_is_still_printed(page: str) -> None:
    printed = {
        command_of(line)
        for path in pages()
        if name_of(path) == page
        for block in blocks(path)
        if block.language in SHELL
        for line in logical_lines(block.text)
    }
    gone = {command for where, command in NOT_RUN if where == page} - printed
    assert not gone, f"{page} prints these no more; take them from tests/docs/not_run.py"
