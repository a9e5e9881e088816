"""`ghr://owner/repo`: releases of GitHub, of github.com or of an Enterprise server.

A poll asks for every page of the releases with the ETags of the last answer, whichever node got that. Where all are
unchanged the answer stands, and nothing was taken from the rate limit of whoever asked with a token.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Literal

from dewy.http import MAX_BODY, CallFailed
from dewy.registry import base
from dewy.registry.base import Announced, Fetched, Now, Pending, Progress
from dewy.registry.checksums import Mode, is_wanted, vouched, vouched_or_pending, with_mode
from dewy.registry.choice import choose_version
from dewy.registry.github_api import MAX_PAGES, PER_PAGE, PUBLIC_API, GitHub, Page, Release
from dewy.registry.github_files import ReleaseFiles
from dewy.registry.keys import platform_scope, with_parameter
from dewy.registry.landing import Landing, WrongBytes
from dewy.registry.platform import Platform, choose
from dewy.registry.rate import RateLimit
from dewy.registry.url import RegistryURL
from kvcache import NOT_MODIFIED, LoadContext, Loaded, NotModified, UpstreamError

TRIES: Final = 5
"""How often a download that breaks off is taken up again, at most."""
FIRST_PAUSE: Final = 0.5
"""Seconds before the second try; twice as many before each further one."""
REPORT_WITHIN: Final = 30.0
"""Seconds."""
MOST_ASSETS: Final = 800
"""Files of a release beyond which no report is added."""
FORM: Final = 2
"""Of the validator. A change in how an artifact is chosen changes it, so that answers chosen before are not kept."""

_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_REPO: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]+")
_QUERY: Final = re.compile(r"[A-Za-z0-9=&_%.-]{1,500}")
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{1,200}"')
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-")
_FIRST_PAGE: Final = f"per_page={PER_PAGE}&page=1"


class GitHubReleases:
    """Releases of one repository; see `dewy.registry.base.Registry`.

    `GITHUB_ARTIFACT` and an API of its own become part of the scope: nodes that would give different answers do not
    share one. ConfigError.
    """

    def __init__(
        self,
        url: RegistryURL,
        env: Mapping[str, str],
        platform: Platform,
        *,
        now: Now,
        hostname: str,
        max_artifact: int,
        checksums: Mode = "auto",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        owner, _, repo = url.path.removesuffix("/").partition("/")
        if not _OWNER.fullmatch(owner) or not _REPO.fullmatch(repo):
            raise url.wrong("repository", url.place, "ghr://owner/repo")
        url.reject_unknown(())
        self._rule = url.rule()
        self._artifact = url.artifact or env.get("GITHUB_ARTIFACT", "")
        self._platform = platform
        self._now = now
        self._hostname = hostname
        self._max_artifact = max_artifact
        self._checksums: Mode = checksums
        self._sleep = sleep
        self._prefix = f"ghr://{owner}/{repo}/tag/"
        self._github = GitHub(owner, repo, env, now)
        self.describe = url.describe
        self.scope = url.scope if self._artifact else platform_scope(url.scope, platform)
        if self._artifact != url.artifact:
            self.scope = with_parameter(self.scope, "artifact", self._artifact)
        if self._github.base != PUBLIC_API:
            self.scope = with_parameter(self.scope, "github-api-url", self._github.base)
        self.scope = with_mode(self.scope, checksums)

    def close(self) -> None:
        self._github.close()

    # -- what is announced --------------------------------------------------------------------------------------------

    @property
    def rate_limit(self) -> RateLimit | None:
        """What GitHub has said last of its limit."""
        return self._github.rate_limit

    def current(self, ctx: LoadContext) -> Loaded[dict[str, Any]] | Literal[NotModified.NOT_MODIFIED]:
        first = None
        known = _known_pages(ctx)
        for number, (query, etag) in enumerate(known):
            page = self._github.page(query, ctx.deadline, etag)
            if page is not None:
                first = page if number == 0 else None
                break
        else:
            if known:
                return NOT_MODIFIED
        pages = self._all_pages(first, ctx.deadline)
        found = self._choice([release for page in pages for release in page.releases], ctx)
        return base.published(found, ctx, _validator(pages))

    def _all_pages(self, first: Page | None, deadline: float) -> list[Page]:
        pages = [first] if first else []
        query: str | None = first.next if first else _FIRST_PAGE
        while query is not None:
            if len(pages) == MAX_PAGES:
                raise UpstreamError(f"GitHub: more than {MAX_PAGES} pages of releases")
            page = self._github.page(query, deadline)
            assert page is not None, "only a request with an ETag is answered 'not modified'"
            pages.append(page)
            query = page.next
        return pages

    def _choice(self, releases: list[Release], ctx: LoadContext) -> Announced | Pending:
        if not releases:
            raise UpstreamError("no non-draft releases found")
        by_tag = {release.tag: release for release in reversed(releases)}  # the first of equal tags stays
        last = base.previous_answer(ctx)
        choice = choose_version(
            (release.tag for release in releases),
            self._rule,
            lambda tag: self._artifact_of(by_tag[tag], last),
            last.tag if last else None,
        )
        if choice is None:
            raise UpstreamError("failed to find latest version: no valid versioned object found")
        release = by_tag[choice.tag]
        if choice.name is None:
            return base.artifact_pending(self._artifact, release.tag, release.published_at)
        asset = next(asset for asset in release.assets if asset.name == choice.name)
        found = Announced(
            id=base.answer_id(self._now()),
            tag=release.tag,
            artifact_url=f"{self._prefix}{release.tag}/{asset.name}",
            created_at=release.published_at,
            slot=choice.slot,
            digest=asset.digest,
            size=asset.size,
            asset=asset.id,
            newest=choice.newest,
        )
        files = ReleaseFiles(self._github, release, ctx.deadline)
        return vouched_or_pending(found, files, self._checksums, last)

    def _artifact_of(self, release: Release, last: Announced | None) -> str | None:
        names = [asset.name for asset in release.assets]
        if self._artifact:
            return self._artifact if self._artifact in names else None
        keep = last.name if last is not None and last.tag == release.tag else None
        return choose(names, self._platform, keep=keep)

    # -- its bytes ----------------------------------------------------------------------------------------------------

    def fetch(
        self,
        announced: Announced,
        path: str | os.PathLike[str],
        progress: Progress | None = None,
        *,
        deadline: float | None = None,
    ) -> Fetched:
        if announced.artifact_url != f"{self._prefix}{announced.tag}/{announced.name}":
            raise UpstreamError(f"{announced.artifact_url}: not an artifact of {self.describe}")
        end = time.monotonic() + base.FETCH_WITHIN if deadline is None else deadline
        if announced.asset is not None and not is_wanted(announced, self._checksums):
            fetched = self._download(announced, announced.asset, path, progress, end)
            if fetched is not None:
                return fetched
        # Announced by others, who name no asset or knew of no checksum, or uploaded again since.
        found = self._locate(announced, end)
        fetched = None if found.asset is None else self._download(found, found.asset, path, progress, end)
        if fetched is None:
            raise UpstreamError(f"artifact not found: {announced.name} of release {announced.tag}")
        return fetched

    def _locate(self, announced: Announced, deadline: float) -> Announced:
        """`announced` with the asset that bears its name now; what was announced of length and digest stays."""
        release = self._github.release(announced.tag, deadline)
        asset = next((a for a in release.assets if a.name == announced.name), None) if release else None
        if release is None or asset is None:
            return replace(announced, asset=None)
        found = replace(announced, asset=asset.id)
        if announced.digest is None and announced.size in (None, asset.size):
            found = replace(found, size=asset.size, digest=asset.digest)
        return vouched(found, ReleaseFiles(self._github, release, deadline), self._checksums)

    def _download(
        self, announced: Announced, asset: int, path: str | os.PathLike[str], progress: Progress | None, deadline: float
    ) -> Fetched | None:
        """None: there is no such asset."""
        with Landing(path, announced, limit=self._max_artifact, progress=progress) as landing:
            etag = ""
            for attempt in range(TRIES):
                started = False
                try:
                    with self._github.download(asset, _resume(landing, announced, etag), deadline) as answer:
                        if answer.status == 404:
                            return None
                        if answer.status == 416:  # there is nothing behind what we have: other bytes than before
                            landing.restart()
                            etag = ""
                            continue
                        if answer.status not in (200, 206):
                            body = answer.text(MAX_BODY)
                            raise self._github.failed(f"GET {announced.name}", answer.status, answer.headers, body)
                        _start(landing, answer.status, answer.headers)
                        started = True
                        etag = answer.headers.get("etag") or ""
                        for piece in answer.chunks():
                            landing.write(piece)
                    return landing.finish()
                except CallFailed:
                    # A broken connection is worth another try here only where it broke in the middle; that nobody
                    # answers at all is for the caller, who keeps the back-off.
                    if not started or attempt == TRIES - 1:
                        raise
                self._sleep(min(FIRST_PAUSE * 2**attempt, max(0.0, deadline - time.monotonic())))
            raise WrongBytes(f"{announced.name}: the server did not send it from its beginning")

    @contextmanager
    def beside(self, announced: Announced, *, deadline: float) -> Iterator[ReleaseFiles]:
        yield ReleaseFiles(self._github, self._release(announced, deadline), deadline)

    # -- what became of it --------------------------------------------------------------------------------------------

    def report(self, announced: Announced, command: str) -> None:
        """Adds a text file to the release, named by host, command and time. Nobody without a token can, so does not.

        One for each host and command, and none where the room for artifacts would become scarce: GitHub takes a
        thousand files for a release.
        """
        if self._github.auth.anonymous:
            return
        deadline = time.monotonic() + REPORT_WITHIN
        release = self._release(announced, deadline)
        text = base.report_text(self._hostname, command, self._now())
        if any(asset.name.startswith(base.report_start(text)) for asset in release.assets):
            return
        if len(release.assets) >= MOST_ASSETS:
            raise UpstreamError(f"release {announced.tag} has {len(release.assets)} files: no report is added to it")
        self._github.upload(release, base.report_name(text), text.encode(), deadline)

    def _release(self, announced: Announced, deadline: float) -> Release:
        release = self._github.release(announced.tag, deadline)
        if release is None:
            raise UpstreamError(f"release not found: {announced.tag}")
        return release


def _known_pages(ctx: LoadContext) -> list[tuple[str, str]]:
    """(query, ETag) of each page of the last answer; empty where it cannot be relied on.

    They come out of a store to which others write, and go into a request.
    """
    validator = ctx.validator
    if base.previous_answer(ctx) is None or not isinstance(validator, Mapping) or validator.get("form") != FORM:
        return []
    listed = validator.get("pages")
    pages: list[tuple[str, str]] = []
    for entry in listed if isinstance(listed, list) else []:
        match entry:
            case [str(query), str(etag)] if _QUERY.fullmatch(query) and _ETAG.fullmatch(etag):
                pages.append((query, etag))
            case _:
                return []
    return pages if pages and pages[0][0] == _FIRST_PAGE and len(pages) <= MAX_PAGES else []


def _validator(pages: list[Page]) -> dict[str, Any] | None:
    if not all(_ETAG.fullmatch(page.etag) and _QUERY.fullmatch(page.query) for page in pages):
        return None
    return {"form": FORM, "pages": [[page.query, page.etag] for page in pages]}


def _resume(landing: Landing, announced: Announced, etag: str) -> dict[str, str]:
    """Headers that ask for the rest; none where a rest of other bytes could go unnoticed."""
    if not landing.size:
        return {}
    wanted = {"Range": f"bytes={landing.size}-"}
    if etag.startswith('"'):
        return {**wanted, "If-Range": etag}
    return wanted if announced.digest is not None else {}


def _start(landing: Landing, status: int, headers: Mapping[str, str]) -> None:
    """Makes ready for what an answer's body holds: the rest, or all again."""
    if headers.get("content-encoding", "identity") != "identity":
        raise WrongBytes(f"the artifact comes in the encoding {headers['content-encoding']}, which was not asked for")
    if status == 200:
        if landing.size:
            landing.restart()
        return
    begins = _RANGE.match(headers.get("content-range", ""))
    if begins is None or int(begins[1]) != landing.size:
        raise WrongBytes("the server sent another part of the artifact than was asked for")
