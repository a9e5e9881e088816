"""Real servers on loopback for the tests, one module per kind.

    with Seaweed() as s3:
        bucket = s3.create_bucket()
        store = kvcache.open_store(s3.store_url(bucket))      # with s3.env in the environment

In a test, ask for the fixture of the same name (`seaweedfs`, `moto`, `fake_gcs`, `redis`, `valkey`, `redis_cluster`,
`consul`, `azurite`, and `localbucket`, `nanio`, `s3rver`, `gcp_emulator`, which ignore conditions): it is started when
the first test asks for it and serves the whole session, so take a bucket or a prefix of your own. Who stops, kills or
pauses a server starts one of its own instead.
"""

from tests.servers.azure import Azurite
from tests.servers.binaries import MissingServer
from tests.servers.consul import Consul
from tests.servers.gcs import FakeGCS, GCPEmulator
from tests.servers.process import Server, StartFailed
from tests.servers.prometheus import Prometheus, promtool
from tests.servers.redis import Redis, Valkey
from tests.servers.redis_cluster import RedisCluster
from tests.servers.s3 import LocalBucket, Moto, Nanio, S3Rver, Seaweed

__all__ = [
    "Azurite",
    "Consul",
    "FakeGCS",
    "GCPEmulator",
    "LocalBucket",
    "MissingServer",
    "Moto",
    "Nanio",
    "Prometheus",
    "Redis",
    "RedisCluster",
    "S3Rver",
    "Seaweed",
    "Server",
    "StartFailed",
    "Valkey",
    "promtool",
]
