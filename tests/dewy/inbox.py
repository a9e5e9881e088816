"""Services that receive notifications, over real sockets: Slack's Web API, any webhook, and a mail server."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from tests.dewy.supervised import free_port, wait_for


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Inbox:
    """An HTTP server that keeps what is posted to it. `answers`: status, body and headers of the next ones; then `ok`.

    While `hold` is cleared it takes requests, and answers none.
    """

    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    ok: Any = field(default_factory=lambda: {"ok": True})
    requests: list[Request] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        inbox = self
        self.hold.set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.requests.append(Request(self.path, dict(self.headers), json.loads(body)))
                inbox.hold.wait(60)
                status, answer, headers = inbox.answers.pop(0) if inbox.answers else (200, inbox.ok, {})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """The environment with which `slack://` talks to it."""
        return {"SLACK_API_URL": f"http://127.0.0.1:{self.port}/api/", "SLACK_TOKEN": "xoxb-0123456789-secret"}

    def bodies(self) -> list[Any]:
        return [request.body for request in self.requests]

    def texts(self) -> list[str]:
        """What Slack was told."""
        return [body["attachments"][0]["text"] for body in self.bodies()]

    def wait_text(self, part: str) -> str:
        wait_for(lambda: any(part in text for text in self.texts()), f"a message with {part!r}; so far {self.texts()}")
        return next(text for text in self.texts() if part in text)


class MailServer:
    """aiosmtpd, which speaks SMTP in full. `tls`: offers STARTTLS with this certificate and key, and then AUTH."""

    def __init__(self, tls: tuple[Path, Path] | None = None, *, password: str = "") -> None:
        self.letters: list[tuple[Envelope, EmailMessage]] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        self._password = password
        self.port = free_port()
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            tls_context=context,
            require_starttls=context is not None,
            authenticator=self._login if password else None,
            auth_required=bool(password),
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    def _login(
        self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password.decode() == self._password, handled=False)

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        self.encrypted.append(session.ssl is not None)
        content = (envelope.original_content or b"").replace(b"\r\n", b"\n")
        letter = message_from_bytes(content, policy=default)
        assert isinstance(letter, EmailMessage)
        self.letters.append((envelope, letter))
        return "250 taken"
