"""What the fake GitHub knows: repositories, releases, assets, tokens, faults, and every call that was made.

All of it is on disk as well, so that a server that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIMIT = 5000
ANONYMOUS_LIMIT = 60
WINDOW = 3600.0


@dataclass
class Fault:
    """How a target misbehaves; `times` None: until further notice. See `FakeGitHub.mode`."""

    mode: str
    times: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Settings:
    """What can be told about the whole server; the defaults are those of a public repository on github.com."""

    tokens: list[str] | None = None
    """The only tokens that are valid; None: all are."""
    private: bool = False
    """Who shows no token gets 404."""
    redirect: bool = True
    """Assets come from another host, by a redirect with a signed URL."""
    redirect_to: str = ""
    """Where to, instead of the fake's own second port."""
    ranges: bool = True
    """The host of the assets knows Range and If-Range."""
    etag_by_token: bool = True
    """An ETag is only good for who got it, as at GitHub."""
    page_size: int = 100
    """Most releases on a page, whatever `per_page` asks for."""
    app: dict[str, Any] | None = None
    """A GitHub App: `id`, `installation`, `public_key` (PEM), `lives` (seconds of a token)."""


class World:
    """Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.changed = threading.Condition(threading.RLock())
        self.repos: dict[str, list[dict[str, Any]]] = {}
        self.settings = Settings()
        self.faults: dict[str, Fault] = {}
        self.calls: list[dict[str, Any]] = []
        self.app_tokens: dict[str, float] = {}
        self.base = ""
        self.asset_base = ""
        self._spent: dict[str, list[float]] = {}
        self._limits: dict[str, int] = {}
        self._next_id = 1000
        (directory / "assets").mkdir(parents=True, exist_ok=True)
        self._load()

    # -- releases -----------------------------------------------------------------------------------------------------

    def publish(self, repo: str, tag: str, **about: Any) -> dict[str, Any]:
        """A new release on top of the list, or new facts about the one that has this tag."""
        with self.changed:
            releases = self.repos.setdefault(repo, [])
            release = next((r for r in releases if r["tag_name"] == tag), None)
            if release is None:
                release = self._release(repo, tag)
                releases.insert(0, release)
            release.update(about)
            self._save()
            return release

    def withdraw(self, repo: str, tag: str) -> None:
        with self.changed:
            self.repos[repo] = [r for r in self.repos.get(repo, []) if r["tag_name"] != tag]
            self._save()

    def add_asset(self, repo: str, tag: str, name: str, path: str, **about: Any) -> dict[str, Any]:
        """The file at `path` as an asset; one of the same name is replaced, under a new number."""
        with self.changed:
            release = self.find(repo, tag)
            if release is None:
                raise LookupError(f"no release {tag} of {repo}")
            number = self._number()
            kept = self.directory / "assets" / str(number)
            shutil.copyfile(path, kept)
            with kept.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            asset = self._asset(repo, tag, number, name, kept.stat().st_size, f"sha256:{digest}") | about
            release["assets"] = [a for a in release["assets"] if a["name"] != name] + [asset]
            self._save()
            return asset

    def remove_asset(self, repo: str, tag: str, name: str) -> None:
        with self.changed:
            release = self.find(repo, tag)
            if release is not None:
                release["assets"] = [a for a in release["assets"] if a["name"] != name]
                self._save()

    def find(self, repo: str, tag: str) -> dict[str, Any] | None:
        return next((r for r in self.repos.get(repo, []) if r["tag_name"] == tag), None)

    def find_asset(self, repo: str, number: int) -> dict[str, Any] | None:
        for release in self.repos.get(repo, []):
            for asset in release["assets"]:
                if asset["id"] == number:
                    return dict(asset)
        return None

    def bytes_of(self, number: int) -> Path:
        return self.directory / "assets" / str(number)

    # -- faults and limits --------------------------------------------------------------------------------------------

    def set_fault(self, target: str, mode: str, times: int | None, options: dict[str, Any]) -> None:
        with self.changed:
            if mode == "healthy":
                self.faults.pop(target, None)
            else:
                self.faults[target] = Fault(mode, times, options)
            self.changed.notify_all()  # whoever hangs looks again
            self._save()

    def take_fault(self, target: str) -> Fault | None:
        """The fault that the next call at `target` suffers."""
        with self.changed:
            fault = self.faults.get(target)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    del self.faults[target]
            return fault

    def wait_while(self, fault: Fault, target: str, seconds: float) -> None:
        """Returns when `fault` is no longer what `target` suffers from."""
        end = time.monotonic() + seconds
        with self.changed:
            while self.faults.get(target) is fault and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)

    def set_limit(self, token: str, limit: int) -> None:
        """`limit` calls per window for this token ("" is nobody), counted from now."""
        with self.changed:
            self._limits[token], self._spent[token] = limit, []

    def remaining(self, token: str) -> tuple[int, int, float]:
        """(limit, remaining, reset as a Unix time)."""
        with self.changed:
            now = time.time()
            spent = self._spent[token] = [at for at in self._spent.get(token, []) if at > now - WINDOW]
            limit = self._limits.get(token, LIMIT if token else ANONYMOUS_LIMIT)
            return limit, max(0, limit - len(spent)), (spent[0] if spent else now) + WINDOW

    def spend(self, token: str) -> None:
        with self.changed:
            self._spent.setdefault(token, []).append(time.time())

    # -- calls --------------------------------------------------------------------------------------------------------

    def arrived(self, call: dict[str, Any]) -> None:
        with self.changed:
            self.calls.append(call)

    def answered(self, call: dict[str, Any]) -> None:
        with self.changed, (self.directory / "calls.jsonl").open("a") as log:
            log.write(json.dumps(call) + "\n")

    # -- shapes, as the API's schema has them -------------------------------------------------------------------------

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id

    def _release(self, repo: str, tag: str) -> dict[str, Any]:
        number, now = self._number(), _now()
        url = f"{{base}}repos/{repo}/releases/{number}"
        return {
            "url": url,
            "assets_url": f"{url}/assets",
            "upload_url": f"{{base}}uploads/repos/{repo}/releases/{number}/assets{{?name,label}}",
            "html_url": f"https://github.example/{repo}/releases/tag/{tag}",
            "id": number,
            "author": _user(repo.partition("/")[0]),
            "node_id": f"RE_{number}",
            "tag_name": tag,
            "target_commitish": "main",
            "name": tag,
            "draft": False,
            "prerelease": False,
            "created_at": now,
            "published_at": now,
            "assets": [],
            "tarball_url": f"{{base}}repos/{repo}/tarball/{tag}",
            "zipball_url": f"{{base}}repos/{repo}/zipball/{tag}",
            "body": f"Release {tag}",
        }

    def _asset(self, repo: str, tag: str, number: int, name: str, size: int, digest: str) -> dict[str, Any]:
        now = _now()
        return {
            "url": f"{{base}}repos/{repo}/releases/assets/{number}",
            "id": number,
            "node_id": f"RA_{number}",
            "name": name,
            "label": "",
            "uploader": _user("uploader"),
            "content_type": "application/octet-stream",
            "state": "uploaded",
            "size": size,
            "digest": digest,
            "download_count": 0,
            "created_at": now,
            "updated_at": now,
            "browser_download_url": f"https://github.example/{repo}/releases/download/{tag}/{name}",
        }

    # -- disk ---------------------------------------------------------------------------------------------------------

    def configure(self, settings: dict[str, Any]) -> None:
        with self.changed:
            for name, value in settings.items():
                if not hasattr(self.settings, name):
                    raise LookupError(f"no setting {name}")
                setattr(self.settings, name, value)
            self._save()

    def _save(self) -> None:
        state = {
            "repos": self.repos,
            "settings": asdict(self.settings),
            "faults": {target: asdict(fault) for target, fault in self.faults.items()},
            "next_id": self._next_id,
        }
        part = self.directory / "state.json.part"
        part.write_text(json.dumps(state))
        part.replace(self.directory / "state.json")

    def _load(self) -> None:
        saved = self.directory / "state.json"
        if saved.exists():
            state = json.loads(saved.read_text())
            self.repos, self._next_id = state["repos"], state["next_id"]
            self.settings = Settings(**state["settings"])
            self.faults = {target: Fault(**fault) for target, fault in state["faults"].items()}
        log = self.directory / "calls.jsonl"
        if log.exists():
            self.calls = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def _user(login: str) -> dict[str, Any]:
    url = f"{{base}}users/{login}"
    return {
        "login": login,
        "id": 1,
        "node_id": "U_1",
        "avatar_url": f"https://github.example/{login}.png",
        "gravatar_id": "",
        "url": url,
        "html_url": f"https://github.example/{login}",
        "followers_url": f"{url}/followers",
        "following_url": f"{url}/following{{/other_user}}",
        "gists_url": f"{url}/gists{{/gist_id}}",
        "starred_url": f"{url}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{url}/subscriptions",
        "organizations_url": f"{url}/orgs",
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events{{/privacy}}",
        "received_events_url": f"{url}/received_events",
        "type": "User",
        "site_admin": False,
    }


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
