"""Large objects up and down, each client in a fresh process: MiB/s, and peak memory above what the process had idle.

`python -m bench.transfer CLIENT STORE_URL ENDPOINT BUCKET SIZE DIRECTORY` prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = 8 * 2**20


def peak() -> float:
    """MiB. Not ru_maxrss, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def clients(
    client: str, url: str, endpoint: str, bucket: str, source: Path, target: Path
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Up and down by one client, connected already."""
    if client.startswith("kvcache"):
        import kvcache

        store = kvcache.open_store(f"{url}&engine=obstore" if client.endswith("obstore") else url)
        store.write("small", b"x")
        return lambda: store.upload("big", source), lambda: store.download("big", target)
    if client == "obstore":
        import os

        import obstore
        from obstore.store import S3Store

        rust = S3Store(
            bucket,
            endpoint=endpoint,
            region=os.environ["AWS_DEFAULT_REGION"],
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True, "timeout": "600s"},
        )
        obstore.put(rust, "small", b"x")

        def fetch() -> None:
            with target.open("wb") as file:
                for chunk in obstore.get(rust, "big").stream(min_chunk_size=BLOCK):
                    file.write(chunk)

        return lambda: obstore.put(rust, "big", source, chunk_size=BLOCK, max_concurrency=4), fetch
    if url.startswith("gs:"):
        from gcsfs.core import GCSFileSystem

        fs = GCSFileSystem(project="test", token="anon", endpoint_url=endpoint)
    else:
        import s3fs

        fs = s3fs.S3FileSystem(endpoint_url=endpoint, config_kwargs={"s3": {"addressing_style": "path"}})
    fs.pipe_file(f"{bucket}/small", b"x")
    if client == "put_file, get_file":
        return lambda: fs.put_file(str(source), f"{bucket}/big"), lambda: fs.get_file(f"{bucket}/big", str(target))

    def copy(reader: Any, writer: Any) -> None:
        while block := reader.read(BLOCK):
            writer.write(block)

    def up() -> None:
        with source.open("rb") as reader, fs.open(f"{bucket}/big", "wb") as writer:
            copy(reader, writer)

    def down() -> None:
        with fs.open(f"{bucket}/big", "rb") as reader, target.open("wb") as writer:
            copy(reader, writer)

    return up, down


def main() -> None:
    client, url, endpoint, bucket, size, directory = sys.argv[1:]
    source, target = Path(directory) / "source", Path(directory) / "target"
    up, down = clients(client, url, endpoint, bucket, source, target)
    idle, began = peak(), time.perf_counter()
    up()
    uploaded, up_peak = time.perf_counter() - began, peak()
    began = time.perf_counter()
    down()
    downloaded = time.perf_counter() - began
    assert target.stat().st_size == int(size)
    mib = int(size) / 2**20
    print(
        json.dumps({"up": mib / uploaded, "down": mib / downloaded, "up_peak": up_peak - idle, "peak": peak() - idle})
    )


if __name__ == "__main__":
    main()
