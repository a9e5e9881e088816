"""A proxy of ours between a client and a real server, that makes faults: by plan, by seed, with a history.

    with HttpProxy(seaweedfs.port) as proxy:
        store = kvcache.open_store(seaweedfs.store_url(bucket, endpoint=proxy.url))
        proxy.plan = [Fault(DropReply(), method="PUT", times=1)]
        store.write_if("key", b"value", ABSENT)
        print(proxy.history())

`HttpProxy` for S3, GCS, Azure, Consul and registries; `TcpProxy` for Redis. What can happen: `tests.proxy.faults`;
refusals as each kind of store words them, and `storm`, a plan of everything: `tests.proxy.answers`.
"""

from tests.proxy.answers import not_modified, refusal, storm
from tests.proxy.faults import (
    Answer,
    Corrupt,
    CutBody,
    DelayReply,
    DelayRequest,
    DropReply,
    DropRequest,
    Duplicate,
    Fault,
    Outage,
    Plan,
    ResetBody,
    Seen,
    SlowBody,
)
from tests.proxy.http import HttpProxy
from tests.proxy.journal import Entry
from tests.proxy.tcp import TcpProxy

__all__ = [
    "Answer",
    "Corrupt",
    "CutBody",
    "DelayReply",
    "DelayRequest",
    "DropReply",
    "DropRequest",
    "Duplicate",
    "Entry",
    "Fault",
    "HttpProxy",
    "Outage",
    "Plan",
    "ResetBody",
    "Seen",
    "SlowBody",
    "TcpProxy",
    "not_modified",
    "refusal",
    "storm",
]
