"""As whom we ask GitHub: a token, a GitHub App, or nobody."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from dewy.errors import ConfigError
from dewy.registry.base import Now, parse_time
from kvcache import UpstreamError

RENEW_BEFORE: Final = timedelta(minutes=5)
"""How long before its end a token of an App is replaced."""
BACKDATED: Final = timedelta(seconds=60)
LIVES: Final = timedelta(minutes=9)
"""GitHub takes at most ten minutes from its own now; the difference is for our clock to be wrong in."""

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_APP_ID: Final = re.compile(r"[0-9]{1,20}|Iv[0-9A-Za-z.]{6,40}")  # a number, or the newer client ID

Ask: TypeAlias = Callable[[str, str, float], bytes]
"""(path, credential, deadline) -> the body of the answer to a POST that succeeded. UpstreamError."""


class Auth(Protocol):
    """Gives the Authorization header. Safe to use from any number of threads."""

    anonymous: bool
    describe: str

    def credential(self, deadline: float) -> str | None:
        """The header's value; None: no header. UpstreamError where it has to be fetched and cannot be."""

    def renew(self, refused: str | None) -> bool:
        """`refused` got a 401. True: another try can do better."""


class Anonymous:
    """Nobody: public repositories, and 60 calls an hour from one address."""

    anonymous = True
    describe = "anonymous"

    def credential(self, deadline: float) -> None:
        return None

    def renew(self, refused: str | None) -> bool:
        return False


class Token:
    """A personal or workflow token. `source` is the variable that it came from."""

    anonymous = False

    def __init__(self, token: str, source: str) -> None:
        self._value = f"Bearer {token}"
        self.describe = f"token of {source}"

    def credential(self, deadline: float) -> str:
        return self._value

    def renew(self, refused: str | None) -> bool:
        return False


class App:
    """An installation of a GitHub App: its key signs for a token of one hour, which is replaced in good time."""

    anonymous = False

    def __init__(self, app_id: str, installation: str, key: Any, sign: Callable[..., str], ask: Ask, now: Now) -> None:
        self.describe = f"GitHub App {app_id}, installation {installation}"
        self._app_id = app_id
        self._path = f"app/installations/{installation}/access_tokens"
        self._key = key
        self._sign = sign
        self._ask = ask
        self._now = now
        # Held while a token is fetched, so that many threads fetch one token rather than one each.
        self._lock = threading.Lock()
        self._token: str | None = None
        self._ends: datetime | None = None

    def credential(self, deadline: float) -> str:
        with self._lock:
            now = self._now()
            if self._token is None or self._ends is None or now >= self._ends - RENEW_BEFORE:
                try:
                    self._token, self._ends = self._fetch(now, deadline)
                except UpstreamError:
                    if self._token is None or self._ends is None or now >= self._ends:
                        raise  # else the old one still works, and there is another poll before it ends
            return f"Bearer {self._token}"

    def renew(self, refused: str | None) -> bool:
        with self._lock:
            if refused == f"Bearer {self._token}":  # else another thread has replaced it already
                self._token = None
            return True

    def _fetch(self, now: datetime, deadline: float) -> tuple[str, datetime]:
        claims = {"iat": int((now - BACKDATED).timestamp()), "exp": int((now + LIVES).timestamp()), "iss": self._app_id}
        body = self._ask(self._path, f"Bearer {self._sign(claims, self._key, algorithm='RS256')}", deadline)
        try:
            told = json.loads(body)
            token, ends = told["token"], parse_time(told["expires_at"])
        except (ValueError, TypeError, KeyError):
            raise UpstreamError("GitHub App: the answer holds no token") from None
        if not isinstance(token, str) or not _is_header_text(token) or ends is None:
            raise UpstreamError("GitHub App: the answer holds no token")
        return token, ends


def auth_from_env(env: Mapping[str, str], ask: Ask, now: Now) -> Auth:
    """GITHUB_APP_ID (and what belongs to it), else GH_TOKEN, else GITHUB_TOKEN, else nobody. ConfigError."""
    if env.get("GITHUB_APP_ID"):
        return _app(env, ask, now)
    for name in ("GH_TOKEN", "GITHUB_TOKEN"):
        token = env.get(name, "").strip()
        if token:
            if not _is_header_text(token):
                raise ConfigError(f"{name}: expected a token of printable ASCII characters without spaces")
            return Token(token, name)
    return Anonymous()


def _app(env: Mapping[str, str], ask: Ask, now: Now) -> App:
    app_id, installation = env["GITHUB_APP_ID"].strip(), env.get("GITHUB_APP_INSTALLATION_ID", "").strip()
    if not _APP_ID.fullmatch(app_id):
        raise ConfigError(f"GITHUB_APP_ID: {app_id!r}: expected the App's number or client ID")
    if not _NUMBER.fullmatch(installation):
        raise ConfigError(f"GITHUB_APP_INSTALLATION_ID: {installation!r}: expected the installation's number")
    pem, source = _private_key(env)
    try:
        import jwt  # with cryptography behind it; only Apps need either
        from jwt.algorithms import RSAAlgorithm
    except ImportError as error:
        raise ConfigError("GITHUB_APP_ID: needs PyJWT: pip install 'kvcache-dewy[github-app]'") from error
    try:
        key: Any = RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(pem)
        jwt.encode({}, key, algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, NotImplementedError):
        # Without its cause: a parser's message may quote what it read.
        raise ConfigError(f"{source}: expected an RSA private key in PEM form") from None
    return App(app_id, installation, key, jwt.encode, ask, now)


def _private_key(env: Mapping[str, str]) -> tuple[str, str]:
    """(the key in PEM form, where it came from)."""
    pem = env.get("GITHUB_APP_PRIVATE_KEY", "")
    if pem.strip():
        # Many ways to set a variable keep it on one line.
        return (pem if "\n" in pem.strip() else pem.replace("\\n", "\n")), "GITHUB_APP_PRIVATE_KEY"
    path = env.get("GITHUB_APP_PRIVATE_KEY_PATH", "")
    if not path:
        raise ConfigError("GITHUB_APP_PRIVATE_KEY: not set: the App's private key, or GITHUB_APP_PRIVATE_KEY_PATH")
    try:
        return Path(path).read_text(encoding="ascii"), "GITHUB_APP_PRIVATE_KEY_PATH"
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"GITHUB_APP_PRIVATE_KEY_PATH: {path!r}: expected a readable file ({why})") from None


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
