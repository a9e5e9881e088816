"""The few calls of GitHub's REST API that releases need, with their errors made into one kind."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from dewy.errors import ConfigError
from dewy.http import Answer, Client, Stream, origin
from dewy.registry.base import Now, parse_time
from dewy.registry.github_auth import auth_from_env
from dewy.registry.github_failures import failure
from dewy.registry.rate import RateLimit
from kvcache import UpstreamError

PUBLIC_API: Final = "https://api.github.com/"
PER_PAGE: Final = 100
MAX_PAGES: Final = 100
"""GitHub lists the 10,000 newest releases, and no more."""
ACCEPT: Final = "application/vnd.github+json"
ACCEPT_BYTES: Final = "application/octet-stream"
API_VERSION: Final = {"X-GitHub-Api-Version": "2022-11-28"}

_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a release. `digest` is `sha256:<hex>` where GitHub gives one."""

    id: int
    name: str
    size: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Release:
    """A published release with its whole files; a half-uploaded one is none yet."""

    tag: str
    published_at: datetime | None
    assets: tuple[Asset, ...]
    upload_url: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of releases. `etag` "" where there is none; `next` is the query of the next page."""

    query: str
    etag: str
    releases: tuple[Release, ...]
    next: str | None


class GitHub:
    """One repository, asked as whoever the environment says. Safe to use from any number of threads. ConfigError."""

    def __init__(self, owner: str, repo: str, env: Mapping[str, str], now: Now) -> None:
        self.base: Final = api_base(env)
        self._now = now
        self._http = Client(env)
        self._repo = f"repos/{quote(owner)}/{quote(repo)}"
        self.auth: Final = auth_from_env(env, self._ask_for_token, now)
        self.rate_limit: RateLimit | None = None
        """As of the last answer that said it."""

    def close(self) -> None:
        self._http.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def page(self, query: str, deadline: float, etag: str | None = None) -> Page | None:
        """One page of the releases; None: it still has this `etag`."""
        path = f"{self._repo}/releases?{query}"
        conditions, good = ({"If-None-Match": etag}, (200, 304)) if etag else ({}, (200,))
        answer = self._get(path, deadline, conditions, good)
        if answer.status == 304:
            return None
        listed = _json(answer, path)
        if not isinstance(listed, list):
            raise UpstreamError(f"{_what('GET', path)}: expected a list of releases; is GITHUB_API_URL right?")
        releases = tuple(release for raw in listed if (release := _release(raw)) is not None)
        following = _NEXT.search(answer.headers.get("link") or "")
        # Only the query is believed: whatever host a proxy, or an appliance behind one, names there is not asked.
        after = urlsplit(following[1]).query if following else None
        return Page(query, answer.headers.get("etag") or "", releases, after or None)

    def release(self, tag: str, deadline: float) -> Release | None:
        """The release of a tag; None where there is none."""
        path = f"{self._repo}/releases/tags/{quote(tag, safe='')}"
        answer = self._get(path, deadline, {}, (200, 404))
        return None if answer.status == 404 else _release(_json(answer, path))

    def download(
        self, asset: int, headers: Mapping[str, str], deadline: float
    ) -> contextlib.AbstractContextManager[Stream]:
        """The bytes of an asset, from wherever GitHub redirects to; the credential stays with the API."""
        return self._http.stream(
            "GET",
            f"{self.base}{self._repo}/releases/assets/{asset}",
            deadline=deadline,
            headers={**API_VERSION, "Accept": ACCEPT_BYTES, **headers},
            credential=self.auth.credential(deadline),
        )

    # -- writing ------------------------------------------------------------------------------------------------------

    def upload(self, release: Release, name: str, data: bytes, deadline: float) -> None:
        """Adds a small text file to a release.

        The address is the release's own, as the API has just given it: an appliance's uploads go to the appliance.
        """
        address = release.upload_url.partition("{")[0]
        if address.partition("://")[0] not in ("https", origin(self.base)[0]):
            raise UpstreamError(f"release {release.tag}: the API names no address for uploads that can be trusted")
        answer = self._http.call(
            "POST",
            f"{address}?{urlencode({'name': name})}",
            deadline=deadline,
            headers={**API_VERSION, "Accept": ACCEPT, "Content-Type": "text/plain"},
            body=data,
            credential=self.auth.credential(deadline),
        )
        if answer.status not in (200, 201):
            raise self.failed(f"POST an asset of {release.tag}", answer.status, answer.headers, answer.body)

    # -- both ---------------------------------------------------------------------------------------------------------

    def failed(self, what: str, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The error for an answer of the API that is no success."""
        return failure(f"GitHub: {what}", status, headers, body, self._now())

    def _get(self, path: str, deadline: float, headers: Mapping[str, str], good: Collection[int]) -> Answer:
        sent = {**API_VERSION, "Accept": ACCEPT, **headers}
        credential = self.auth.credential(deadline)
        answer = self._http.call("GET", self.base + path, deadline=deadline, headers=sent, credential=credential)
        if answer.status == 401 and self.auth.renew(credential):  # an App's token that was withdrawn before its time
            credential = self.auth.credential(deadline)
            answer = self._http.call("GET", self.base + path, deadline=deadline, headers=sent, credential=credential)
        self.rate_limit = RateLimit.of(answer.headers) or self.rate_limit
        if answer.status in good:
            return answer
        raise self.failed(_what("GET", path), answer.status, answer.headers, answer.body)

    def _ask_for_token(self, path: str, credential: str, deadline: float) -> bytes:
        answer = self._http.call(
            "POST",
            self.base + path,
            deadline=deadline,
            headers={**API_VERSION, "Accept": ACCEPT},
            body=b"",
            credential=credential,
        )
        if answer.status != 201:
            raise self.failed("POST for a token of the App", answer.status, answer.headers, answer.body)
        return answer.body


