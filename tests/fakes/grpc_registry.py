"""A server of Dewy v2's registry service in a process of its own, which answers as a file beside it says.

It reads and writes its messages byte by byte, by the numbers of the protocol, so that it shares no line with what it
is to test.

    with FakeGrpcRegistry() as server:                 # tls=(certificate, key) for TLS
        server.announce("v1.2.3", "file:///releases/v1.2.3/app.tar.gz")
        ...
        assert server.calls()[-1]["method"] == "Current"

By hand: `python tests/fakes/grpc_registry.py --port 0 --state DIR [--cert FILE --key FILE]`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a program: the tests' root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import grpc

from tests.servers.process import Server

SERVICE = "dewy.RegistryService"


class FakeGrpcRegistry(Server):
    """Starts, stops and directs it."""

    name = "fake-grpc-registry"

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__()
        self._tls = tls
        self.state = self.dir / "state"
        self.state.mkdir()
        self._say()

    def command(self) -> list[str]:
        tls = ["--cert", str(self._tls[0]), "--key", str(self._tls[1])] if self._tls else []
        place = ["--port", str(self.port), "--state", str(self.state)]
        return [sys.executable, str(Path(__file__).resolve()), *place, *tls]

    def is_ready(self) -> bool:
        return (self.state / "ready").exists()

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    def announce(self, tag: str, url: str, id: str = "answer-1", created: tuple[int, int] | None = None) -> None:
        """What `Current` answers from now on; `created` in seconds and nanoseconds."""
        self._say(id=id, tag=tag, url=url, created=created)

    def fail(self, code: str, details: str = "", pushback: int | None = None) -> None:
        """Every call ends with this status."""
        self._say(code=code, details=details, pushback=pushback)

    def hang(self) -> None:
        """Every call is kept waiting."""
        self._say(hang=True)

    def garble(self, data: bytes) -> None:
        """`Current` answers with these bytes."""
        self._say(raw=data.hex())

    def calls(self) -> list[dict[str, Any]]:
        """Oldest first: `method`, and `fields` by number."""
        log = self.state / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def _say(self, **what: Any) -> None:
        new = self.state / "new"
        new.write_text(json.dumps(what))
        new.replace(self.state / "says")


# -- the server's side -------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_field(number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def text_fields(data: bytes) -> Iterator[tuple[int, str]]:
    """All fields of a message that has only texts."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        assert key & 7 == 2, "not a text"
        size = number()
        yield key >> 3, data[at : at + size].decode()
        at += size


class Service(grpc.GenericRpcHandler):
    def __init__(self, state: Path) -> None:
        self._state = state

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = details.method.removeprefix("/").partition("/")
        if service != SERVICE or method not in ("Current", "Report"):
            return None

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            return self._answer(method, request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _answer(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        called = {"method": method, "fields": dict(text_fields(request)), "peer": context.peer()}
        with (self._state / "calls.jsonl").open("a") as log:
            log.write(json.dumps(called) + "\n")
        says = json.loads((self._state / "says").read_text())
        while says.get("hang") and context.is_active():
            time.sleep(0.05)
        if "code" in says:
            if says["pushback"] is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(says["pushback"])),))
            context.abort(getattr(grpc.StatusCode, says["code"]), says["details"])
        if method == "Report":
            return b""
        if "raw" in says:
            return bytes.fromhex(says["raw"])
        answer = text_field(1, says["id"]) + text_field(2, says["tag"]) + text_field(3, says["url"])
        if says["created"]:
            seconds, nanos = says["created"]
            answer += text_field(4, b"\x08" + varint(seconds) + b"\x10" + varint(nanos))
        return answer


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--state", type=Path, required=True)
    options.add_argument("--cert", type=Path)
    options.add_argument("--key", type=Path)
    given = options.parse_args()
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((Service(given.state),))
    if given.cert:
        pair = (given.key.read_bytes(), given.cert.read_bytes())
        for host in ("127.0.0.1", "127.0.0.2"):  # the second is in no certificate of the tests
            server.add_secure_port(f"{host}:{given.port}", grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(f"127.0.0.1:{given.port}")
    server.start()
    (given.state / "ready").touch()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(None)


if __name__ == "__main__":
    main()
