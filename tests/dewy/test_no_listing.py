"""C17: a cache store may hold any number of objects; no tick and no deploy ever lists them."""

from __future__ import annotations

import pytest

from kvcache.backends.file import FileStore
from tests.dewy.test_artifact import DATA, World, server, world

__all__ = ["server", "world"]  # fixtures


@pytest.mark.parametrize("conditional", [True, False])
def test_nothing_is_listed(world: World, monkeypatch: pytest.MonkeyPatch, conditional: bool) -> None:
    listed = []
    monkeypatch.setattr(FileStore, "list", lambda self, prefix="": listed.append(prefix) or iter(()))
    announced = world.publish()
    for name in ("first", "second"):
        staged = world.node(name, conditional=conditional).obtain(announced)
        assert staged.path.read_bytes() == DATA
    assert staged.source == "store" and listed == []
    list(world.store().list())
    assert listed == [""], "it would have been noticed"
