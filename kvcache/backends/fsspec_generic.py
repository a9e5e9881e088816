"""Any file system that fsspec knows (`sftp://`, `webdav://`, `hdfs://`, `smb://`, `dir::...`): the plain interface.

No conditional writes: fsspec has none that all file systems keep. A value is replaced at once where the file system has
a rename that does so, or shows a file only when it is complete; `capabilities.atomic_replace` says whether. A version
is a digest of the content, since nothing better is common to all, so `stat` reads the value. What the URL's query says
is handed to the file system, as by `fsspec.open`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from kvcache.backends.local import Rising, chunks, opened
from kvcache.backends.wire import PerProcess
from kvcache.errors import InvalidKey, InvalidURL, NotFound, StoreUnavailable, Unsupported
from kvcache.kvs import ANYWAY, Capabilities, Condition, Progress, Source, Stat, Store, Stored, Version, check_key
from kvcache.redaction import redact
from kvcache.url import COMMON_PARAMETERS, StoreURL

P = ParamSpec("P")
T = TypeVar("T")

RENAMES: Final = frozenset({"file", "local", "sftp", "ssh", "webdav", "dav"})
"""Protocols whose rename replaces what is there, at once."""
TAKES_WHOLE: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos"})
"""Protocols where a file appears when it is complete."""
BLOCK: Final = 1 << 20
TEMPORARY: Final = ".kvcache-tmp-"
"""How the names of files begin that are not complete yet; they are not listed."""

_NOT_A_NAME: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
)


def open(url: StoreURL) -> Store:
    """Opens the store. InvalidURL; StoreUnavailable from file systems that connect at once."""
    options = {name: _value(text) for name, text in url.params.items() if name not in COMMON_PARAMETERS}
    return FsspecStore(url, options)


def _value(text: str) -> Any:
    """An option of a file system as Python has it."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.isascii() and text.isdigit() else text


