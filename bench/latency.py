"""One versioned read and one conditional write of 1 KB: kvcache beside the bare clients, turn by turn in one loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import kvcache
from tests.servers import FakeGCS, Seaweed

BODY = b"x" * 1024
ROUNDS = 300


@dataclass(frozen=True)
class Row:
    """Medians and 90th percentiles in milliseconds."""

    server: str
    client: str
    read: tuple[float, float]
    write: tuple[float, float]


Client = tuple[str, Callable[[], object], Callable[[], object]]


def measure(server: str, clients: list[Client], rounds: int) -> list[Row]:
    """The clients take turns, so that whatever else the machine does hits them alike."""
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 20):
        for name, *calls in clients:
            for which, call in enumerate(calls):
                began = time.perf_counter()
                call()
                if turn >= 20:
                    times.setdefault((name, which), []).append((time.perf_counter() - began) * 1000)

    def both(name: str, which: int) -> tuple[float, float]:
        values = times[name, which]
        return statistics.median(values), statistics.quantiles(values, n=10)[8]

    return [Row(server, name, both(name, 0), both(name, 1)) for name, *_ in clients]


def through_kvcache(url: str, name: str = "kvcache") -> Client:
    store = kvcache.open_store(url)
    state = [store.write(name, BODY)]

    def write() -> None:
        state[0] = store.write_if(name, BODY, state[0])

    return name, lambda: store.read_versioned(name), write


def on_s3(server: Seaweed, rounds: int) -> list[Row]:
    import boto3
    import obstore
    import s3fs
    from botocore.config import Config
    from fsspec.asyn import sync
    from obstore.store import S3Store

    bucket = server.create_bucket()
    fs = s3fs.S3FileSystem(
        endpoint_url=server.url,
        client_kwargs={"region_name": server.region},
        config_kwargs={"s3": {"addressing_style": "path"}},
        use_listings_cache=False,
    )
    bare = [fs.call_s3("put_object", Bucket=bucket, Key="s3fs", Body=BODY)["ETag"]]

    async def get() -> tuple[bytes, str]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key="s3fs")
        async with answer["Body"] as stream:
            return await stream.read(), answer["ETag"]

    def put() -> None:
        bare[0] = fs.call_s3("put_object", Bucket=bucket, Key="s3fs", Body=BODY, IfMatch=bare[0])["ETag"]

    boto = boto3.client("s3", endpoint_url=server.url, config=Config(s3={"addressing_style": "path"}))
    plain = [boto.put_object(Bucket=bucket, Key="boto3", Body=BODY)["ETag"]]

    def boto_get() -> bytes:
        return bytes(boto.get_object(Bucket=bucket, Key="boto3")["Body"].read())

    def boto_put() -> None:
        plain[0] = boto.put_object(Bucket=bucket, Key="boto3", Body=BODY, IfMatch=plain[0])["ETag"]

    rust = S3Store(
        bucket,
        endpoint=server.url,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
    )
    last = [obstore.put(rust, "obstore", BODY)]

    def rust_put() -> None:
        match = {"e_tag": last[0]["e_tag"]}
        last[0] = obstore.put(rust, "obstore", BODY, mode=match, use_multipart=False)

    return measure(
        "SeaweedFS (S3)",
        [
            ("bare s3fs", lambda: sync(fs.loop, get), put),
            through_kvcache(server.store_url(bucket, "bench")),
            through_kvcache(server.store_url(bucket, "bench") + "&engine=obstore", "kvcache, obstore"),
            ("boto3", boto_get, boto_put),
            ("obstore", lambda: obstore.get(rust, "obstore").bytes(), rust_put),
        ],
        rounds,
    )


def on_gcs(server: FakeGCS, rounds: int) -> list[Row]:
    from urllib.parse import quote

    from gcsfs.core import GCSFileSystem

    bucket = server.create_bucket()
    fs = GCSFileSystem(project="test", token="anon", endpoint_url=server.url)
    place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o"
    # With an entry of metadata, as each of kvcache's writes has: it is by that that a lost answer is recognised.
    about = b'{"name":"gcsfs","metadata":{"write":"0123456789abcdef0123456789abcdef"}}'
    head = b"--sep\r\nContent-Type: application/json\r\n\r\n" + about + b"\r\n--sep\r\n\r\n"
    options = {"uploadType": "multipart", "headers": {"Content-Type": "multipart/related; boundary=sep"}}

    def send(**condition: str) -> str:
        data = head + BODY + b"\r\n--sep--\r\n"
        return str(fs.call("POST", place, data=data, json_out=True, **options, **condition)["generation"])

    generation = [send()]

    def put() -> None:
        generation[0] = send(ifGenerationMatch=generation[0])

    return measure(
        "fake-gcs-server (GCS)",
        [
            ("bare gcsfs", lambda: fs.call("GET", fs.url(f"{bucket}/gcsfs")), put),
            through_kvcache(server.store_url(bucket, "bench")),
        ],
        rounds,
    )
