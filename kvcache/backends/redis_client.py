"""From a store URL to a redis-py client: one server, a cluster, or whoever Sentinel says is the primary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from kvcache.backends.redis_watch import PubSub
from kvcache.url import StoreURL

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
DEFAULT_TIMEOUT: Final = 5.0
DEFAULT_MAX_VALUE: Final = 512 * 1024 * 1024
PARAMETERS: Final = frozenset(
    {"prefix", "expire", "cluster", "sentinel", "sentinels", "ca", "cert", "cert-key", "timeout", "max-value"}
)


class Client(Protocol):
    """What is used of redis-py's clients."""

    def execute_command(self, *args: Any) -> Any: ...
    def scan_iter(self, match: str, count: int) -> Any: ...
    def pubsub(self) -> PubSub: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """A store URL, understood."""

    connect: Callable[[], Client]
    """Makes a client. A cluster is asked for its nodes by this, so it raises what any command raises."""
    database: int
    prefix: str
    expire: float | None
    """Seconds after its last write when a value is removed; None: never."""
    timeout: float
    """Seconds for one request, sent again where that helps; one sending may take half of it."""
    max_value: int


def understand(url: StoreURL) -> Settings:
    """Everything that a `redis://` or `rediss://` URL says. InvalidURL."""
    url.reject_unknown(PARAMETERS)
    timeout = _positive(url, "timeout", url.take_duration("timeout", DEFAULT_TIMEOUT))
    database = _database(url)
    # Sending again is ours to do: we know which requests may be repeated, and what a refusal of a repeated one means.
    # RESP2 is all we need, and saves the handshakes of RESP3. A bare command is the same bytes in both.
    options: dict[str, Any] = {
        "username": url.user,
        "password": url.password,
        "protocol": 2,
        "socket_timeout": timeout / 2,
        "socket_connect_timeout": timeout / 2,
        **_tls(url),
    }
    expire = url.take_duration("expire", None)
    return Settings(
        connect=_connector(url, database, options),
        database=database,
        prefix=url.take_text("prefix", ""),
        expire=None if expire is None else _positive(url, "expire", expire),
        timeout=timeout,
        max_value=url.take_size("max-value", DEFAULT_MAX_VALUE),
    )


def _connector(url: StoreURL, database: int, options: dict[str, Any]) -> Callable[[], Client]:
    host, sentinel = url.host or "localhost", url.take_text("sentinel", None)
    port = url.port or (SENTINEL_PORT if sentinel else PORT)
    places = [(host, port), *_more_sentinels(url)]

    def single() -> Client:
        return redis.Redis(host=host, port=port, db=database, retry=_no_retry(), **options)

    def cluster() -> Client:
        return redis.RedisCluster(host=host, port=port, retry=_no_retry(), **options)

    def behind_sentinel() -> Client:
        # Sentinels have users of their own, if any; TLS and the time-outs are the same.
        asking = {name: value for name, value in options.items() if name not in ("username", "password")}
        untyped: Any = Sentinel  # redis-py has types for most of itself, but not for this
        sentinels = untyped(places, sentinel_kwargs={**asking, "retry": _no_retry()})
        client: Client = sentinels.master_for(sentinel, db=database, retry=_no_retry(), **options)
        return client

    if not url.take_bool("cluster"):
        return behind_sentinel if sentinel else single
    if database:
        raise url.invalid("database", str(database), "0, or none, with cluster=true: a cluster has no other")
    if sentinel:
        raise url.invalid("sentinel", sentinel, "none with cluster=true: a cluster elects its primaries itself")
    return cluster


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _database(url: StoreURL) -> int:
    path = url.path.strip("/")
    if path and not (path.isascii() and path.isdigit() and len(path) < 6):
        raise url.invalid("database", path, "a number, as in redis://host:6379/0")
    return int(path or 0)


def _positive(url: StoreURL, name: str, value: float) -> float:
    if value <= 0:
        raise url.invalid(name, url.params[name], "a duration above zero, such as 30s or 24h")
    return value


def _more_sentinels(url: StoreURL) -> list[tuple[str, int]]:
    places = []
    for place in filter(None, url.take_text("sentinels", "").split(",")):
        host, _, port = place.rpartition(":")
        if not host or not port.isdigit():
            raise url.invalid("sentinels", place, "further sentinels as host:port,host:port")
        places.append((host, int(port)))
    return places


def _tls(url: StoreURL) -> dict[str, Any]:
    """Arguments for TLS. The server's certificate and name are always verified; there is no way to turn it off."""
    files = {name: url.take_text(name, None) for name in ("ca", "cert", "cert-key")}
    for name, path in files.items():
        if path and url.scheme != "rediss":
            raise url.invalid(name, path, "rediss:// beside it: redis:// does not encrypt")
        if path and not Path(path).is_file():
            raise url.invalid(name, path, "the path of a PEM file")
    if url.scheme != "rediss":
        return {}
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": files["ca"],
        "ssl_certfile": files["cert"],
        "ssl_keyfile": files["cert-key"],
    }
