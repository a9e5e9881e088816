"""Staging whose process is killed at any step: the old file or the new one, and no file that is nobody's."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvcache.staging import Staging
from tests.crash.dying import crashes
from tests.crash.full_disk import small_disk

OLD = b"old artifact" * 30
NEW = b"new artifact" * 40


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be had: what counts here is what a killed process leaves, not what a power loss does."""
    with small_disk(tmp_path / "disk") as disk:
        yield disk.root / "cache"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(staging: Staging, name: str, data: bytes) -> None:
    staging.put(name, io.BytesIO(data), sha256=sha256(data), size=len(data))


def values(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".kvcache" not in path.parts}


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "first"])
def test_put_killed_at_every_step(root: Path, there: bool) -> None:
    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        if there:
            put(Staging(root), "n/a", OLD)

    reset()
    seen = set()
    for _ in crashes(lambda: put(Staging(root), "n/a", NEW)):
        after = Staging(root)
        found = {data for data in (OLD, NEW) if after.get("n/a", sha256=sha256(data), size=len(data)) is not None} or {
            None
        }
        assert found <= ({OLD, NEW} if there else {None, NEW})
        seen |= found
        assert values(root) <= set(after.names()), "no file is nobody's: it would never be evicted"
        put(after, "n/b", NEW)
        assert list((root / ".kvcache" / "tmp").iterdir()) == [], "the next start sweeps"
        put(after, "n/a", NEW)
        assert after.get("n/a") is not None
        reset()
    assert Staging(root).get("n/a", sha256=sha256(NEW)) is not None
    assert seen == ({OLD, NEW} if there else {None, NEW})


def test_eviction_killed_at_every_step(root: Path) -> None:
    def reset() -> None:
        shutil.rmtree(root, ignore_errors=True)
        for name in ("n/a", "n/b"):
            put(Staging(root), name, OLD)

    reset()
    bound = len(NEW) + 10
    for _ in crashes(lambda: put(Staging(root, bound), "n/c", NEW)):
        after = Staging(root, bound)
        for name, data in (("n/a", OLD), ("n/b", OLD), ("n/c", NEW)):
            path = after.get(name)
            assert path is None or path.read_bytes() == data
        assert values(root) <= set(after.names())
        put(after, "n/d", NEW)
        assert values(root) == {"n/d"} == set(after.names())
        reset()
