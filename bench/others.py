"""Artifacts up and down on the stores that are not S3 or GCS (for these see transfer.py), beside fsspec's clients."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import kvcache
from bench.page import MIB, Scale, load, spread, table
from tests.servers import Azurite, Consul, Redis

Client = tuple[str, str, int, Callable[[], object], Callable[[], object]]
"""Store, client, bytes, up and down."""
CONSUL = 16
"""Times that Consul's artifact is smaller: it is held in memory, and no place for artifacts."""


def _source(directory: Path, size: int) -> Path:
    file = directory / f"source-{size}"
    if not file.exists():
        chance = random.Random(1)
        file.write_bytes(b"".join(chance.randbytes(MIB // 16) for _ in range(size * 16 // MIB)))
    return file


def _ours(stack: ExitStack, url: str, name: str, size: int, directory: Path) -> Client:
    store = stack.enter_context(kvcache.open_store(url))
    source, target = _source(directory, size), directory / "target"
    return name, "kvcache", size, lambda: store.upload("big", source), lambda: store.download("big", target)


def clients(stack: ExitStack, directory: Path, size: int) -> Iterator[Client]:
    source, target = _source(directory, size), directory / "target"
    files = directory / "files"
    files.mkdir()
    yield _ours(stack, f"file://{files}", "file", size, directory)
    copy = files / "copied"
    yield "file", "shutil.copyfile", size, lambda: shutil.copyfile(source, copy), lambda: shutil.copyfile(copy, target)
    redis = stack.enter_context(Redis())
    yield _ours(stack, redis.store_url(), "redis", size, directory)
    client = stack.enter_context(redis.client())
    yield (
        "redis",
        "redis-py, whole in memory",
        size,
        lambda: client.set("whole", source.read_bytes()),
        lambda: target.write_bytes(client.get("whole")),
    )
    yield _ours(stack, stack.enter_context(Consul()).store_url("bench/"), "consul", size // CONSUL, directory)
    azurite = stack.enter_context(Azurite())
    os.environ.update(azurite.env)
    container = azurite.create_container()
    yield _ours(stack, azurite.store_url(container), "azurite", size, directory)
    from adlfs import AzureBlobFileSystem

    fs = AzureBlobFileSystem(connection_string=azurite.connection_string())
    place = f"{container}/whole"
    yield (
        "azurite",
        "adlfs put_file, get_file",
        size,
        lambda: fs.put_file(str(source), place, overwrite=True),
        lambda: fs.get_file(place, str(target)),
    )


def section(scale: Scale, _: Path) -> str:
    """Markdown."""
    rows = []
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        directory = Path(home)
        for store, client, size, up, down in clients(stack, directory, scale.transfer):
            speeds: tuple[list[float], list[float]] = ([], [])
            for _ in range(min(scale.repeats, 3)):
                for call, found in zip((up, down), speeds, strict=True):
                    began = time.perf_counter()
                    call()
                    found.append(size / MIB / (time.perf_counter() - began))
                if (directory / "target").read_bytes() != _source(directory, size).read_bytes():
                    raise RuntimeError(f"{store}, {client}: what came back is not what went up")
                (directory / "target").unlink()
            rows.append([f"{store}, {client}", f"{size / MIB:g}", *(spread(found, 0) for found in speeds)])
    return f"""## Artifacts on the other stores

MiB/s, median (least-most) of {min(scale.repeats, 3)}; {load()}. kvcache checks length and SHA-256 end to end and \
makes files durable; the others do neither.

{table(["store, client", "MiB", "up", "down"], rows)}
"""
