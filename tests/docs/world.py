"""The world in which pages are run: the services that they name are the servers of the tests.

A page's text is run as printed, but for hosts, ports and absolute paths, which lead to servers and directories of the
tests. Repositories, buckets and directories of releases that a page names hold what it needs of them.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from dewy.registry.platform import this_platform
from kvcache import open_store
from tests.dewy.node import archive
from tests.dewy.supervised import WEB, free_port
from tests.docs.pages import ROOT
from tests.fakes.github import FakeGitHub
from tests.servers import Consul, FakeGCS, Redis, Seaweed

TAGS: Final = ("v1.2.3", "v1.2.3+blue", "v1.2.3+green", "v1.2.2")
"""What each registry that a page only names has to offer."""
_DIRECTORIES: Final = re.compile(r"(?<![\w.$}~-])/(srv|opt|var/cache|var/lib|etc|tmp)(?=/)")
_REPOSITORY: Final = re.compile(r"ghr://([\w.-]+/[\w.-]+)")
_REGISTRY: Final = re.compile(r"--registry[ =]['\"]?(?:s3://[\w-]+|gs:/|file:/)/([^'\"?\s]*)")
_ARTIFACT: Final = re.compile(r"artifact=([\w.-]+)")
_S3: Final = re.compile(r"s3://[\w-]+/([\w.-]+)")
_GS: Final = re.compile(r"gs://([\w.-]+)")
STAND_IN: Final = Path(__file__).with_name("until_it_serves.py")
_CALVER: Final = re.compile(r"YYYY\.0M\.MICRO")


class Servers(Protocol):
    """Started when a page first asks for them. `publish` and `bucket` make what is not there yet; pages share it."""

    def github(self) -> FakeGitHub: ...
    def publish(self, repository: str, tag: str, name: str, data: bytes) -> None: ...
    def s3(self) -> Seaweed: ...
    def gcs(self) -> FakeGCS: ...
    def redis(self) -> Redis: ...
    def consul(self) -> Consul: ...
    def anything(self) -> str: ...
    def bucket(self, server: Seaweed | FakeGCS, name: str) -> None: ...


def release(tag: str) -> bytes:
    """An application that every page can run, by whatever name, and some files."""
    files = {name: WEB.read_bytes() for name in ("app", "web.py")}
    texts = {"VERSION": tag, "index.html": f"<p>{tag}</p>\n"}
    return archive({**files, **texts}, executable=files)


def artifact_name() -> str:
    platform = this_platform()
    return f"app_{platform.os}_{platform.arch}.tar.gz"


@dataclass
class World:
    """The surroundings of one page. `home` is its working directory."""

    page: str
    text: str
    home: Path
    servers: Servers

    def __post_init__(self) -> None:
        self.port = free_port()
        self.home.mkdir()
        self.absolute = self.home.parent / "root"
        self.programs = self.home.parent / "bin"
        self.programs.mkdir()
        shim = self.programs / "dewy"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
        shim.chmod(0o755)
        # A server that has just been put into the background may not listen yet.
        (self.home / ".curlrc").write_text("retry = 60\nretry-connrefused\nretry-delay = 1\n")
        self._make_directories()
        self.env = self._environment()
        self.hosts = self._hosts()

    def moved(self, text: str) -> str:
        """A page's text with the hosts, ports and absolute paths of this world."""
        for there, here in self.hosts.items():
            text = text.replace(there, here)
        text = re.sub(r"(--port[ =]|-p )8000\b", rf"\g<1>127.0.0.1:{self.port}", text)
        text = re.sub(r"\b(localhost|127\.0\.0\.1):8000\b", f"127.0.0.1:{self.port}", text)
        return _DIRECTORIES.sub(rf"{self.absolute}/\1", text)

    def _make_directories(self) -> None:
        for found in re.finditer(rf"{_DIRECTORIES.pattern}/([\w./-]*)", self.text):
            path = Path(f"{self.absolute}/{found[1]}/{found[2]}")
            (path if not path.suffix else path.parent).mkdir(parents=True, exist_ok=True)

    def _environment(self) -> dict[str, str]:
        kept = ("LANG", "LC_ALL", "TERM", "TMPDIR", "COVERAGE_PROCESS_START")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "DEWY_INTERVAL": "0.3"}
        env["PATH"] = f"{self.programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        if "slack://" in self.text:
            env |= {"SLACK_TOKEN": "xoxb-made-up", "SLACK_API_URL": f"{self.servers.anything()}/"}
        if repositories := set(_REPOSITORY.findall(self.text)):
            env |= {"GH_TOKEN": "ghp_made_up", **self._github(repositories)}
        if "s3://" in self.text:
            env |= self._s3()
        if "gs://" in self.text:
            env |= self._gcs()
        return env

    def _github(self, repositories: set[str]) -> dict[str, str]:
        for repository in repositories:
            for tag in self._tags():
                for name in (artifact_name(), *_ARTIFACT.findall(self.text)):
                    self.servers.publish(repository, tag, name, release(tag))
        return self.servers.github().env

    def _tags(self) -> tuple[str, ...]:
        return ("2026.11.0", *TAGS) if _CALVER.search(self.text) else TAGS

    def _s3(self) -> dict[str, str]:
        server = self.servers.s3()
        buckets = set(_S3.findall(self.text))
        for name in buckets:
            self.servers.bucket(server, name)
        for bucket, key, tag in self._keys(buckets):
            server.client().put_object(Bucket=bucket, Key=key, Body=release(tag))
        return {**server.env, "AWS_ENDPOINT_URL": server.url}

    def _gcs(self) -> dict[str, str]:
        server = self.servers.gcs()
        buckets = set(_GS.findall(self.text))
        for name in buckets:
            self.servers.bucket(server, name)
        for bucket, key, tag in self._keys(buckets):
            with open_store(server.store_url(bucket)) as store:
                store.write(key, release(tag))
        return server.env

    def _keys(self, buckets: set[str]) -> list[tuple[str, str, str]]:
        found = []
        for place in set(_REGISTRY.findall(self.text)):
            bucket, _, prefix = place.partition("/")
            if bucket in buckets:
                name = unquote(prefix).strip("/")
                found += [(bucket, f"{name}/{tag}/{artifact_name()}".lstrip("/"), tag) for tag in self._tags()]
        return found

    def publish_directories(self) -> None:
        """Directories of releases by absolute paths."""
        for place in set(_REGISTRY.findall(self.text)):
            directory = self.moved(f"/{place.lstrip('/')}")
            if directory.startswith(str(self.absolute)):
                for tag in self._tags():
                    path = Path(directory) / tag / artifact_name()
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(release(tag))

    def _hosts(self) -> dict[str, str]:
        hosts: dict[str, str] = {}
        if re.search(r"rediss?://", self.text):
            server = self.servers.redis()
            for name in ("127.0.0.1", "localhost", "redis.internal", "redis"):
                hosts[f"redis://{name}:6379"] = f"redis://{server.host}:{server.port}"
        if "consul://" in self.text:
            consul = self.servers.consul()
            for name in ("127.0.0.1", "localhost", "consul.internal"):
                hosts[f"consul://{name}:8500"] = f"consul://{consul.host}:{consul.port}"
        if "hooks.internal" in self.text:
            hosts["json://hooks.internal"] = self.servers.anything().replace("http://", "json://")
        return hosts
