"""The two HTTP servers of the fake GitHub: the API (with its control endpoint) and the host that serves assets.

The program itself: `python tests/fakes/github_server.py --port 0 --state DIR` prints the API's port.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import re
import secrets
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

if __package__ in (None, ""):  # run as a program: the tests' root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.fakes.github_world import Fault, World

HANGS = 600.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], world: World) -> None:
        self.world = world
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to print."""


class Handler(BaseHTTPRequestHandler, ABC):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "github.com"
    sys_version = ""
    server: Server
    target = ""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def world(self) -> World:
        return self.server.world

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_HEAD = do_GET

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = urlsplit(self.path)
        self.place, self.query = place.path, {k: v[-1] for k, v in parse_qs(place.query).items()}
        authorization = self.headers.get("Authorization") or ""
        self.token = authorization.partition(" ")[2]
        self.call: dict[str, Any] = {
            "at": time.time(),
            "mono": time.monotonic(),
            "host": self.target,
            "method": self.command,
            "path": self.place,
            "query": place.query,
            "token": self.token or None,
            "authorization": bool(authorization),
            "conditional": "If-None-Match" in self.headers,
            "range": self.headers.get("Range"),
            "accept": self.headers.get("Accept"),
            "user_agent": self.headers.get("User-Agent"),
            "status": None,
            "counted": False,
        }
        self.world.arrived(self.call)
        try:
            self.answer()
        finally:
            if self.call["status"] is None:
                self.world.answered(self.call)

    @abstractmethod
    def answer(self) -> None:
        """Sends what there is to say to this request."""

    # -- sending, and failing to --------------------------------------------------------------------------------------

    def misbehaves(self, target: str) -> bool:
        """Suffers the fault of this target, if there is one. True: an answer was sent, or never will be."""
        fault = self.world.take_fault(target)
        self.fault: Fault | None = fault
        if fault is None:
            return False
        option = fault.options
        match fault.mode:
            case "outage":
                self.send(option.get("status", 500), {"message": "Server Error"}, option.get("headers", {}))
            case "status":
                self.send(option["status"], {"message": option.get("message", "")}, option.get("headers", {}))
            case "hang":
                self.world.wait_while(fault, target, HANGS)
                self.close_connection = True
            case "drop":
                self._hang_up()
            case "rate-limited":
                reset = str(int(time.time() + option.get("reset_in", 60)))
                gone = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
                self.send(option.get("status", 403), {"message": "API rate limit exceeded"}, gone)
            case "secondary":
                after = option.get("retry_after", 60)
                text = formatdate(time.time() + after, usegmt=True) if option.get("as_date") else str(after)
                told = {} if option.get("unnamed") else {"Retry-After": text}
                message = "You have exceeded a secondary rate limit"
                self.send(option.get("status", 403), {"message": message}, told)
            case "slow":
                time.sleep(option.get("delay", 1.0))
                return False
            case "drip" | "cut" | "drip-headers" | "corrupt":
                return False  # see `send_bytes`
            case _:
                raise LookupError(f"no mode {fault.mode}")
        return True

    def send(self, status: int, value: Any, headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(value).encode()
        told = {"Content-Type": "application/json; charset=utf-8", **headers}
        if "gzip" in (self.headers.get("Accept-Encoding") or "") and len(data) > 256:
            data, told = gzip.compress(data, 1), {**told, "Content-Encoding": "gzip"}
        self.send_bytes(status, data, told)

    def send_bytes(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.call["status"] = status
        self.world.answered(self.call)  # before the caller can know: what was answered is on record even if killed now
        fault = self.fault if hasattr(self, "fault") else None
        mode, option = (fault.mode, fault.options) if fault else ("", {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(data)))
        if mode == "drip-headers":
            self._drip(b"".join(self._headers_buffer), option)  # type: ignore[attr-defined]  # what end_headers sends
            return
        self.end_headers()
        if mode == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if mode == "cut":
            self.wfile.write(data[: option.get("after", len(data) // 2)])
            self._hang_up(reset=option.get("reset", False))
        elif mode == "drip":
            self._drip(data, option)
        elif self.command != "HEAD" and status != 304:
            self.wfile.write(data)

    def _drip(self, data: bytes, option: Mapping[str, Any]) -> None:
        self.close_connection = True
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(option.get("delay", 0.05))

    def _hang_up(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class API(Handler):
    target = "api"

    def _handle(self) -> None:
        if self.path == "/_control":
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            done = self._control(asked["do"], asked.get("args", {}))
            data = json.dumps(done).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        else:
            super()._handle()

    def _control(self, do: str, args: dict[str, Any]) -> Any:
        world = self.world
        match do:
            case "ping":
                return {"assets": world.asset_base}
            case "calls":
                return world.calls[args["since"] :]
            case "mode":
                return world.set_fault(args["target"], args["mode"], args["times"], args["options"])
            case "remaining":
                return world.remaining(args["token"])
            case "publish" | "withdraw" | "add_asset" | "remove_asset" | "configure" | "set_limit":
                return getattr(world, do)(**args)
            case _:
                raise LookupError(do)

    def answer(self) -> None:
        world = self.world
        if self.place.startswith("/uploads/"):
            self.call["host"] = "uploads"
            if not self.misbehaves("uploads"):
                self._upload()
            return
        if self.misbehaves("api"):
            return
        if match := re.fullmatch(r"/app/installations/(\d+)/access_tokens", self.place):
            self._app_token(match[1])
            return
        if not self._is_known():
            self.send(401, {"message": "Bad credentials"})
            return
        match = re.fullmatch(r"/repos/([^/]+/[^/]+)/releases(?:/(tags|assets)/(.+))?", self.place)
        repo = match[1] if match else ""
        if match is None or repo not in world.repos or (world.settings.private and not self.token):
            self.send(404, {"message": "Not Found"}, self._limits())
            return
        limit, remaining, _ = world.remaining(self.token)
        if remaining == 0:
            self.send(403, {"message": f"API rate limit exceeded ({limit})"}, self._limits())
        elif match[2] == "tags":
            release = world.find(repo, unquote(match[3]))
            found = release is not None and not release.get("draft")
            self._spend_and_send(200 if found else 404, self._filled(release if found else {"message": "Not Found"}))
        elif match[2] == "assets":
            self._asset(repo, int(match[3]))
        else:
            self._list(repo)

    def _list(self, repo: str) -> None:
        size = min(int(self.query.get("per_page", 30)), self.world.settings.page_size)
        number = int(self.query.get("page", 1))
        with self.world.changed:
            seen = [r for r in self.world.repos[repo] if self.token or not r.get("draft")]  # drafts are for insiders
            page = self._filled(seen[(number - 1) * size : number * size])
        data = json.dumps(page)
        secret = self.token if self.world.settings.etag_by_token else ""
        etag = f'W/"{hashlib.sha256(f"{secret}|{data}".encode()).hexdigest()}"'
        headers = {"ETag": etag, "Vary": "Accept, Authorization", "Cache-Control": "private, max-age=60"}
        links = []
        address = f"{self.world.base}repos/{repo}/releases?per_page={self.query.get('per_page', 30)}"
        if number > 1:
            links.append(f'<{address}&page={number - 1}>; rel="prev"')
        if number * size < len(seen):
            last = -(-len(seen) // size)
            links += [f'<{address}&page={number + 1}>; rel="next"', f'<{address}&page={last}>; rel="last"']
        if links:
            headers["Link"] = ", ".join(links)
        if self.headers.get("If-None-Match") == etag:
            if not self.token:
                self._spend()  # it is free for those who say who they are
            self.send_bytes(304, b"", {**headers, **self._limits()})
            return
        self._spend_and_send(200, page, headers)

    def _asset(self, repo: str, number: int) -> None:
        asset = self.world.find_asset(repo, number)
        if asset is None:
            self._spend_and_send(404, {"message": "Not Found"})
        elif self.headers.get("Accept") != "application/octet-stream":
            self._spend_and_send(200, self._filled(asset))
        elif self.world.settings.redirect:
            self._spend()
            base = self.world.settings.redirect_to or self.world.asset_base
            location = f"{base}{number}/{asset['name']}?sig={secrets.token_hex(8)}"
            self.send_bytes(302, b"", {"Location": location, **self._limits()})
        else:
            self._spend()
            self.send_bytes(200, self.world.bytes_of(number).read_bytes(), self._limits())

    def _upload(self) -> None:
        match = re.fullmatch(r"/uploads/repos/([^/]+/[^/]+)/releases/(\d+)/assets", self.place)
        release = None
        if match:
            release = next((r for r in self.world.repos.get(match[1], []) if r["id"] == int(match[2])), None)
        if not self.token or not self._is_known():
            self.send(401, {"message": "Requires authentication"})
        elif match is None or release is None:
            self.send(404, {"message": "Not Found"})
        elif any(asset["name"] == self.query["name"] for asset in release["assets"]):
            self.send(422, {"message": "Validation Failed", "errors": [{"code": "already_exists"}]})
        else:
            with tempfile.NamedTemporaryFile() as file:
                file.write(self.body)
                file.flush()
                kind = {"content_type": self.headers.get("Content-Type")}
                asset = self.world.add_asset(match[1], release["tag_name"], self.query["name"], file.name, **kind)
            self.send(201, self._filled(asset))

    def _app_token(self, installation: str) -> None:
        app = self.world.settings.app
        try:
            import jwt

            if app is None or installation != app["installation"]:
                raise LookupError
            claims = jwt.decode(self.token, app["public_key"], algorithms=["RS256"], issuer=app["id"])
            if claims["exp"] > time.time() + 600 or claims["iat"] > time.time():
                raise LookupError
        except (LookupError, jwt.PyJWTError):
            self.send(401, {"message": "A JSON web token could not be decoded"})
            return
        token, ends = f"ghs_{secrets.token_hex(16)}", time.time() + app["lives"]
        with self.world.changed:
            self.world.app_tokens[token] = ends
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
        self.send(201, {"token": token, "expires_at": at, "permissions": {"contents": "write"}})

    def _is_known(self) -> bool:
        if not self.token or self.token in self.world.app_tokens:
            return self.world.app_tokens.get(self.token, time.time() + 1) > time.time()
        return self.world.settings.tokens is None or self.token in self.world.settings.tokens

    def _spend(self) -> None:
        self.world.spend(self.token)
        self.call["counted"] = True

    def _spend_and_send(self, status: int, value: Any, headers: Mapping[str, str] = {}) -> None:
        self._spend()
        self.send(status, value, {**headers, **self._limits()})

    def _limits(self) -> dict[str, str]:
        limit, remaining, reset = self.world.remaining(self.token)
        return {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-reset": str(int(reset)),
        }

    def _filled(self, value: Any) -> Any:
        """`value` with our own address in its URLs, and without fields that a test has taken away (None of a kind)."""
        return json.loads(json.dumps(value).replace("{base}", self.world.base))


class Assets(Handler):
    """Where GitHub keeps its files: another host, which must never see a token."""

    target = "assets"

    def answer(self) -> None:
        if self.misbehaves("assets"):
            return
        match = re.fullmatch(r"/(\d+)/[^/]+", self.place)
        path = self.world.bytes_of(int(match[1])) if match else Path("/nowhere")
        if not path.exists() or "sig" not in self.query:
            self.send(403, {"message": "the signature does not fit"})
            return
        data = path.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.world.settings.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            if start >= len(data):
                self.send_bytes(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send_bytes(206, data[start:], headers)
        else:
            self.send_bytes(200, data, headers)


def serve(world: World, port: int, asset_port: int) -> tuple[Server, Server]:
    """Starts both servers in threads of their own."""
    api, assets = Server(port, API, world), Server(asset_port, Assets, world)
    world.base = f"http://127.0.0.1:{api.server_port}/"
    world.asset_base = f"http://127.0.0.1:{assets.server_port}/"
    for server in (api, assets):
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return api, assets


def main() -> None:
    parser = argparse.ArgumentParser(description="A counted fake GitHub.")
    parser.add_argument("--port", type=int, default=0, help="of the API; 0: any free one")
    parser.add_argument("--asset-port", type=int, default=0, help="of the host that serves assets")
    parser.add_argument("--state", type=Path, required=True, help="directory that keeps releases, assets and calls")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    api, assets = serve(World(options.state), options.port, options.asset_port)
    print(api.server_port, flush=True)
    stop.wait()
    for server in (api, assets):
        server.shutdown()


if __name__ == "__main__":
    main()
