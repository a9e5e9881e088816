"""As whom GitHub is asked: tokens, and Apps that get theirs from a real (fake) GitHub."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dewy.errors import ConfigError
from dewy.registry import Platform, open_registry
from dewy.registry.github_auth import App, auth_from_env
from kvcache import LoadContext, UpstreamError
from tests.fakes.github import FakeGitHub

LINUX = Platform("linux", "amd64", "gnu")
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: Any) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    text: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text.decode()


PEM = pem_of(KEY)
PUBLIC = (
    KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
)
APP = {"GITHUB_APP_ID": "12345", "GITHUB_APP_INSTALLATION_ID": "777", "GITHUB_APP_PRIVATE_KEY": PEM}


def never(path: str, credential: str, deadline: float) -> bytes:
    raise AssertionError("nothing is asked yet")


def utc_now() -> datetime:
    return datetime.now(UTC)


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "header"),
    [
        ({"GH_TOKEN": "first", "GITHUB_TOKEN": "second"}, "Bearer first"),
        ({"GH_TOKEN": "", "GITHUB_TOKEN": " second\n"}, "Bearer second"),
        ({"GH_TOKEN": "  "}, None),
        ({}, None),
    ],
)
def test_which_token(env: dict[str, str], header: str | None) -> None:
    auth = auth_from_env(env, never, utc_now)
    assert auth.credential(0.0) == header
    assert auth.anonymous == (header is None)
    assert not auth.renew(header)
    assert "first" not in auth.describe
    assert "second" not in auth.describe


# -- Apps: configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GITHUB_APP_ID": "my app"}, "GITHUB_APP_ID: 'my app': expected the App's number or client ID"),
        ({"GITHUB_APP_INSTALLATION_ID": ""}, "GITHUB_APP_INSTALLATION_ID: '': expected the installation's number"),
        ({"GITHUB_APP_INSTALLATION_ID": "7/../x"}, "GITHUB_APP_INSTALLATION_ID: '7/../x': expected"),
        ({"GITHUB_APP_PRIVATE_KEY": ""}, "GITHUB_APP_PRIVATE_KEY: not set"),
        ({"GITHUB_APP_PRIVATE_KEY": "hunter2"}, "GITHUB_APP_PRIVATE_KEY: expected an RSA private key in PEM form"),
        ({"GITHUB_APP_PRIVATE_KEY": PUBLIC}, "GITHUB_APP_PRIVATE_KEY: expected an RSA private key in PEM form"),
        (
            {"GITHUB_APP_PRIVATE_KEY": pem_of(ec.generate_private_key(ec.SECP256R1()))},
            "GITHUB_APP_PRIVATE_KEY: expected an RSA private key in PEM form",
        ),
        (
            {"GITHUB_APP_PRIVATE_KEY": "", "GITHUB_APP_PRIVATE_KEY_PATH": "/no/such.pem"},
            "GITHUB_APP_PRIVATE_KEY_PATH: '/no/such.pem': expected a readable file (No such file or directory)",
        ),
    ],
)
def test_a_wrong_app_is_found_before_anything_is_asked(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        auth_from_env(APP | change, never, utc_now)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_may_come_from_a_file_or_on_one_line(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    for source in ({"GITHUB_APP_PRIVATE_KEY_PATH": str(file)}, {"GITHUB_APP_PRIVATE_KEY": PEM.replace("\n", "\\n")}):
        env = {"GITHUB_APP_ID": "Iv23liABCDEF", "GITHUB_APP_INSTALLATION_ID": "1"} | source
        assert "Iv23liABCDEF" in auth_from_env(env, never, utc_now).describe


def test_without_pyjwt_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["jwt"] = None                       # as if it were not installed
from dewy.registry import open_registry
from dewy.errors import ConfigError
env = {"GITHUB_APP_ID": "1", "GITHUB_APP_INSTALLATION_ID": "1", "GITHUB_APP_PRIVATE_KEY": "x"}
try:
    open_registry("ghr://o/r", env=env)
except ConfigError as error:
    sys.exit(0 if "kvcache-dewy[github-app]" in str(error) else 1)
sys.exit(2)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- Apps: tokens -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as server:
        server.publish("v1.0.0", {"app_linux_amd64.tar.gz": b"data"})
        yield server


@pytest.fixture
def app(github: FakeGitHub) -> Iterator[FakeGitHub]:
    """A private repository that only this App's tokens open."""
    github.configure(
        private=True, tokens=[], app={"id": "12345", "installation": "777", "public_key": PUBLIC, "lives": 3600}
    )
    github.since = len(github.calls())  # type: ignore[attr-defined]  # where this test's calls begin
    yield github
    github.configure(private=False, tokens=None, app=None)
    github.mode("healthy")