class FsspecStore(Store):
    """See the module. Operations take turns: few file systems may be used from several threads."""

    def __init__(self, url: StoreURL, options: dict[str, Any]) -> None:
        self.url = url.redacted
        self._address = url.address
        self._options = options
        self._turn = threading.RLock()  # protects the file system, which may be one connection
        self._place: PerProcess[tuple[Any, str]] = PerProcess(self._connect)
        self._protocol = _protocol(self._place.get()[0])
        atomic = self._protocol in RENAMES | TAKES_WHOLE
        self._capabilities = Capabilities(atomic_replace=atomic, unique_versions=False)

    def _connect(self) -> tuple[Any, str]:
        """The file system, and the folder in it with a slash at its end (empty: its top)."""
        from fsspec.core import url_to_fs

        try:
            files, root = url_to_fs(self._address, **self._options, skip_instance_cache=True, use_listings_cache=False)
        except ImportError as error:
            raise InvalidURL(f"{self.url}: a package is missing: {_line(error)}") from error
        except (TypeError, ValueError) as error:
            raise InvalidURL(f"{self.url}: the file system does not take this: {_line(error)}") from error
        except Exception as error:  # whatever the file system's own library raises when it connects
            raise StoreUnavailable(f"{self.url}: cannot connect: {_line(error)}") from error
        if type(files).__name__ == "DirFileSystem":
            root = ""  # it begins where the URL says
        return files, f"{root.rstrip('/')}/" if root else ""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- values -------------------------------------------------------------------------------------------------------

    def read_versioned(self, key: str) -> Stored:
        with self._turn:
            files, path = self._find(key)
            data = bytes(self._ask(key, "read", files.cat_file, path))
        return Stored(data, _version(hashlib.sha256(data)))

    def put(self, key: str, data: bytes, condition: Condition) -> Version:
        if condition is not ANYWAY:
            raise Unsupported(f"{self.url}: this store has no conditional writes")
        return self.upload(key, io.BytesIO(data))

    def delete(self, key: str) -> None:
        with self._turn, contextlib.suppress(NotFound):
            files, path = self._find(key)
            self._ask(key, "delete", files.rm_file, path)

    def list(self, prefix: str = "") -> Iterator[str]:
        if "//" in prefix or ".." in prefix.split("/"):
            return iter(())  # no key begins so, and a file system would take it for another folder
        folder = prefix.rpartition("/")[0]
        with self._turn:
            files, root = self._place.get()
            try:
                found = self._ask("", "list", files.find, root + folder or "/", withdirs=False)
            except NotFound:
                found = []
        start = root.removeprefix("/")
        names = (name.removeprefix("/") for name in found)
        keys = sorted(name[len(start) :] for name in names if name.startswith(start + prefix))
        return (key for key in keys if not key.rpartition("/")[2].startswith(TEMPORARY))

    def stat(self, key: str) -> Stat:
        with self._turn:
            return self._copy(key, "look up", lambda block: None)

    # -- streams ------------------------------------------------------------------------------------------------------

    def upload(self, key: str, source: Source, progress: Progress | None = None) -> Version:
        digest, size, report = hashlib.sha256(), 0, Rising(progress)
        with opened(source) as given, self._turn:
            files, path = self._find(key)
            self._ask(key, "write", _make_folder, files, path)
            folder, slash, _ = path.rpartition("/")
            target = f"{folder}{slash}{TEMPORARY}{secrets.token_hex(8)}"
            if self._protocol in TAKES_WHOLE:
                target = path
            file = self._ask(key, "write", files.open, target, "wb")
            try:
                for block in chunks(given, BLOCK):
                    self._ask(key, "write", file.write, block)
                    digest.update(block)
                    size += len(block)
                    report(size)
                self._ask(key, "write", file.close)
                if target != path:
                    self._ask(key, "write", _rename, files, target, path, self._protocol)
            except BaseException:
                _abandon(files, file, target if target != path else None)
                raise
        return _version(digest)

    def download(self, key: str, path: str | os.PathLike[str], progress: Progress | None = None) -> Stat:
        check_key(key)
        target, report, size = Path(path), Rising(progress), 0
        partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(8)}.part")
        try:
            with partial.open("xb") as local:

                def keep(block: bytes) -> None:
                    nonlocal size
                    local.write(block)
                    size += len(block)
                    report(size)

                with self._turn:
                    stat = self._copy(key, "read", keep)
                local.flush()
                os.fsync(local.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return stat

    def _copy(self, key: str, doing: str, keep: Callable[[bytes], None]) -> Stat:
        """Reads a value through, a block at a time."""
        files, path = self._find(key)
        digest, size = hashlib.sha256(), 0
        file = self._ask(key, doing, files.open, path, "rb")
        try:
            while block := self._ask(key, doing, file.read, BLOCK):
                keep(block)
                digest.update(block)
                size += len(block)
        finally:
            file.close()
        return Stat(size, _version(digest), _modified(self._ask(key, doing, files.info, path)))

    # -- the file system ----------------------------------------------------------------------------------------------

    def _find(self, key: str) -> tuple[Any, str]:
        files, root = self._place.get()
        return files, root + check_key(key)

    def _ask(self, key: str, doing: str, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Calls the file system; its errors become ours."""
        what = f"{self.url}: cannot {doing} {key!r}" if key else f"{self.url}: cannot {doing}"
        try:
            return call(*arguments, **named)
        except FileNotFoundError as error:
            raise NotFound(key) from error
        except (NotADirectoryError, IsADirectoryError) as error:
            if doing != "write":  # a folder is no value, and below a file there is nothing
                raise NotFound(key) from error
            raise InvalidKey(f"{what}: not a name for a file there: {_line(error)}") from error
        except Exception as error:  # each file system has a library of its own, with exceptions of its own
            if isinstance(error, FileExistsError) or (isinstance(error, OSError) and error.errno in _NOT_A_NAME):
                raise InvalidKey(f"{what}: not a name for a file there: {_line(error)}") from error
            raise StoreUnavailable(f"{what}: {_line(error)}") from error


def _protocol(files: Any) -> str:
    """Of the file system that keeps the bytes: `dir::` is only a view of another."""
    while type(files).__name__ == "DirFileSystem":
        files = files.fs
    protocol = files.protocol
    return str(protocol if isinstance(protocol, str) else protocol[0])


def _make_folder(files: Any, path: str) -> None:
    folder = path.rpartition("/")[0]
    if folder:
        files.makedirs(folder, exist_ok=True)


def _rename(files: Any, source: str, target: str, protocol: str) -> None:
    """Gives a complete file its name: at once where the file system can."""
    if files.isdir(target):  # a move would put it in there
        raise IsADirectoryError(errno.EISDIR, "there is a folder of this name", target)
    if protocol in RENAMES:
        files.mv(source, target)
    else:  # fsspec's own mv takes * and [ in names for patterns
        files.cp_file(source, target)
        files.rm_file(source)


def _abandon(files: Any, file: Any, temporary: str | None) -> None:
    """Gives up a file that is being written. Where closing it would complete it, it is not closed."""
    with contextlib.suppress(Exception):  # the error that led here is the one to tell
        if temporary is not None:
            file.close()
            files.rm_file(temporary)
        elif hasattr(file, "discard"):
            file.closed = True
            file.discard()


def _modified(info: dict[str, Any]) -> float | None:
    for name in ("mtime", "modified", "LastModified", "last_modified", "created"):
        moment = info.get(name)
        if isinstance(moment, datetime):
            return moment.timestamp()
        if isinstance(moment, int | float):
            return float(moment)
    return None


def _version(digest: Any) -> Version:
    return Version(f"sha256:{digest.hexdigest()}")


def _line(error: BaseException) -> str:
    text = redact(" ".join(str(error).split()))[:200]  # some libraries show the address with its password
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
