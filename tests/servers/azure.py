"""Azurite: Azure's own emulator of Blob Storage, in memory."""

from __future__ import annotations

import uuid
from typing import Any

from tests.servers.binaries import node_script
from tests.servers.process import Server, answers


class Azurite(Server):
    name = "azurite"
    account = "devstoreaccount1"
    # The key that Microsoft documents for every emulator; it opens nothing else.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def command(self) -> list[str]:
        return [
            *node_script("azurite/dist/src/blob/main.js"),
            *("--blobHost", self.host, "--blobPort", str(self.port), "--inMemoryPersistence", "--silent"),
            *("--skipApiVersionCheck", "--disableTelemetry"),
        ]

    def is_ready(self) -> bool:
        return answers(f"{self.url}/{self.account}?comp=list")

    def connection_string(self, endpoint: str | None = None) -> str:
        """For azure-storage-blob and adlfs; `endpoint` to go by way of a proxy."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={endpoint or self.url}/{self.account};"
        )

    @property
    def env(self) -> dict[str, str]:
        """What adlfs reads."""
        return {
            "AZURE_STORAGE_CONNECTION_STRING": self.connection_string(),
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
        }

    def client(self, endpoint: str | None = None) -> Any:
        """A BlobServiceClient without retries; `endpoint` to go by way of a proxy."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string(endpoint), retry_total=0)

    def create_container(self, name: str | None = None) -> str:
        """Creates a container, by default with a name of its own, and returns its name."""
        name = name or f"container-{uuid.uuid4().hex[:12]}"
        with self.client() as client:
            client.create_container(name)
        return name

    def store_url(self, container: str, prefix: str = "") -> str:
        """URL for `kvcache.open_store`; the account comes from the environment, see `env`."""
        return f"abfs://{container}/{prefix}"
