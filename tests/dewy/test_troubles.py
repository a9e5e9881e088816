"""What goes wrong around a node: one clear line, the old release serves on, and it recovers by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dewy.release import Info, Releases
from dewy.state import StateFile
from tests.crash.full_disk import small_disk
from tests.dewy.node import Directory, Node, archive, web
from tests.dewy.supervised import wait_for
from tests.fakes.github import FakeGitHub


@pytest.fixture
def registry(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "registry")


@contextmanager
def disk_of_a_node(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for `releases/`, where mounting is allowed; else a plain directory. Where it is."""
    with small_disk(tmp_path / "disk") as disk:
        yield disk.root


@contextmanager
def no_writes(place: Path, *, full: bool) -> Iterator[str]:
    """Until the block ends nothing can be written there. Gives the system's words for that."""
    if not os.path.ismount(place):  # no right to mount, so no right to override permissions either
        directories = [place, place / "releases", place / "releases" / ".dewy"]
        for directory in directories:
            directory.chmod(0o555)
        try:
            yield "Permission denied"
        finally:
            for directory in directories:
                directory.chmod(0o755)
    elif full:
        with (place / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        try:
            yield "No space left on device"
        finally:
            (place / "ballast").unlink()
    else:
        remount(place, "ro")
        try:
            yield "Read-only file system"
        finally:
            remount(place, "rw")


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def one_line_each(records: list[dict[str, Any]]) -> bool:
    return all("\n" not in str(record.get("error", "")) for record in records)


def test_a_full_disk(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with disk_of_a_node(tmp_path) as root:
        node = Node(root, "server", registry.url, env={"DEWY_CACHEDIR": str(tmp_path / "cache")})
        node.log = tmp_path / "node.log"
        with node:
            node.wait_logged("Keep releases")
            before = node.wait_served("v1.0.0")
            with no_writes(root, full=True) as words:
                registry.publish("v1.1.0", web("v1.1.0"))
                failure = node.wait_logged("Dewy run failure")
                assert words in failure["error"] and one_line_each(node.records())
                assert "v1.1.0--app_linux_amd64.tar.gz: " in failure["error"], "which release it is about"
                told = node.wait_logged("Deploy skipped", reason="failed before, waiting to try again")
                assert told["left"] > 0
                assert node.served() == before
                warned = len(node.logged("cannot write the status for dewy status"))
            node.wait_served("v1.1.0")  # after the back-off, by itself
            node.wait_logged("Error count reset")
            assert warned <= 2, "told once, not at every tick"
        assert StateFile(root).read().rejected == (), "no fault of the release's"


def test_a_read_only_disk_keeps_nobody_from_running_what_is_there(tmp_path: Path, registry: Directory) -> None:
    registry.publish("v1.0.0", web("v1.0.0"))
    with disk_of_a_node(tmp_path) as root:
        node = Node(root, "server", registry.url)
        node.log = tmp_path / "node.log"
        with node:
            node.wait_logged("Keep releases")
        with no_writes(root, full=False):
            with node:
                node.wait_logged("Start notification", count=2)
                node.wait_served("v1.0.0")
                node.wait_ticks()
            assert node.logged("cache directory cannot be used; using a temporary one")
            assert one_line_each(node.records()) and node.logged("Dewy run failure") == []


def test_a_name_that_cannot_be_resolved(tmp_path: Path) -> None:
    """DNS gone: a node that is started then runs what it has, and says what is wrong once, not at every tick."""
    root = tmp_path / "node"
    path = tmp_path / "app.tar.gz"
    path.write_bytes(web("v1.0.0"))
    releases = Releases(root)
    info = Info("v1.0.0--app_linux_amd64.tar.gz", "v1.0.0", "", path.stat().st_size)
    releases.switch(releases.prepare(path, path.name, info))
    env = {"GITHUB_API_URL": "http://github.invalid/", "GH_TOKEN": "ghp_averysecrettoken"}
    with Node(root, "server", "ghr://acme/app", env=env) as node:
        node.wait_served("v1.0.0")
        failure = node.wait_logged("Current failure")["error"]
        assert "github.invalid" in failure and "\n" not in failure
        node.wait_logged("Deploy skipped", count=5, reason="no answer from the registry")
        told, ticks = node.logged("Current failure"), node.logged("Deploy skipped")
        assert len(told) < len(ticks), "told when it was tried, which is ever more seldom, not at every tick"
    assert "Traceback" not in node.log.read_text() and "averysecret" not in node.log.read_text()


def test_a_hung_upstream_stops_no_tick(tmp_path: Path) -> None:
    """B2: before its own time-out is over, the tick's is; and then it is asked anew."""
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": archive({"VERSION": "v1.0.0"})})
        github.mode("hang")
        env = {**github.env, "DEWY_TICK_TIMEOUT": "1s"}
        with Node(tmp_path / "node", "assets", github.registry, env=env) as node:
            error = node.wait_logged("Dewy run failure", count=2)["error"]
            assert error == "registry: no answer within 1 s"
            github.mode("healthy")
            node.wait_deployed("v1.0.0")
            node.wait_logged("Error count reset")


def test_a_download_that_hangs_ends_the_tick_and_the_next_one_succeeds(tmp_path: Path) -> None:
    """B2."""
    with FakeGitHub() as github:
        github.publish("v1.0.0", {"app_linux_amd64.tar.gz": archive({"VERSION": "v1.0.0"})})
        github.mode("hang", "assets")
        env = {**github.env, "DEWY_TICK_TIMEOUT": "2s"}
        with Node(tmp_path / "node", "assets", github.registry, env=env) as node:
            error = node.wait_logged("Dewy run failure")["error"]
            assert "download of v1.0.0--app_linux_amd64.tar.gz: no answer within" in error
            github.mode("healthy", "assets")
            wait_for(lambda: node.deployed() == "v1.0.0", "the deploy")
