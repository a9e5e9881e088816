"""Any fsspec file system: URLs, layout, what it says of itself, what breaks. The contract: test_contract.py."""

from __future__ import annotations

import io

import pytest
from fsspec.registry import known_implementations

import kvcache.url
from kvcache.errors import InvalidKey, InvalidURL, NotFound, StoreUnavailable, Unsupported
from kvcache.kvs import ABSENT


def test_a_value_is_the_file_of_its_name(tmp_path):
    with kvcache.url.open_store(f"local://{tmp_path}/root?registry-ttl=30s&max-size=1MiB") as store:
        store.write("a/b c%", b"value")
        assert (tmp_path / "root/a/b c%").read_bytes() == b"value"
        (tmp_path / "root/a/by hand").write_bytes(b"other")
        assert list(store.list()) == ["a/b c%", "a/by hand"]
        assert store.read("a/by hand") == b"other"
        assert store.capabilities.atomic_replace
        assert not store.capabilities.conditional_write
        with pytest.raises(Unsupported):
            store.write_if("a", b"x", ABSENT)


def test_a_view_of_a_folder(tmp_path):
    with kvcache.url.open_store(f"dir::file://{tmp_path}") as store:
        store.write("a/b", b"value")
        assert (tmp_path / "a/b").read_bytes() == b"value"
        assert store.capabilities.atomic_replace


def test_the_query_holds_the_file_systems_options(tmp_path):
    with kvcache.url.open_store(f"local://{tmp_path}?auto_mkdir=true") as store:
        assert store._place.get()[0].auto_mkdir is True
    with pytest.raises(InvalidURL, match="does not take this"):
        kvcache.url.open_store("ftp://127.0.0.1/x?port=abc")


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(
        known_implementations,
        "missing",
        {"class": "no_such_package.FileSystem", "err": "install no-such-package"},
    )
    with pytest.raises(InvalidURL, match=r"a package is missing: .*no-such-package"):
        kvcache.url.open_store("missing://x")


def test_a_file_system_that_does_not_answer():
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        kvcache.url.open_store("ftp://127.0.0.1:1/x?timeout=1")


def test_secrets_are_not_shown():
    with pytest.raises(StoreUnavailable) as caught:
        kvcache.url.open_store("ftp://user:hunter2@127.0.0.1:1/x?timeout=1&password=hunter2")
    assert "hunter2" not in str(caught.value)


class Breaking(io.RawIOBase):
    def __init__(self) -> None:
        super().__init__()
        self._left = 3 << 20

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise OSError("the disk broke")
        self._left -= size
        return bytes(size)


@pytest.mark.parametrize("url", ["local://{}", "dir::file://{}", "dir::memory://{}"])
def test_an_upload_that_breaks_leaves_nothing(tmp_path, url):
    with kvcache.url.open_store(url.format(tmp_path)) as store:
        store.write("key", b"old")
        with pytest.raises(OSError, match="the disk broke"):
            store.upload("key", Breaking())
        assert store.read("key") == b"old"
        files, root = store._place.get()
        assert [name.rpartition("/")[2] for name in files.find(root or "/")] == ["key"]


def test_a_folder_is_no_value_and_stays(tmp_path):
    with kvcache.url.open_store(f"local://{tmp_path}") as store:
        store.write("a/b", b"value")
        with pytest.raises(InvalidKey):
            store.write("a", b"x")
        with pytest.raises(NotFound):
            store.read("a")
        with pytest.raises(NotFound):
            store.stat("a/b/c")
        assert list(store.list()) == ["a/b"]
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_downloads_are_whole_or_absent(tmp_path):
    with kvcache.url.open_store(f"local://{tmp_path}/root") as store:
        stat = store.upload("key", io.BytesIO(bytes(3 << 20))) and store.download("key", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == bytes(3 << 20)
        assert stat == store.stat("key")

        def fail(done: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.download("key", tmp_path / "other", fail)
        with pytest.raises(NotFound):
            store.download("missing", tmp_path / "other")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "root"]
