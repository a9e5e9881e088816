"""A node's last known answers on its own disk, for the day on which it starts and the store is down."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kvcache.codec import decode, encode
from kvcache.drive import logger
from kvcache.errors import CorruptRecord
from kvcache.events import Recalled
from kvcache.record import Answer, answered


class LocalCopy:
    """One small file per key in `directory`, replaced by rename. Losing one costs nothing but the fallback.

    Ages are kept on this host's wall clock while no process runs: the one place where it is used, since nothing
    else outlives the process.
    """

    def __init__(self, directory: str | os.PathLike[str], wall: Callable[[], float] = time.time) -> None:
        self._directory = Path(directory)
        self._wall = wall

    def save(self, key: str, answer: Answer, age: float) -> None:
        """Keeps `answer`, `age` seconds old now. A full disk is logged, and else ignored."""
        head = json.dumps({"key": key, "saved_at": self._wall(), "age": age}).encode()
        data = head + b"\n" + encode(answered(answer, nonce="local"))
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(temporary).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            logger.warning("cannot keep a local copy of %s in %s: %s", key, path.parent, error.strerror)

    def recall(self, key: str) -> Recalled:
        """The copy and its age; Recalled(None) where there is none that can be read."""
        try:
            head, _, body = self._path(key).read_bytes().partition(b"\n")
            facts = json.loads(head)
            answer = decode(body).answer
            if facts["key"] != key or answer is None:
                return Recalled(None)
            return Recalled(answer, facts["age"] + max(0.0, self._wall() - facts["saved_at"]))
        except (OSError, ValueError, KeyError, TypeError, CorruptRecord):
            return Recalled(None)

    def _path(self, key: str) -> Path:
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
