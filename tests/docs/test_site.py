"""The site builds without a warning, takes nothing from elsewhere, and every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, name_of, pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return target


@pytest.mark.timeout(300)
def test_the_site_builds_and_shows_every_page(site: Path) -> None:
    ours = [page.relative_to(ROOT / "docs") for page in pages() if page.is_relative_to(ROOT / "docs")]
    shown = [page for page in ours if page.parts[0] != "example-store"]
    assert not [page for page in shown if not (site / page.with_suffix(".html")).is_file()]
    assert 'id="kvcache.SharedCache"' in (site / "reference" / "cache.html").read_text(encoding="utf-8")


def test_the_site_takes_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^\s\">]+")
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [to for to in links(page) if wrong(page, to)]
    assert not broken


def wrong(page: Path, to: str) -> bool:
    """Whether a link on a page leads nowhere. What is elsewhere in the world is not asked for."""
    if re.match(r"(https?|mailto):", to):
        return False
    path, _, anchor = to.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in anchors(target)


def test_every_extra_that_a_page_installs_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in pages():
        for extras in re.findall(r"kvcache-dewy\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= project["optional-dependencies"].keys(), page


def test_every_file_of_packaging_that_a_page_names_is_there() -> None:
    for page in pages():
        for name in re.findall(r"\bpackaging/[\w./-]*\w", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), (page, name)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert wrong(page, "docs/never-written.md")
    assert wrong(page, "docs/index.md#never-written")
    assert wrong(page, "/etc/passwd")
    assert not wrong(page, "docs/architecture.md#kvcache")
    text = tmp_path / "x.md"
    text.write_text("[a `b`](c.md) ![d](e.png) `[f](g.md)`\n```sh\n[h](i.md)\n```\n")
    assert list(links(text)) == ["c.md", "e.png"]
