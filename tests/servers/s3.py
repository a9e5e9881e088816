"""S3 servers. SeaweedFS and moto keep the promise of a conditional write; the others are here because they do not.

Seaweed      a real server; conditional PUT, DELETE and multi-part completion, also under contention
Moto         AWS-shaped errors; checks, then writes, without a lock: proves semantics, never atomicity
LocalBucket  honours If-None-Match only, ignores If-Match
Nanio, S3Rver  accept every condition and ignore it
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.binaries import node_script, script
from tests.servers.ports import COMPANION
from tests.servers.process import Server

REGION = "us-east-1"


class S3Server(Server):
    """What all S3 servers share: credentials, buckets, store URLs."""

    access_key = "test"
    secret_key = "testtesttest"
    region = REGION

    def __init__(self) -> None:
        super().__init__()
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()  # of clients

    @property
    def env(self) -> dict[str, str]:
        """Credentials of the standard AWS chain, and nothing that could lead a client to other ones."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, endpoint: str | None = None) -> Any:
        """A boto3 client that never retries, to look at the server behind a store's back; `endpoint` to go by way of a
        proxy. Thread-safe, and made once: that takes 0.1 s.
        """
        import boto3
        from botocore.config import Config

        endpoint = endpoint or self.url
        with self._making:
            if endpoint not in self._clients:
                self._clients[endpoint] = boto3.session.Session().client(
                    "s3",
                    endpoint_url=endpoint,
                    aws_access_key_id=self.access_key,
                    aws_secret_access_key=self.secret_key,
                    region_name=self.region,
                    config=Config(
                        retries={"total_max_attempts": 1},
                        s3={"addressing_style": "path"},
                        connect_timeout=5,
                        read_timeout=30,
                        max_pool_connections=32,
                        proxies={},
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._clients[endpoint]

    def create_bucket(self, name: str | None = None) -> str:
        """Creates a bucket, by default with a name of its own, and returns its name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def store_url(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> str:
        """URL for `kvcache.open_store`; `endpoint` to go by way of a proxy."""
        return f"s3://{self.region}/{bucket}/{prefix}?endpoint={quote(endpoint or self.url, safe=':/')}"

    def is_ready(self) -> bool:
        """Whether a bucket can be made and an object written: SeaweedFS answers seconds before it can do that."""
        from botocore.exceptions import BotoCoreError, ClientError

        client, bucket = self.client(), f"ready-{uuid.uuid4().hex[:12]}"
        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=bucket, Key="ready")
            client.delete_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError):
            return False
        return True


class Seaweed(S3Server):
    """SeaweedFS: master, volume, filer and S3 gateway in one process."""

    name = "seaweedfs"
    ports_needed = 4  # each with a companion for gRPC

    def prepare(self) -> None:
        identity = {
            "name": "test",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.dir / "s3.json").write_text(json.dumps({"identities": [identity]}))
        # Every bucket gets volumes of its own, by default seven at its first object: slow, and soon there are too many.
        (self.dir / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        (self.dir / "data").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [
            script("weed"),
            "-logtostderr=true",  # only there: by default also into files in the system's temporary directory
            "server",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            f"-dir={self.dir}/data",
            f"-s3.port={self.port}",
            f"-master.port={self.port_at(1)}",
            f"-volume.port={self.port_at(2)}",
            f"-filer.port={self.port_at(3)}",
            "-filer",
            "-s3",
            f"-s3.config={self.dir}/s3.json",
            f"-s3.localSocket={self.dir}/s3.sock",
            f"-filer.localSocket={self.dir}/filer.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",  # it would report to the makers
            "-master.volumeSizeLimitMB=64",
            "-volume.max=5000",
        ]

    def close(self) -> None:
        ports = [self.port_at(index) + COMPANION for index in range(self.ports_needed)] if self._ports else []
        super().close()
        # Named after the port in the system's directory; there is no option to put them elsewhere.
        for port in ports:
            for leftover in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-grpc-{port}.sock"):
                leftover.unlink(missing_ok=True)


class Moto(S3Server):
    """moto's stand-alone server. Also other AWS services, of which only S3 is used here."""

    name = "moto"

    def command(self) -> list[str]:
        return [script("moto_server"), "-H", self.host, "-p", str(self.port)]


class LocalBucket(S3Server):
    name = "localbucket"

    def prepare(self) -> None:
        (self.dir / "data").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [script("localbucket"), "--host", self.host, "--port", str(self.port), str(self.dir / "data")]


class Nanio(S3Server):
    name = "nanio"

    def environment(self) -> dict[str, str]:
        return {"NANIO_ACCESS_KEY": self.access_key, "NANIO_SECRET_KEY": self.secret_key}

    def command(self) -> list[str]:
        listen = ["--host", self.host, "--port", str(self.port)]
        return [script("nanio"), "serve", *listen, "--data-dir", str(self.dir / "data"), "--no-access-log"]


class S3Rver(S3Server):
    name = "s3rver"
    access_key = "S3RVER"  # the only account it has
    secret_key = "S3RVER"

    def prepare(self) -> None:
        (self.dir / "data").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        listen = ["--address", self.host, "--port", str(self.port)]
        return [*node_script("s3rver/bin/s3rver.js"), *listen, "--directory", str(self.dir / "data")]