def new_calls(github: FakeGitHub, path: str) -> int:
    return len(github.calls(path=path, since=github.since))  # type: ignore[attr-defined]


def poll(registry: Any) -> Any:
    return registry.current(LoadContext(None, None, None, time.monotonic() + 20))


def test_an_app_gets_one_token_and_uses_it(app: FakeGitHub) -> None:
    registry = open_registry(app.registry, env=APP | app.env, platform=LINUX)
    for _ in range(3):
        assert poll(registry).value["Tag"] == "v1.0.0"
    assert new_calls(app, "/access_tokens") == 1
    assert new_calls(app, "/releases") == 3


def test_many_threads_get_one_token(app: FakeGitHub) -> None:
    registry = open_registry(app.registry, env=APP | app.env, platform=LINUX)
    tags: list[str] = []
    threads = [threading.Thread(target=lambda: tags.append(poll(registry).value["Tag"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tags == ["v1.0.0"] * 8
    assert new_calls(app, "/access_tokens") == 1


def test_a_token_is_replaced_five_minutes_before_its_end(app: FakeGitHub) -> None:
    ahead = [timedelta(0)]
    registry = open_registry(app.registry, env=APP | app.env, platform=LINUX, now=lambda: utc_now() + ahead[0])
    poll(registry)
    ahead[0] = timedelta(minutes=54)
    poll(registry)
    assert new_calls(app, "/access_tokens") == 1
    ahead[0] = timedelta(minutes=56)  # our clock is ahead now, and so would be what we sign: GitHub refuses it
    poll(registry)  # but the token at hand still works
    assert new_calls(app, "/access_tokens") == 2
    assert new_calls(app, "/releases") == 3


def test_a_token_that_was_withdrawn_is_replaced_at_once(app: FakeGitHub) -> None:
    registry = open_registry(app.registry, env=APP | app.env, platform=LINUX)
    poll(registry)
    app.restart()  # which forgets the tokens that it gave
    assert poll(registry).value["Tag"] == "v1.0.0"
    assert new_calls(app, "/access_tokens") == 2


def test_an_app_that_github_does_not_know(app: FakeGitHub) -> None:
    env = APP | {"GITHUB_APP_INSTALLATION_ID": "778"} | app.env
    registry = open_registry(app.registry, env=env, platform=LINUX)
    with pytest.raises(UpstreamError, match=r"POST for a token of the App: 401") as caught:
        poll(registry)
    assert caught.value.authoritative


def test_an_outage_while_a_token_is_fetched_is_transient(app: FakeGitHub) -> None:
    app.mode("outage", times=1)
    registry = open_registry(app.registry, env=APP | app.env, platform=LINUX)
    with pytest.raises(UpstreamError) as caught:
        poll(registry)
    assert not caught.value.authoritative
    assert poll(registry).value["Tag"] == "v1.0.0"


def test_a_signature_is_good_for_a_clock_that_is_a_little_wrong() -> None:
    import jwt

    signed: list[str] = []

    def ask(path: str, credential: str, deadline: float) -> bytes:
        assert path == "app/installations/777/access_tokens"
        signed.append(credential.removeprefix("Bearer "))
        return b'{"token": "ghs_x", "expires_at": "2026-05-01T13:00:00Z"}'

    now = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    auth = auth_from_env(APP, ask, lambda: now)
    assert isinstance(auth, App)
    assert auth.credential(0.0) == "Bearer ghs_x"
    claims = jwt.decode(signed[0], PUBLIC, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False})
    assert claims == {"iss": "12345", "iat": int(now.timestamp()) - 60, "exp": int(now.timestamp()) + 540}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"token": "x"}',
        b'{"token": "x", "expires_at": "soon"}',
        b'{"token": 1, "expires_at": "2026-05-01T13:00:00Z"}',
        b'{"token": "x\\r\\nX-Evil: 1", "expires_at": "2026-05-01T13:00:00Z"}',
    ],
)
def test_an_answer_without_a_token_is_an_error(body: bytes) -> None:
    auth = auth_from_env(APP, lambda *_: body, utc_now)
    with pytest.raises(UpstreamError, match="the answer holds no token"):
        auth.credential(0.0)
