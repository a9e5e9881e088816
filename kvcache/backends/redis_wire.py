"""What kvcache says to Redis and Valkey, and what their answers mean. Pure: no socket, so any driver can use it.

A value is one hash, which an operator reads with HGETALL:

    version     a nonce, new with every write
    modified    server time of that write, seconds since the Unix epoch
    body        the value; or, in its place,
    parts       the manifest of a value in parts (see `parts.py`)

Everything that has to be one step is one script on that one key, so it is the same on a single server and in a
cluster. A part is a plain string.
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError

from kvcache.backends.parts import Entry, Placed
from kvcache.backends.resend import Trouble, Verdict
from kvcache.kvs import ABSENT, ANYWAY, Condition, Version

Argument: TypeAlias = bytes | str | int


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script on one key."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    def by_sha(self, key: bytes, *args: Argument) -> tuple[Argument, ...]:
        """The command that runs it where the server has seen it; else the server answers NOSCRIPT."""
        return ("EVALSHA", self.sha, 1, key, *args)

    def by_text(self, key: bytes, *args: Argument) -> tuple[Argument, ...]:
        """The command that runs it anywhere. The server remembers it."""
        return ("EVAL", self.text, 1, key, *args)


_STANDING: Final = """
-- What stands under the key: version, field, time of the last change. Nothing where there is nothing.
-- What others have put there has a version too, so that it can be replaced on the condition that it is still there.
local function standing(key)
    local held = redis.pcall('HMGET', key, 'version', 'parts', 'modified')
    if not held.err and held[1] then return held[1], held[2] and 'parts' or 'body', held[3] end
    -- An error other than "not a hash" is one to be raised, not a value to be replaced.
    if held.err and not string.find(held.err, 'WRONGTYPE', 1, true) then redis.call('HMGET', key, 'version') end
    if redis.call('EXISTS', key) == 0 then return nil end
    local kind = redis.call('TYPE', key).ok
    if kind == 'string' then return 'sha1-' .. redis.sha1hex(redis.call('GET', key)), 'string' end
    return 'foreign-' .. kind, 'foreign'
end
local now = redis.call('TIME')
local version, field, modified = standing(KEYS[1])
"""

READ: Final = Script(
    _STANDING
    + """
if not version then return {now[1], now[2]} end
local size, data = 0, ''
if field == 'string' then data = redis.call('GET', KEYS[1])
elseif field == 'parts' or (field == 'body' and ARGV[1] == 'whole') then data = redis.call('HGET', KEYS[1], field)
elseif field == 'body' then size = redis.call('HSTRLEN', KEYS[1], field) end
return {now[1], now[2], version, field, modified or '', math.max(size, #data), data}
"""
)
"""ARGV: `whole`, or `head` to leave the body out."""

WRITE: Final = Script(
    _STANDING
    + """
local condition, wanted, written, data, expire, channel, target = unpack(ARGV)
-- The client may send this twice because an answer was lost: then the version is already the one to be written.
if version ~= written then
    if condition == 'absent' and version then return {now[1], now[2], 0} end
    if condition == 'version' and version ~= wanted then return {now[1], now[2], 0} end
    if field == 'string' or field == 'foreign' then redis.call('DEL', KEYS[1]) end
    -- No DEL of a value: where memory is short, the first command that needs some fails, and nothing has changed.
    redis.call('HSET', KEYS[1], 'version', written, 'modified', string.format('%d.%06d', now[1], now[2]), target, data)
    redis.call('HDEL', KEYS[1], target == 'body' and 'parts' or 'body')
    if expire == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], expire) end
    redis.pcall('PUBLISH', channel, written)  -- a user without the right to publish can still write
end
return {now[1], now[2], 1}
"""
)
"""ARGV: anyway|absent|version, version wanted, new version, data, expiry in ms (0: none), channel, body|parts."""

REMOVE: Final = Script(
    _STANDING
    + """
if version and (ARGV[1] == '' or version == ARGV[1]) then
    redis.call('UNLINK', KEYS[1])
    redis.pcall('PUBLISH', ARGV[2], '')
end
return 1
"""
)
"""ARGV: the version wanted or nothing, channel."""


def write_arguments(
    condition: Condition, version: str, data: bytes, *, manifest: bool, expire_ms: int, channel: bytes
) -> tuple[Argument, ...]:
    """Arguments of WRITE."""
    kind, wanted = ("version", condition.token) if isinstance(condition, Version) else (_CONDITIONS[condition], "")
    return (kind, wanted, version, data, expire_ms, channel, "parts" if manifest else "body")


_CONDITIONS: Final = {ANYWAY: "anyway", ABSENT: "absent"}


def server_time(reply: list[Any]) -> float:
    """The clock that each script's answer begins with: seconds since the Unix epoch."""
    return int(reply[0]) + int(reply[1]) / 1e6


def parse_read(reply: list[Any]) -> Entry | None:
    """READ's answer; None where nothing stands under the key."""
    if len(reply) == 2:
        return None
    version, field_name, modified, size, data = reply[2:]
    return Entry(
        data=data,
        size=int(size),
        is_manifest=field_name == b"parts",
        version=version.decode(),
        store_time=server_time(reply),
        modified=float(modified) if modified else None,
    )


def parse_write(reply: list[Any], version: str) -> Placed | None:
    """WRITE's answer; None where its condition did not hold."""
    return Placed(version, server_time(reply)) if reply[2] else None


def glob_escaped(text: str) -> str:
    """`text` as a SCAN pattern that matches only itself."""
    return "".join(f"\\{c}" if c in "*?[]^-\\" else c for c in text)


# -- errors ------------------------------------------------------------------------------------------------------------


_NOT_NOW: Final = (
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterError,  # CLUSTERDOWN, MASTERDOWN, and too many redirections in a row
    redis_errors.AskError,  # and MOVED
    redis_errors.TryAgainError,
    redis_errors.SlotNotCoveredError,
)
_NO: Final = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.ResponseError,
)
_NO_RIGHT: Final = "the user lacks a right; docs/stores-redis.md lists those it needs"
_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis_errors.OutOfMemoryError, "the server is at its maxmemory and may not evict: raise it, or store less"),
    (redis_errors.NoPermissionError, _NO_RIGHT),
    (redis_errors.AuthenticationError, "the server refuses this user and password"),
)


def judge(error: Exception) -> Trouble:
    """What became of the request that ended in `error`."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, _NOT_NOW) or _never_connected(error) or reason.startswith("BUSY "):
        return Trouble(Verdict.NOT_NOW, reason)
    if not isinstance(error, _NO):
        return Trouble(Verdict.UNKNOWN, reason)
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return Trouble(Verdict.NO, f"{advice} ({reason})")
    if " script" in reason:  # an error of one of a script's commands; those before it have been carried out
        advice = f"{_NO_RIGHT} " if "permission" in reason or "user executing" in reason else ""
        return Trouble(Verdict.HALF, f"{advice}({reason})")
    return Trouble(Verdict.NO, reason)


def _never_connected(error: BaseException | None) -> bool:
    """Whether the connection was refused, or the host unknown: then nothing was sent."""
    while error is not None:
        if isinstance(error, (ConnectionRefusedError, socket.gaierror, MasterNotFoundError)):
            return True
        error = error.__cause__ or error.__context__
    return False