def api_base(env: Mapping[str, str]) -> str:
    """Where the API is, with a slash at the end: GITHUB_API_URL, GITHUB_ENDPOINT or the public one. ConfigError."""
    for name in ("GITHUB_API_URL", "GITHUB_ENDPOINT"):
        url = env.get(name, "").strip()
        if not url:
            continue
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isprintable()
        except ValueError:
            good = False
        if not good or " " in url:
            raise ConfigError(f"{name}: expected a URL such as https://github.example.com/api/v3")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError(f"{name}: expected no user, password, query or fragment in the URL")
        base = f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}/"
        return PUBLIC_API if origin(base) == origin(PUBLIC_API) and not parts.path.strip("/") else base
    return PUBLIC_API


def _json(answer: Answer, path: str) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{_what('GET', path)}: not JSON; is GITHUB_API_URL right?") from error


def _what(method: str, path: str) -> str:
    return f"{method} {path.partition('?')[0]}"


def _release(raw: Any) -> Release | None:
    """A published release; None for a draft, and for what is no release."""
    if not isinstance(raw, dict) or raw.get("draft") is True:
        return None
    tag, upload_url, listed = raw.get("tag_name"), raw.get("upload_url"), raw.get("assets")
    if not isinstance(tag, str) or not tag:
        return None
    assets = tuple(a for item in (listed if isinstance(listed, list) else []) if (a := _asset(item)) is not None)
    address = upload_url if isinstance(upload_url, str) else ""
    return Release(tag, parse_time(raw.get("published_at")), assets, address)


def _asset(raw: Any) -> Asset | None:
    """A whole asset; None while it is being uploaded (a missing state counts as whole), and for what is none."""
    if not isinstance(raw, dict) or raw.get("state", "uploaded") != "uploaded":
        return None
    number, name, size, digest = raw.get("id"), raw.get("name"), raw.get("size"), raw.get("digest")
    if type(number) is not int or not isinstance(name, str) or not name or "/" in name or type(size) is not int:
        return None
    return Asset(number, name, size, digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None)
