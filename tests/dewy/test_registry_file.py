"""`file:///dir`: releases in a directory."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dewy.errors import ArtifactNotFound, DewyError
from dewy.registry import Announced, Pending, Platform, Registry, open_registry
from dewy.registry.landing import WrongBytes
from dewy.registry.layout import LayoutRegistry
from dewy.registry.url import parse_registry_url
from kvcache import LoadContext, UpstreamError, open_store

LINUX = Platform("linux", "amd64", "gnu")
NAME = "app_linux_amd64.tar.gz"
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)


def put(top: Path, key: str, data: bytes = b"data") -> Path:
    file = top / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def opened(top: Path, query: str = "", **options: Any) -> Registry:
    return open_registry(
        f"file://{top}{query}", env={}, platform=LINUX, hostname="Web-1", now=lambda: MOMENT, **options
    )


def ask(registry: Registry, previous: Announced | None = None) -> tuple[Announced, Pending | None]:
    value, extra = (previous.to_value(), previous.extra()) if previous else (None, None)
    loaded: Any = registry.current(LoadContext(value, None, extra, time.monotonic() + 10))
    return Announced.from_value(loaded.value, loaded.extra), Pending.from_extra(loaded.extra)


def test_the_newest_version_is_announced(tmp_path: Path) -> None:
    for version in ("v1.9.0", "v1.10.0", "v2.0.0-rc.1", "latest", "v0.1.0+blue"):
        put(tmp_path, f"{version}/{NAME}")
    file = put(tmp_path, f"v1.10.0/{NAME}", b"x" * 1000)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    announced, pending = ask(opened(tmp_path))
    assert announced == Announced(
        id="20260501T000000Z",
        tag="v1.10.0",
        artifact_url=f"file://{tmp_path}/v1.10.0/{NAME}",
        created_at=datetime.fromtimestamp(1_700_000_000, UTC),
        size=1000,
    )
    assert pending is None
    assert ask(opened(tmp_path, "?pre-release=true"))[0].tag == "v2.0.0-rc.1"


def test_the_slot_and_calendar_versions(tmp_path: Path) -> None:
    for version in ("2026.9.1+blue", "2026.10.0+green", "v9999.0.0"):
        put(tmp_path, f"{version}/{NAME}")
    announced, _ = ask(opened(tmp_path, "?calver=YYYY.MM.MICRO"))
    assert (announced.tag, announced.slot) == ("v9999.0.0", "")
    announced, _ = ask(opened(tmp_path, calver="YYYY.MM.MICRO", query="?pre-release=false"))
    assert announced.tag == "v9999.0.0"
    (tmp_path / "v9999.0.0" / NAME).unlink()
    announced, _ = ask(opened(tmp_path, calver="YYYY.MM.MICRO"))
    assert (announced.tag, announced.slot) == ("2026.10.0+green", "green")


def test_a_named_artifact(tmp_path: Path) -> None:
    put(tmp_path, "1.0.0/config.tar")
    put(tmp_path, f"1.0.0/{NAME}")
    assert ask(opened(tmp_path, "?artifact=config.tar"))[0].name == "config.tar"
    with pytest.raises(ArtifactNotFound, match=r"^artifact not found: other\.tar \(release 1\.0\.0, published "):
        ask(opened(tmp_path, "?artifact=other.tar"))


def test_what_is_being_copied_is_not_there_yet(tmp_path: Path) -> None:
    put(tmp_path, f"v1.0.0/{NAME}")
    before, _ = ask(opened(tmp_path))
    (tmp_path / "v2.0.0").mkdir()
    assert ask(opened(tmp_path))[0] == before  # an empty directory is no release
    for part in (f".{NAME}", f"{NAME}.part", f"{NAME}.tmp", f"{NAME}.partial"):
        put(tmp_path, f"v2.0.0/{part}")
    assert ask(opened(tmp_path)) == (before, None)
    put(tmp_path, "v2.0.0/app_darwin_arm64.tar.gz")
    announced, pending = ask(opened(tmp_path), before)
    assert announced == before
    assert pending is not None
    assert (pending.tag, pending.message.partition(",")[0]) == (
        "v2.0.0",
        "artifact not found: none for this platform (release v2.0.0",
    )
    assert pending.release_time is not None
    assert abs(pending.release_time.timestamp() - time.time()) < 60
    put(tmp_path, f"v2.0.0/{NAME}")
    assert ask(opened(tmp_path), before)[0].tag == "v2.0.0"


def test_names_that_would_be_misunderstood_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "v1.0.0/app_linux_amd64.tar.gz?x=.zip")
    put(tmp_path, "v1.0.0/app_linux_amd64\n.tar.gz")
    put(tmp_path, "v1.0.0/deeper/app_linux_amd64.tar.gz")
    put(tmp_path, "v1.0.0/shipped_to_linux_amd64.zip")
    with pytest.raises(ArtifactNotFound):
        ask(opened(tmp_path))


def test_a_directory_that_is_not_there_may_come_later(tmp_path: Path) -> None:
    top = tmp_path / "share"
    registry = opened(top)
    with pytest.raises(UpstreamError, match=r"cannot list .*share: No such file or directory") as caught:
        ask(registry)
    assert not caught.value.authoritative
    assert not top.exists()
    top.mkdir()
    with pytest.raises(UpstreamError, match="no valid versioned object found"):
        ask(registry)
    put(top, f"1.0.0/{NAME}")
    assert ask(registry)[0].tag == "1.0.0"


def test_a_fetch_copies_and_measures(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    put(tmp_path / "releases", f"v1.0.0/{NAME}", data)
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)
    seen: list[int] = []
    fetched = registry.fetch(announced, tmp_path / "out", seen.append)
    assert (tmp_path / "out").read_bytes() == data
    assert fetched.size == len(data)
    assert fetched.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "releases"]


def test_an_artifact_that_grows_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "releases", f"v1.0.0/{NAME}", b"x" * 3_000_000)
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)

    def grow(copied: int) -> None:
        with file.open("ab") as more:
            more.write(b"y")

    with pytest.raises(WrongBytes, match="changed while it was copied"):
        registry.fetch(announced, tmp_path / "out", grow)
    with pytest.raises(WrongBytes, match=r"\d bytes came, 3000000 were announced"):
        registry.fetch(announced, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["releases"]


def test_an_artifact_that_is_replaced_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    file = put(tmp_path / "releases", f"v1.0.0/{NAME}", b"x" * 3_000_000)
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)

    def replace(copied: int) -> None:
        put(tmp_path, "new", b"z" * 3_000_000).replace(file)

    with pytest.raises(WrongBytes, match="changed while it was copied"):
        registry.fetch(announced, tmp_path / "out", replace)
    assert not (tmp_path / "out").exists()


def test_the_bytes_must_be_those_announced(tmp_path: Path) -> None:
    put(tmp_path / "releases", f"v1.0.0/{NAME}")
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)
    extra = {"digest": "sha256:" + "0" * 64, "size": 4}
    with pytest.raises(WrongBytes, match="its digest is sha256:3a6eb0"):
        registry.fetch(Announced.from_value(announced.to_value(), extra), tmp_path / "out")
    with pytest.raises(WrongBytes, match="larger than the 3 bytes allowed"):
        opened(tmp_path / "releases", max_artifact=3).fetch(announced, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["releases"]


@pytest.mark.parametrize(
    ("tag", "url"),
    [
        ("v1.0.0", "file:///etc/passwd"),
        ("..", "{top}/../secret"),
        ("v1.0.0/..", "{top}/v1.0.0/../secret"),
        ("v1.0.0", "{top}/v1.0.0/.hidden"),
        ("v1.0.0", "{top}/v1.0.0/a\x00b"),
        ("v1.0.0", f"ghr://o/r/tag/v1.0.0/{NAME}"),
        ("v1.0.0", "{top}/v1.0.0/"),
    ],
)
def test_a_shared_answer_cannot_name_other_files(tmp_path: Path, tag: str, url: str) -> None:
    """Whoever can write to the shared store may not read our files with it."""
    put(tmp_path, f"releases/v1.0.0/{NAME}")
    put(tmp_path, "releases/v1.0.0/.hidden")
    put(tmp_path, "secret")
    announced = Announced("", tag, url.format(top=f"file://{tmp_path}/releases"), None)
    with pytest.raises(UpstreamError):
        opened(tmp_path / "releases").fetch(announced, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_artifact_that_went_away(tmp_path: Path) -> None:
    file = put(tmp_path / "releases", f"v1.0.0/{NAME}")
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)
    file.unlink()
    with pytest.raises(UpstreamError, match=r"not found: v1\.0\.0/app_linux_amd64\.tar\.gz"):
        registry.fetch(announced, tmp_path / "out")


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    put(tmp_path / "releases", f"v1.0.0/{NAME}")
    registry = opened(tmp_path / "releases")
    announced, _ = ask(registry)
    with pytest.raises(DewyError, match=r"cannot write .*missing/out: No such file or directory"):
        registry.fetch(announced, tmp_path / "missing" / "out")


def test_reports_only_where_they_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path, f"v1.0.0/{NAME}")
    announced, _ = ask(opened(tmp_path))
    opened(tmp_path).report(announced, "server")
    assert [p.name for p in (tmp_path / "v1.0.0").iterdir()] == [NAME]
    registry = opened(tmp_path, "?report=true")
    registry.report(announced, "server")
    names = sorted(p.name for p in (tmp_path / "v1.0.0").iterdir())
    assert names == [NAME, "shipped_to_web-1_server_at_20260501T000000.000000000Z.txt"]
    assert ask(registry)[0] == announced


def test_a_directory_whose_name_needs_escapes(tmp_path: Path) -> None:
    top = tmp_path / "a b?c"
    data = put(top, f"v1.0.0/{NAME}")
    registry = open_registry(f"file://{tmp_path}/a%20b%3Fc/", env={}, platform=LINUX)
    announced, _ = ask(registry)
    assert (announced.name, announced.key) == (NAME, f"v1.0.0--{NAME}")
    registry.fetch(announced, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data.read_bytes()


def test_any_store_is_a_registry_of_this_layout(tmp_path: Path) -> None:
    """So that buckets become registries without another line of selection."""
    with open_store("memory://layout-registry") as store:
        store.write(f"v1.0.0/{NAME}", b"old")
        store.write(f"v1.1.0/{NAME}", b"new!")
        registry = LayoutRegistry(
            parse_registry_url("file:///unused"),
            store,
            LINUX,
            prefix="s3://region/bucket/",
            reports=True,
            now=lambda: MOMENT,
            hostname="web-1",
            max_artifact=100,
        )
        announced, _ = ask(registry)
        assert (announced.tag, announced.size) == ("v1.1.0", 4)
        assert announced.artifact_url == f"s3://region/bucket/v1.1.0/{NAME}"
        registry.fetch(announced, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"new!"
        registry.report(announced, "assets")
        assert "v1.1.0/shipped_to_web-1_assets_at_20260501T000000.000000000Z.txt" in list(store.list())
