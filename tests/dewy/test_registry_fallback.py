"""R6: the newest release that lacks the artifact, or is of another slot, at each kind of registry."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dewy.errors import ArtifactNotFound, ConfigError
from dewy.registry import Announced, Pending, open_registry
from kvcache import NOT_MODIFIED, LoadContext
from tests.dewy.github_repo import LINUX, NAME, Repo, announced, ask

MAC = {"app_darwin_arm64.tar.gz": b"mac"}


def test_github_falls_back_and_comes_back(repo: Repo) -> None:
    repo.publish("v1.0.0")
    repo.publish("v2.0.0", MAC)
    with pytest.raises(ArtifactNotFound, match=r"release v2\.0\.0"):
        ask(repo.open())
    registry = repo.open(fallback=True)
    first = ask(registry)
    assert (announced(first).tag, announced(first).newest) == ("v1.0.0", "v2.0.0")
    assert ask(registry, first) is NOT_MODIFIED  # costs no more than any other answer
    repo.publish("v3.0.0")
    second = ask(registry, first)
    assert (announced(second).tag, announced(second).newest) == ("v3.0.0", "")


def test_github_s_slots(repo: Repo) -> None:
    for tag in ("v1.0.0+green", "v1.0.0+blue", "v2.0.0+green"):
        repo.publish(tag)
    assert announced(ask(repo.open(slot="blue"))).tag == "v2.0.0+green"
    found = announced(ask(repo.open(slot="blue", fallback=True)))
    assert (found.tag, found.slot, found.newest) == ("v1.0.0+blue", "blue", "")


def test_nodes_that_may_get_different_answers_have_different_scopes(repo: Repo) -> None:
    scopes = [repo.open(slot=slot, fallback=on).scope for slot in ("", "blue", "green") for on in (False, True)]
    assert len(set(scopes)) == 6 and scopes[0] == repo.open().scope


def put(top: Path, key: str) -> Path:
    file = top / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"data")
    return file


def test_a_directory_falls_back_but_not_below_what_was_announced(tmp_path: Path) -> None:
    def look(last: Announced | None = None) -> tuple[Announced, Pending | None]:
        value, extra = (last.to_value(), last.extra()) if last else (None, None)
        registry = open_registry(f"file://{tmp_path}", env={}, platform=LINUX, fallback=True)
        loaded: Any = registry.current(LoadContext(value, None, extra, time.monotonic() + 10))
        return Announced.from_value(loaded.value, loaded.extra), Pending.from_extra(loaded.extra)

    put(tmp_path, f"v1.0.0/{NAME}")
    put(tmp_path, "v2.0.0/app_darwin_arm64.tar.gz")
    announced, pending = look()
    assert (announced.tag, announced.newest, pending) == ("v1.0.0", "v2.0.0", None)
    linux = put(tmp_path, f"v2.0.0/{NAME}")
    announced, pending = look(announced)
    assert (announced.tag, announced.newest, pending) == ("v2.0.0", "", None)
    linux.unlink()
    kept, pending = look(announced)
    assert kept.tag == "v2.0.0" and pending is not None and pending.tag == "v2.0.0"
    assert look()[0].tag == "v1.0.0"  # a fleet that starts anew
    (tmp_path / "v2.0.0" / "app_darwin_arm64.tar.gz").rename(tmp_path / "mac")  # the version goes altogether
    announced, pending = look(kept)
    assert (announced.tag, pending) == ("v1.0.0", None)


@pytest.mark.parametrize("parameter", ["slot=blue", "fallback=true", "checksums=off"])
@pytest.mark.parametrize("place", ["ghr://o/r", "file:///d"])
def test_the_options_are_no_parameters_of_a_url(place: str, parameter: str) -> None:
    with pytest.raises(ConfigError, match="parameter"):
        open_registry(f"{place}?{parameter}", env={}, platform=LINUX)
