"""Messages as they arrive: Slack's API and webhooks over real HTTP, and a real mail server."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from dewy.notify import HookRun, Message, NotSent, Sender, Weight, open_channel
from dewy.notify.mail import is_loopback
from dewy.notify.sender import color_of, cut
from dewy.notify.slack import escaped
from tests.dewy.inbox import Inbox, MailServer
from tests.servers import certificates

FAILURE = Message("it <broke> & burned", Weight.FAILURE)
HOOK = HookRun("before", "make <it>", 2, "one\ntwo", "", 1.5, succeeded=False)


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender("web-1", "deploy", tmp_path, "v1.0")


# -- Slack -------------------------------------------------------------------------------------------------------------


def test_slack_is_told_in_v2_s_form(sender: Sender) -> None:
    with Inbox() as inbox:
        channel = open_channel("slack://general?title=App&url=https://app.example", sender, inbox.env)
        channel.send(FAILURE)
        channel.close()
    (request,) = inbox.requests
    assert request.path == "/api/chat.postMessage"
    assert request.headers["Authorization"] == "Bearer xoxb-0123456789-secret"
    body = request.body
    assert (body["channel"], body["username"]) == ("general", "Dewy") and "thread_ts" not in body
    (attachment,) = body["attachments"]
    assert attachment["text"] == "it &lt;broke&gt; &amp; burned"
    assert attachment["footer"] == "<https://app.example|App>/web-1"
    assert attachment["color"] == color_of("web-1") and attachment["ts"] > 1e9


def test_a_hook_comes_with_its_output(sender: Sender) -> None:
    with Inbox() as inbox:
        channel = open_channel("slack://general", sender, inbox.env)
        channel.send(Message("Before Deploy Hook failed", Weight.FAILURE, hook=HOOK))
        channel.close()
    (attachment,) = inbox.bodies()[0]["attachments"]
    assert (attachment["title"], attachment["color"]) == ("Before Deploy Hook", "#dd0000")
    assert attachment["text"] == "```make &lt;it&gt;```"
    assert {f["title"]: f["value"] for f in attachment["fields"]} == {
        "Stdout": "```one\ntwo```",
        "Exit Code": "2",
        "Duration": "1.500s",
    }


def test_a_thread_is_that_of_the_current_release(sender: Sender, tmp_path: Path) -> None:
    with Inbox() as inbox:
        channel = open_channel("slack://general?thread=true", sender, inbox.env)
        channel.send(Message("before any release"))
        (tmp_path / "current").mkdir()
        (tmp_path / "current" / ".slack-thread-ts").write_text("171.001\n")
        channel.send(Message("news"))
        channel.send(FAILURE)
        channel.close()
    threads = [(body.get("thread_ts"), body.get("reply_broadcast")) for body in inbox.bodies()]
    assert threads == [(None, None), ("171.001", None), ("171.001", True)]


@pytest.mark.parametrize(
    ("answer", "again", "pause"),
    [
        ((429, {}, {"Retry-After": "7"}), True, 7.0),
        ((503, {}, {}), True, None),
        ((404, {}, {}), False, None),
        ((200, {"ok": False, "error": "channel_not_found"}, {}), False, None),
        ((200, {"ok": False, "error": "internal_error"}, {}), True, None),
        ((200, b"<html>", {}), False, None),
        ((200, [], {}), False, None),
    ],
)
def test_slack_refuses(sender: Sender, answer: tuple, again: bool, pause: float | None) -> None:
    with Inbox(answers=[answer]) as inbox:
        channel = open_channel("slack://general", sender, inbox.env)
        with pytest.raises(NotSent) as failed:
            channel.send(FAILURE)
        channel.close()
    assert (failed.value.again, failed.value.pause) == (again, pause)
    assert "secret" not in str(failed.value)


def test_slack_is_away(sender: Sender) -> None:
    with Inbox() as inbox:
        env = inbox.env
    channel = open_channel("slack://general", sender, env)
    with pytest.raises(NotSent) as failed:
        channel.send(FAILURE)
    assert failed.value.again and "secret" not in str(failed.value)


# -- mail --------------------------------------------------------------------------------------------------------------


def test_a_letter(sender: Sender, tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    env = {"SSL_CERT_FILE": str(files.ca), "MAIL_PASSWORD": "hunter22"}
    with MailServer((files.cert, files.key), password="hunter22") as server:
        url = f"mail://127.0.0.1:{server.port}/ops@example.com,on-call@example.com?username=dewy@example.com"
        channel = open_channel(url, sender, env)
        channel.send(Message("Server started for `v1`", Weight.IMPORTANT))
        channel.send(Message("Before Deploy Hook failed", Weight.FAILURE, hook=HOOK))
    (envelope, letter), (_, hook) = server.letters
    assert server.encrypted == [True, True] and server.logins[0] == ("dewy@example.com", "hunter22")
    assert envelope.mail_from == "dewy@example.com" and envelope.rcpt_tos == ["ops@example.com", "on-call@example.com"]
    assert (letter["Subject"], letter["To"]) == ("Dewy Notification", "ops@example.com, on-call@example.com")
    assert letter["From"] == "Dewy <dewy@example.com>" and letter["Date"] and letter["Message-ID"]
    body = letter.get_content()
    assert body.startswith("Server started for `v1`\n") and "Host: web-1\n" in body and "User: deploy\n" in body
    assert f"Working dir: {tmp_path}\n" in body
    assert hook["Subject"] == "Dewy Before Deploy Hook FAILED"
    assert "Exit code: 2\n" in hook.get_content() and "one\ntwo" in hook.get_content()


def test_without_tls_only_to_this_host_or_where_told(sender: Sender) -> None:
    """R8: `tls=false` means it, and its absence too."""
    with MailServer() as server:
        place = f"127.0.0.1:{server.port}/ops@example.com?from=dewy@example.com"
        open_channel(f"mail://{place}", sender, {}).send(FAILURE)
        # 127.1 is this host as well, but nothing that a name would tell.
        named = place.replace("127.0.0.1", "127.1")
        with pytest.raises(NotSent, match="STARTTLS") as failed:
            open_channel(f"mail://{named}", sender, {}).send(FAILURE)
        assert not failed.value.again
        open_channel(f"mail://{named}&tls=false", sender, {}).send(FAILURE)
    assert len(server.letters) == 2


def test_a_certificate_is_checked(sender: Sender, tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    with MailServer((files.cert, files.key)) as server:
        url = f"mail://127.0.0.1:{server.port}/ops@example.com?from=dewy@example.com"
        with pytest.raises(NotSent, match="certificate"):
            open_channel(url, sender, {}).send(FAILURE)
    assert server.letters == []


def test_a_wrong_password_is_not_told(sender: Sender, tmp_path: Path) -> None:
    files = certificates.make(tmp_path)
    env = {"SSL_CERT_FILE": str(files.ca)}
    with MailServer((files.cert, files.key), password="right") as server:
        url = f"mail://127.0.0.1:{server.port}/o@example.com?username=d@example.com&password=hunter22"
        with pytest.raises(NotSent, match="535") as failed:
            open_channel(url, sender, env).send(FAILURE)
    assert not failed.value.again and "hunter22" not in str(failed.value)


def test_no_mail_server(sender: Sender) -> None:
    with MailServer() as server:
        port = server.port
    with pytest.raises(NotSent) as failed:
        open_channel(f"mail://127.0.0.1:{port}/o@example.com?from=d@example.com", sender, {}).send(FAILURE)
    assert failed.value.again


def test_loopback() -> None:
    assert is_loopback("localhost") and is_loopback("::1") and is_loopback("127.0.0.9")
    assert not is_loopback("mx.example.com") and not is_loopback("10.0.0.1")


# -- Apprise -----------------------------------------------------------------------------------------------------------


def test_a_webhook(sender: Sender) -> None:
    with Inbox() as inbox:
        channel = open_channel(f"json://127.0.0.1:{inbox.port}/hook", sender, {})
        channel.send(Message("Server started", Weight.IMPORTANT))
        channel.send(Message("Before Deploy Hook failed", Weight.FAILURE, hook=HOOK))
    told = [(body["title"], body["type"], body["message"]) for body in inbox.bodies()]
    assert told[0] == ("Dewy on web-1", "success", "Server started")
    assert told[1][1] == "failure" and "make <it> (exit code 2, 1.500s)" in told[1][2] and "one\ntwo" in told[1][2]


def test_a_webhook_that_fails_says_why_without_its_secrets(sender: Sender) -> None:
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    try:
        with Inbox(answers=[(500, {}, {})]) as inbox:
            channel = open_channel(f"json://user:hunter22@127.0.0.1:{inbox.port}/hook-sesame", sender, {})
            with pytest.raises(NotSent, match="error=500") as failed:
                channel.send(FAILURE)
        with pytest.raises(NotSent, match="Connection error") as away:
            channel.send(FAILURE)
        logging.getLogger("other").warning("this is how it would be seen")
    finally:
        logging.getLogger().removeHandler(handler)
    assert logged.getvalue() == "this is how it would be seen\n"
    for text in (str(failed.value), str(away.value)):
        for part in ("hunter22", "hook-sesame", "127.0.0.1"):  # it may be anywhere in such a URL
            assert part not in text


# -- what they say -----------------------------------------------------------------------------------------------------


def test_long_output_is_cut_at_its_beginning() -> None:
    assert cut("a\nb") == "a\nb"
    lines = cut("\n".join(map(str, range(100)))).splitlines()
    assert lines[0] == "..." and lines[-1] == "99" and len(lines) == 51
    assert len(cut("x" * 5000)) == 2004


def test_colours_tell_hosts_apart_and_alarm_nobody() -> None:
    from colorsys import rgb_to_hls

    colours = {color_of(f"host-{n}") for n in range(300)}
    assert len(colours) > 290
    for colour in colours:
        hue, _, saturation = rgb_to_hls(*(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)))
        assert saturation < 0.55 or 10 / 360 < hue < 350 / 360


def test_escapes() -> None:
    assert escaped("<!channel> & co") == "&lt;!channel&gt; &amp; co"
