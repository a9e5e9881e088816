"""`sqlite:///abs/file.db`: a store in one SQLite file, shared by the processes of one host.

An example of a store of one's own, small and complete: it keeps the whole contract, conditional writes included, and
uses nothing of kvcache but what `kvcache` exports. SQLite does the hard part: a transaction that has begun IMMEDIATE
is alone, so what it reads still holds when it writes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import kvcache

PARAMETERS = {"timeout"}
DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for another process to end its transaction."""
MAX_VALUE_BYTES = 16 * 2**20
"""A value is in memory once while it is written, so there has to be an end to it."""
BLOCK = 2**18

SCHEMA = """
create table if not exists kv (key text primary key, data blob not null, version text not null, modified real not null)
without rowid
"""


def open(url: kvcache.StoreURL) -> kvcache.Store:
    """The store of a URL. InvalidURL: before anything is opened, and in one line."""
    url.reject_unknown(PARAMETERS)
    if url.host or url.user or url.password or url.port:
        raise url.invalid("host", url.host, "none: sqlite:///abs/file.db")
    path = Path(url.require("path", url.path, "sqlite:///abs/file.db"))
    if not path.parent.is_dir():
        raise url.invalid("path", url.path, "a file in a directory that exists")
    return SQLiteStore(path, url.redacted, url.take_duration("timeout", DEFAULT_TIMEOUT))


class SQLiteStore(kvcache.Store):
    """One table. Each operation has a connection of its own, so threads and forked children may share the store."""

    def __init__(self, path: Path, url: str, timeout: float) -> None:
        self.url = url
        self._path = path
        self._timeout = timeout
        with self._connected("open it") as db:
            db.execute("pragma journal_mode = wal")  # readers do not wait for writers
            db.execute(SCHEMA)

    @property
    def capabilities(self) -> kvcache.Capabilities:
        return kvcache.Capabilities(
            conditional_write=True, scope="host", store_time=True, max_value_bytes=MAX_VALUE_BYTES
        )

    # -- values -------------------------------------------------------------------------------------------------------

    def read_versioned(self, key: str) -> kvcache.Stored:
        data, version = self._row(key, "data, version")
        return kvcache.Stored(data, kvcache.Version(version), time.time())

    def put(self, key: str, data: bytes, condition: kvcache.Condition) -> kvcache.Version:
        kvcache.check_key(key)
        if len(data) > MAX_VALUE_BYTES:
            raise kvcache.TooLarge(f"{self.url}: {key}: more than {MAX_VALUE_BYTES} bytes")
        version = kvcache.Version(secrets.token_hex(8))  # by chance, so that it never comes back
        with self._connected(f"write {key!r}") as db:
            db.execute("begin immediate")
            found = db.execute("select version from kv where key = ?", (key,)).fetchone()
            held = kvcache.Version(found[0]) if found else kvcache.ABSENT
            if condition not in (kvcache.ANYWAY, held):
                raise kvcache.Conflict(key)
            db.execute("replace into kv values (?, ?, ?, ?)", (key, data, version.token, time.time()))
            self._commit(db, key)
        return version

    def delete(self, key: str) -> None:
        kvcache.check_key(key)
        with self._connected(f"delete {key!r}") as db:
            db.execute("begin immediate")
            db.execute("delete from kv where key = ?", (key,))
            self._commit(db, key)

    def list(self, prefix: str = "") -> Iterator[str]:
        with self._connected("list keys") as db:
            rows = db.execute("select key from kv where substr(key, 1, ?) = ? order by key", (len(prefix), prefix))
            return iter([key for (key,) in rows])

    def stat(self, key: str) -> kvcache.Stat:
        size, version, modified = self._row(key, "length(data), version, modified")
        return kvcache.Stat(size, kvcache.Version(version), modified)

    # -- streams ------------------------------------------------------------------------------------------------------

    def upload(self, key: str, source: kvcache.Source, progress: kvcache.Progress | None = None) -> kvcache.Version:
        kvcache.check_key(key)
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return self.upload(key, file, progress)
        return self.write(key, self._collected(key, source, progress))

    def _collected(self, key: str, source: BinaryIO, progress: kvcache.Progress | None) -> bytes:
        data = bytearray()
        while block := source.read(BLOCK):
            data += block
            if len(data) > MAX_VALUE_BYTES:
                raise kvcache.TooLarge(f"{self.url}: {key}: more than {MAX_VALUE_BYTES} bytes")
            if progress is not None:
                progress(len(data))
        return bytes(data)

    def download(
        self, key: str, path: str | os.PathLike[str], progress: kvcache.Progress | None = None
    ) -> kvcache.Stat:
        data, version, modified = self._row(key, "data, version, modified")
        target = Path(path)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as file:
            try:
                for start in range(0, len(data), BLOCK):
                    file.write(data[start : start + BLOCK])
                    if progress is not None:
                        progress(file.tell())
                file.flush()
                Path(file.name).replace(target)  # whole, or not at all
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return kvcache.Stat(len(data), kvcache.Version(version), modified)

    # -- SQLite -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _connected(self, doing: str) -> Iterator[sqlite3.Connection]:
        """A connection. What SQLite raises becomes ours here, and a transaction that is not committed is undone."""
        try:
            with closing(sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None)) as db:
                yield db
        except sqlite3.Error as error:
            raise kvcache.StoreUnavailable(f"{self.url}: cannot {doing}: {error}") from error

    def _commit(self, db: sqlite3.Connection, key: str) -> None:
        try:
            db.execute("commit")
        except sqlite3.Error as error:  # it may have reached the disk: nobody can tell
            raise kvcache.AmbiguousWrite(f"{self.url}: {key}: {error}") from error

    def _row(self, key: str, columns: str) -> tuple[Any, ...]:
        kvcache.check_key(key)
        with self._connected(f"read {key!r}") as db:
            row: tuple[Any, ...] | None = db.execute(f"select {columns} from kv where key = ?", (key,)).fetchone()
        if row is None:
            raise kvcache.NotFound(key, store_time=time.time())
        return row
