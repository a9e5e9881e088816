"""Google's credentials: whose token goes with a request, and when a new one is asked for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import kvcache.url
from kvcache.errors import StoreUnavailable
from tests.proxy import DropReply, Fault
from tests.servers.certificates import make
from tests.servers.ports import HOST
from tests.stores.rig import behind_tls, rigged


class Tokens(ThreadingHTTPServer):
    """Gives out `token-1`, `token-2`... each good for `seconds`; nothing while `broken`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.given = 0
        self.seconds = 3600
        self.broken = False


class _Handler(BaseHTTPRequestHandler):
    server: Tokens

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.broken:
            self.send_error(400)
            return
        self.server.given += 1
        token = {"access_token": f"token-{self.server.given}", "expires_in": self.server.seconds}
        body = json.dumps({**token, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def tokens(monkeypatch, tmp_path):
    """The server of tokens, and a service account of it as the default credentials."""
    with Tokens() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": "test",
            "client_email": "node@test.invalid",
            "private_key": key.decode(),
            "token_uri": f"http://{HOST}:{server.server_port}/token",
        }
        (tmp_path / "account").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account"))
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def secured(request, tokens, tmp_path):
    """A store with credentials, over TLS, and the credentials of each request."""
    with rigged(request, "fake_gcs") as rig:
        sent: list[str] = []
        note = Fault(DropReply(), when=lambda seen: bool(sent.append(seen.headers.get("authorization", ""))))
        rig.proxy.plan = [note]
        certificates = make(tmp_path)
        with behind_tls(int(rig.proxy.url.rpartition(":")[2]), certificates) as address:
            url = rig.server.store_url(rig.bucket, rig.prefix, endpoint=address)
            with kvcache.url.open_store(f"{url}&ca={certificates.ca}&check=off") as store:
                yield store, sent


def test_one_token_for_as_long_as_it_is_good(tokens, secured):
    store, sent = secured
    for _ in range(3):
        store.write("key", b"value")
        store.read("key")
    assert sent == ["Bearer token-1"] * 6
    assert tokens.given == 1


def test_a_new_token_before_the_old_one_expires(tokens, secured):
    store, sent = secured
    tokens.seconds = 60  # within the minutes that are left for a request to be under way
    store.write("key", b"value")
    tokens.seconds = 3600
    for _ in range(3):
        store.read("key")
    assert sent == ["Bearer token-1", *["Bearer token-2"] * 3]


def test_no_token_is_no_request(tokens, secured):
    store, sent = secured
    tokens.broken = True
    with pytest.raises(StoreUnavailable, match="no credentials"):
        store.read("key")
    assert sent == []
    tokens.broken = False
    store.write("key", b"value")
    assert sent == ["Bearer token-1"]
