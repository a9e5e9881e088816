"""What `dewy.http` needs of urllib3: pools behind the right proxy, an end to dripping headers, and errors in words."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from dewy.errors import ConfigError

KEPT_PER_HOST: Final = 4
"""Connections that stay open for the next call; more are opened where more calls run at once."""


class Pools:
    """One pool of connections for each proxy, and one for direct calls. Safe to use from any number of threads.

    ConfigError: a proxy in the environment that cannot be used.
    """

    def __init__(self, env: Mapping[str, str], context: ssl.SSLContext) -> None:
        self._no_proxy = (env.get("no_proxy") or env.get("NO_PROXY") or "").replace(" ", "").lower().split(",")
        self._context = context
        self._direct = self._manager(None)
        # HTTP_PROXY in capitals can be set by a request to a CGI script, and so is not believed there.
        common = _proxy(env, "all_proxy", "ALL_PROXY")
        plain = _proxy(env, "http_proxy", *(() if "REQUEST_METHOD" in env else ("HTTP_PROXY",))) or common
        secure = _proxy(env, "https_proxy", "HTTPS_PROXY") or common
        self._proxies = {"http": self._manager(plain), "https": self._manager(secure)}

    def for_url(self, url: str) -> urllib3.PoolManager:
        """Who makes a call to this URL."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        if _is_loopback(host) or any(_names(entry, host, parts.port) for entry in self._no_proxy):
            return self._direct
        return self._proxies.get(parts.scheme, self._direct)

    def drop_idle(self) -> None:
        """Closes the connections that wait for a next call; those in use are not touched."""
        for manager in {self._direct, *self._proxies.values()}:
            manager.clear()

    close = drop_idle

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": KEPT_PER_HOST, "ssl_context": self._context}
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            user, _, address = proxy.rpartition("@")
            headers = urllib3.make_headers(proxy_basic_auth=unquote(user.partition("://")[2])) if user else None
            bare = f"{user.partition('://')[0]}://{address}" if user else proxy
            manager = urllib3.ProxyManager(bare, proxy_headers=headers, **options)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


def _proxy(env: Mapping[str, str], *names: str) -> str | None:
    """The first proxy that is set. ConfigError; it does not show the value, which may hold a password."""
    for name in names:
        proxy = env.get(name, "").strip()
        if proxy:
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            try:
                parts = urlsplit(proxy)
                usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
            except ValueError:
                usable = False
            if not usable:
                raise ConfigError(f"{name}: expected a proxy as http://[user:password@]host:port")
            return proxy
    return None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _names(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY names a host: `*`, a domain and all below it, an address, a network; or one port."""
    if entry in ("", "*"):
        return entry == "*"
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and ":" not in name.strip("[]"):
        if port != int(number):
            return False
        entry = name
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    domain = entry.removeprefix("*").removeprefix(".")
    return host == domain or host.endswith(f".{domain}")


# -- headers that drip ------------------------------------------------------------------------------------------------


class _Prompt(HTTPConnection):
    """Reads an answer's headers within its read time-out, all of them together.

    The standard library applies the time-out to each piece, so that a server which sends a byte now and then could keep
    a call for days.
    """

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 gives its own type here, too
        seconds, sock = self.timeout, self.sock
        if not isinstance(seconds, int | float) or not isinstance(sock, socket.socket):
            return super().getresponse()  # TLS within TLS, through an https proxy: its wrapper cannot be shut from here
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which would take the TLS state from under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (HTTPException, OSError) as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()
        if late.is_set():  # it fired as the last header came; the socket is gone
            raise TimeoutError
        return response


class _PromptTLS(_Prompt, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Prompt


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PromptTLS


# -- errors in words --------------------------------------------------------------------------------------------------


def reason(error: BaseException) -> tuple[bool, str]:
    """Whether an error of urllib3 is about time, and what happened, without URL, header or address in memory."""
    match error:
        # The first two are kinds of the third to urllib3.
        case exceptions.NameResolutionError():
            return False, "the host's name cannot be resolved"
        case exceptions.NewConnectionError():
            return False, f"no connection: {_system_reason(error)}"
        case exceptions.ConnectTimeoutError():
            return True, "no connection in time"
        case exceptions.ReadTimeoutError() | TimeoutError():
            return True, "no answer in time"
        case exceptions.ProxyError(original_error=below):
            late, why = reason(below)
            return late, f"the proxy failed: {why}"
        case exceptions.SSLError() | ssl.SSLError():
            return False, f"TLS failed: {_tls_reason(error)}"
        case exceptions.IncompleteRead() | exceptions.ProtocolError():
            return False, "the connection broke before the answer was complete"
        case exceptions.DecodeError():
            return False, "an answer in a broken encoding"
        case OSError(strerror=str(why)):
            return False, f"the connection failed: {why}"
        case exceptions.LocationParseError() | exceptions.LocationValueError() | ValueError():
            return False, "no such address can exist"
        case _:
            return False, f"the call failed: {type(error).__name__}"


def _tls_reason(error: BaseException) -> str:
    for below in _causes(error):
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"{below.verify_message} (a private authority is named by SSL_CERT_FILE)"
        if isinstance(below, ssl.SSLError) and below.reason:
            return below.reason.replace("_", " ").lower()
    return "the handshake was refused"


def _system_reason(error: BaseException) -> str:
    return next((e.strerror for e in _causes(error) if isinstance(e, OSError) and e.strerror), "refused")


def _causes(error: BaseException) -> list[BaseException]:
    """An error and those below it: as cause, as context, or as an argument, which is how urllib3 wraps them."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        below = waiting.pop(0)
        if below is not None and below not in found:
            found.append(below)
            waiting += [below.__cause__, below.__context__, *(a for a in below.args if isinstance(a, BaseException))]
    return found
