"""`mail://host[:port]/to?username=&password=&from=&subject=&tls=&quiet=`, and `smtp://` likewise, as in Dewy v2.

Port 465 speaks TLS from the start, any other one STARTTLS, and not a word goes out without it but to a loopback
address, or where the URL says `tls=false`. In Dewy v2 that changed nothing.
"""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Final

from dewy.http import trust
from dewy.notify.message import TIMEOUT, Message, NotSent, Weight
from dewy.notify.sender import Sender, cut

DEFAULT_PORT: Final = 587
TLS_PORT: Final = 465
DEFAULT_SUBJECT: Final = "Dewy Notification"


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL and the environment say. `username` "": the server asks for none."""

    host: str
    port: int
    to: tuple[str, ...]
    sender: str
    username: str = ""
    password: str = field(default="", repr=False)
    subject: str = DEFAULT_SUBJECT
    tls: bool = True
    quiet: bool = False


class Mail:
    """Mail to one list of addresses, over one connection for each message."""

    failure = "Mail send failure"

    def __init__(
        self,
        target: Target,
        sender: Sender,
        trusted: ssl.SSLContext | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._target = target
        self._sender = sender
        self._trusted = trusted if trusted is not None else trust({})
        self._now = now
        self.quiet = target.quiet
        self.name = f"mail://{target.host}/{','.join(target.to)}"

    def send(self, message: Message) -> None:
        target = self._target
        letter = compose(message, target, self._sender, self._now())
        try:
            with self._connect() as smtp:
                if target.username:
                    smtp.login(target.username, target.password)
                refused = smtp.send_message(letter, from_addr=target.sender, to_addrs=target.to)
        except smtplib.SMTPResponseException as error:
            # The server's own words may repeat what it was told; the number says enough.
            raise NotSent(
                f"{target.host}: the server answers {error.smtp_code}", again=error.smtp_code < 500
            ) from error
        except smtplib.SMTPRecipientsRefused as error:
            raise NotSent(f"{target.host}: all recipients were refused", again=False) from error
        except smtplib.SMTPNotSupportedError as error:
            raise NotSent(f"{target.host}: {error}", again=False) from error
        except (smtplib.SMTPException, OSError) as error:
            raise NotSent(f"{target.host}: {type(error).__name__}: {error}") from error
        if refused:
            raise NotSent(f"{target.host}: refused for {', '.join(refused)}", again=False)

    def close(self) -> None:
        """Nothing is kept open."""

    def _connect(self) -> smtplib.SMTP:
        target = self._target
        if target.tls and target.port == TLS_PORT:
            return smtplib.SMTP_SSL(target.host, target.port, timeout=TIMEOUT, context=self._trusted)
        smtp = smtplib.SMTP(target.host, target.port, timeout=TIMEOUT)
        try:
            smtp.ehlo()
            if target.tls and (smtp.has_extn("starttls") or not is_loopback(target.host)):
                smtp.starttls(context=self._trusted)
                smtp.ehlo()
        except BaseException:
            smtp.close()
            raise
        return smtp


def compose(message: Message, target: Target, sender: Sender, now: datetime) -> EmailMessage:
    """The letter."""
    letter = EmailMessage()
    letter["Subject"] = subject_of(message, target.subject)
    letter["From"] = Address("Dewy", addr_spec=target.sender)
    letter["To"] = ", ".join(target.to)
    letter["Date"] = format_datetime(now)
    letter["Message-ID"] = make_msgid(domain=target.sender.rpartition("@")[2] or None)
    letter["Auto-Submitted"] = "auto-generated"
    lines = [message.text, ""]
    if (run := message.hook) is not None:
        code = "none" if run.exit_code is None else run.exit_code
        lines += [f"Command: {run.command}", f"Exit code: {code}", f"Duration: {run.duration:.3f}s", ""]
        for title, output in (("Stdout", run.stdout), ("Stderr", run.stderr)):
            if output.strip():
                lines += [f"{title}:", cut(output), ""]
    lines += [
        f"Host: {sender.host}",
        f"User: {sender.user}",
        f"Working dir: {sender.root}",
        "",
        f"-- \nDewy {sender.version}",
    ]
    letter.set_content("\n".join(lines) + "\n")
    return letter


def subject_of(message: Message, subject: str) -> str:
    """Hooks have a subject of their own, as in Dewy v2; other failures are marked in theirs."""
    if (run := message.hook) is not None:
        return f"Dewy {run.title} {'SUCCESS' if run.succeeded else 'FAILED'}"
    return f"{subject} (error)" if message.weight is Weight.FAILURE else subject


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
