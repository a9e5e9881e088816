"""Consul's development agent: one server, in memory. A restart loses everything, as for a cluster made anew."""

from __future__ import annotations

from tests.servers.binaries import unpacked
from tests.servers.process import Server, answers


class Consul(Server):
    name = "consul"
    ports_needed = 3

    def command(self) -> list[str]:
        return [
            unpacked("consul", "consul"),
            *("agent", "-dev", f"-bind={self.host}", f"-client={self.host}", f"-http-port={self.port}"),
            *(f"-server-port={self.port_at(1)}", f"-serf-lan-port={self.port_at(2)}"),
            *("-dns-port=-1", "-grpc-port=-1", "-serf-wan-port=-1", "-disable-host-node-id"),
        ]

    def is_ready(self) -> bool:
        """Whether there is a leader: before that, writes fail."""
        return answers(f"{self.url}/v1/kv/ready?recurse&consistent", range(404, 405))

    def store_url(self, prefix: str = "", port: int | None = None) -> str:
        """URL for `kvcache.open_store`; `port` to go by way of a proxy."""
        return f"consul://{self.host}:{port or self.port}/{prefix}"
