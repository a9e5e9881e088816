"""Files to values and back: whole or not at all, whatever breaks on the way."""

from __future__ import annotations

import io
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvcache.conformance.check import (
    brief,
    expect,
    expect_absent,
    expect_error,
    expect_value,
    patiently,
    scratch,
)
from kvcache.errors import NotFound
from kvcache.kvs import Store

SIZES = {"empty": 0, "small": 1000, "several parts": 9 * 1024 * 1024 + 1}


class SourceFailed(Exception):
    """Raised by a source, or by a progress function, of the check's own."""


class _BreakingSource(io.RawIOBase):
    """Gives some bytes, and then fails as a disk or a socket would."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise SourceFailed("the source broke")
        step = min(self._left, size if size >= 0 else self._left)
        self._left -= step
        return b"x" * step


class _Pipe(io.RawIOBase):
    """A source that can only be read forwards, in small pieces, and does not know its size."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 7000) if size >= 0 else 7000)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def check_upload_and_download(store: Store) -> None:
    """A file of any size arrives byte for byte in the store and back, and progress ends at its size."""
    with scratch(store) as key, _directory() as directory:
        for name, size in SIZES.items():
            data = secrets.token_bytes(size)
            source = directory / "source"
            source.write_bytes(data)
            up: list[int] = []
            version = store.upload(key(name), source, progress=up.append)
            _expect_progress(up, size, f"uploading {size} bytes")
            expect(store.stat(key(name)).version == version, "upload returned another version than stat tells")
            expect_value(store, key(name), data, f"uploading {size} bytes")

            target, down = directory / f"target of {name}", list[int]()
            stat = store.download(key(name), target, progress=down.append)
            _expect_progress(down, size, f"downloading {size} bytes")
            expect(target.read_bytes() == data, f"downloading {size} bytes gave {brief(target.read_bytes())}")
            expect((stat.size, stat.version) == (size, version), f"download returned {stat} for {size} bytes")
        expect(len(list(directory.iterdir())) == len(SIZES) + 1, "uploads or downloads left files behind")


def check_upload_of_file_objects(store: Store) -> None:
    """A binary file is read from where it stands, also one that cannot seek and does not know its size."""
    with scratch(store) as key:
        positioned = io.BytesIO(b"skipped, and this is the value")
        positioned.seek(9)
        store.upload(key("positioned"), positioned)
        expect_value(store, key("positioned"), b"and this is the value", "uploading an open file")
        data = secrets.token_bytes(6 * 1024 * 1024)
        store.upload(key("pipe"), _Pipe(data))  # type: ignore[arg-type]  # the part of BinaryIO that uploads need
        expect_value(store, key("pipe"), data, "uploading a source without seek")


def check_upload_replaces(store: Store) -> None:
    """An upload replaces the value whole; a download replaces the file whole."""
    with scratch(store) as key, _directory() as directory:
        store.write(key("a"), b"a value that is longer than the upload")
        patiently(store.upload, key("a"), io.BytesIO(b"uploaded"))
        expect_value(store, key("a"), b"uploaded", "uploading over a value")
        target = directory / "target"
        target.write_bytes(b"a file that is longer than the download")
        store.download(key("a"), str(target))
        expect(target.read_bytes() == b"uploaded", f"downloading over a file gave {brief(target.read_bytes())}")


def check_upload_that_breaks(store: Store) -> None:
    """When the source fails, its error is raised, the old value stays, and an absent key stays absent."""
    with scratch(store) as key:
        store.write(key("old"), b"old value")
        for name in ("old", "new"):
            for size in (0, 10, SIZES["several parts"]):
                source = _BreakingSource(size)
                doing = f"uploading a source that fails after {size} bytes"
                expect_error(SourceFailed, doing, store.upload, key(name), source)  # type: ignore[arg-type]
        expect_value(store, key("old"), b"old value", "an upload that broke")
        expect_absent(store, key("new"), "an upload that broke")
        expect(list(store.list(key(""))) == [key("old")], "an upload that broke left something that is listed")


def check_download_that_breaks(store: Store) -> None:
    """A download that cannot be finished leaves no file, and a file that was there as it was."""

    def fail(_: int) -> None:
        raise SourceFailed("the progress function broke")

    with scratch(store) as key, _directory() as directory:
        target = directory / "target"
        expect_error(NotFound, "downloading an absent key", store.download, key("absent"), target)
        store.write(key("a"), secrets.token_bytes(100_000))
        expect_error(SourceFailed, "downloading with a failing progress", store.download, key("a"), target, fail)
        left = [path.name for path in directory.iterdir()]
        expect(not left, f"downloads that failed left {left}")

        target.write_bytes(b"old file")
        expect_error(NotFound, "downloading an absent key", store.download, key("absent"), target)
        expect_error(SourceFailed, "downloading with a failing progress", store.download, key("a"), target, fail)
        expect(target.read_bytes() == b"old file", "a download that failed changed the file that was there")
        left = [path.name for path in directory.iterdir()]
        expect(left == ["target"], f"downloads that failed left {left}")


def _expect_progress(told: list[int], size: int, doing: str) -> None:
    expect(told == sorted(told), f"{doing} told a progress that goes back: {told[:10]}")
    if size:
        expect(bool(told) and told[-1] == size, f"{doing} told a progress that ends at {told[-1:] or 'nothing'}")
