"""Checksums files of releases: which are read, what they say, and what follows where they are wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.registry import Announced, Pending, Registry, open_registry
from dewy.registry.checksums import LIMIT, checksum_files, digest_of
from dewy.registry.landing import WrongBytes
from kvcache import UpstreamError
from tests.dewy.github_repo import LINUX, MOMENT, NAME, Repo, announced, ask, context
from tests.fakes.github import FakeGitHub

DATA = b"an artifact"
SUM = hashlib.sha256(DATA).hexdigest()
OTHER = "0" * 64

# -- the formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        f"{SUM}  {NAME}",  # sha256sum
        f"{SUM} *{NAME}",  # sha256sum --binary
        f"{SUM.upper()}  {NAME}\r",
        f"{SUM}\t{NAME}",
        f"{SUM}  ./dist/{NAME}",
        f"SHA256 ({NAME}) = {SUM}",  # sha256sum --tag, and BSD
        f"SHA256({NAME})= {SUM}",  # openssl dgst
        f"SHA2-256({NAME})= {SUM}",
        f"\ufeff{SUM}  {NAME}",
        f"# sums\n{OTHER}  other.tar.gz\n{SUM}  {NAME}\n{OTHER}  {NAME}.sbom",
        f"{SUM}  {NAME}\n{SUM}  dist/{NAME}",
    ],
)
def test_formats(line: str) -> None:
    assert digest_of(NAME, f"{line}\n".encode(), "SHA256SUMS") == f"sha256:{SUM}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_a_shell_of_windows_writes(encoding: str) -> None:
    data = f"{SUM}  {NAME}\r\n".encode(encoding)
    assert digest_of(NAME, data, "SHA256SUMS") == f"sha256:{SUM}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        SUM,  # of what?
        f"{SUM}  other.tar.gz",
        f"{SUM[:-1]}  {NAME}",
        f"{SUM}0  {NAME}",
        f"{'0' * 128}  {NAME}",  # SHA-512
        f"MD5 ({NAME}) = {SUM}",
        f"{SUM}  {NAME}.sig",
        f"{SUM}  x{NAME}",
        f"; {SUM}  {NAME}",
    ],
)
def test_what_tells_nothing(text: str) -> None:
    assert digest_of(NAME, text.encode(), "SHA256SUMS") is None


def test_a_file_of_one_artifact_may_be_a_digest_alone() -> None:
    assert digest_of(NAME, f"{SUM}\n".encode(), f"{NAME}.sha256") == f"sha256:{SUM}"
    assert digest_of(NAME, f"{SUM}  other\n".encode(), f"{NAME}.sha256") is None


def test_two_sums_of_one_artifact_are_no_sum() -> None:
    with pytest.raises(UpstreamError, match=f"^SHA256SUMS: more than one SHA-256 checksum of {NAME}$"):
        digest_of(NAME, f"{SUM}  {NAME}\n{OTHER}  dist/{NAME}\n".encode(), "SHA256SUMS")


@given(st.binary(max_size=300), st.text(min_size=1, max_size=40))
def test_any_bytes_are_read(data: bytes, name: str) -> None:
    digest_of(name, data, "SHA256SUMS")


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\r\n\x00"), min_size=1, max_size=40))
def test_any_name_is_found_as_sha256sum_writes_it(name: str) -> None:
    escaped = name.replace("\\", "\\\\")
    line = f"\\{SUM}  {escaped}\n" if "\\" in name else f"{SUM}  {name}\n"
    assert digest_of(name, line.encode(), "SHA256SUMS") == f"sha256:{SUM}"


def test_which_files_are_read() -> None:
    names = [
        NAME, "README.txt", "SHA512SUMS", "checksums.txt.asc", "SHA256SUMS.minisig", "md5sums.txt", "checksum-tool.txt",
        *(sums := ["checksums.txt", "app_1.2.3_checksums.txt", "app_1.2.3_SHA256SUMS", "SHA256SUMS", "SHASUMS256.txt",
                   f"{NAME}.sha256", f"{NAME}.SHA256SUM", "sha256sum.txt", "sha256-checksums.txt", "CHECKSUMS"]),
    ]  # fmt: skip
    found = checksum_files(NAME, names)
    assert sorted(found) == sorted(sums)
    assert found[:2] == [f"{NAME}.sha256", f"{NAME}.SHA256SUM"]
    assert found[2] == "SHA256SUMS"
    assert checksum_files("checksums.txt", ["checksums.txt"]) == []


# -- in a directory (and in buckets, which are the same tree) ------------------------------------------------------


def put(top: Path, files: dict[str, bytes | str], tag: str = "v1.0.0") -> Path:
    directory = top / "releases" / tag
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return directory


def opened(top: Path, checksums: Any = "auto", query: str = "", **options: Any) -> Registry:
    url = f"file://{top}/releases{query}"
    return open_registry(url, env={}, platform=LINUX, hostname="h", now=lambda: MOMENT, checksums=checksums, **options)


def look(registry: Registry, last: Any = None) -> tuple[Announced, Pending | None]:
    loaded: Any = registry.current(context(last))
    return Announced.from_value(loaded.value, loaded.extra), Pending.from_extra(loaded.extra)


def test_auto_announces_the_digest_where_there_is_one(tmp_path: Path) -> None:
    """R3."""
    put(tmp_path, {NAME: DATA})
    assert look(opened(tmp_path))[0].digest is None
    put(tmp_path, {"SHA256SUMS": f"{SUM}  {NAME}\n"})
    found, _ = look(opened(tmp_path))
    assert (found.digest, found.name) == (f"sha256:{SUM}", NAME)
    assert (found.digest_from or "").startswith("SHA256SUMS@")
    assert opened(tmp_path).fetch(found, tmp_path / "out").digest == found.digest
    assert look(opened(tmp_path, "off"))[0].digest is None


@pytest.mark.parametrize("announced_by", ["us", "Dewy v2"])
def test_a_wrong_checksum_keeps_the_artifact_out(tmp_path: Path, announced_by: str) -> None:
    put(tmp_path, {NAME: DATA, "checksums.txt": f"{OTHER}  {NAME}\n"})
    registry = opened(tmp_path)
    found, _ = look(registry)
    if announced_by == "Dewy v2":
        found = Announced.from_value(found.to_value())
    with pytest.raises(WrongBytes, match=f"^{NAME}: its digest is sha256:{SUM}, announced was sha256:{OTHER}$"):
        registry.fetch(found, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["releases"]
    opened(tmp_path, "off").fetch(Announced.from_value(found.to_value()), tmp_path / "out")


def test_a_file_that_does_not_name_the_artifact_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {NAME: DATA, "SHA256SUMS": f"{OTHER}  other\n", "app_checksums.txt": f"{SUM}  {NAME}\n"})
    assert look(opened(tmp_path))[0].digest == f"sha256:{SUM}"
    put(tmp_path, {"app_checksums.txt": "nothing"})
    assert look(opened(tmp_path))[0].digest is None


def test_required_checksums_may_still_be_uploaded(tmp_path: Path) -> None:
    put(tmp_path, {NAME: DATA}, "v1.0.0")
    put(tmp_path, {"SHA256SUMS": f"{SUM}  {NAME}\n"}, "v1.0.0")
    registry = opened(tmp_path, "require")
    first: Any = registry.current(context())
    put(tmp_path, {NAME: b"newer"}, "v2.0.0")
    found, pending = look(registry, first)
    assert (found.tag, found.digest) == ("v1.0.0", f"sha256:{SUM}")  # the last answer stands
    assert pending is not None
    assert pending.message.startswith(f"checksum not found: {NAME} (release v2.0.0, published ")
    newer = hashlib.sha256(b"newer").hexdigest()
    put(tmp_path, {"SHA256SUMS": f"{newer}  {NAME}\n"}, "v2.0.0")
    assert look(registry, first)[0].digest == f"sha256:{newer}"


def test_an_answer_without_a_required_checksum_is_no_way_round(tmp_path: Path) -> None:
    directory = put(tmp_path, {NAME: DATA})
    found = Announced("", "v1.0.0", f"file://{directory}/{NAME}", None)
    with pytest.raises(UpstreamError, match=f"^no SHA-256 checksum of {NAME} in release v1.0.0$"):
        opened(tmp_path, "require").fetch(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nodes_of_another_mode_do_not_share_answers(tmp_path: Path) -> None:
    auto, require, off = (opened(tmp_path, mode).scope for mode in ("auto", "require", "off"))
    assert auto == f"file://{tmp_path}/releases?host=h"  # as Dewy v2 has it, but for the host
    assert (require, off) == (f"{auto}&checksums=require", f"{auto}&checksums=off")


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    directory = put(tmp_path, {NAME: DATA, "SHA256SUMS": f"{SUM}  {NAME}\n"})
    reads: list[str] = []
    registry = opened(tmp_path)
    tree = registry._tree  # type: ignore[attr-defined]  # what is read of it cannot be seen from outside
    read = tree.read
    tree.read = lambda key: reads.append(key) or read(key)
    first: Any = registry.current(context())
    assert look(registry, first)[0].digest == f"sha256:{SUM}"
    assert reads == ["v1.0.0/SHA256SUMS"]
    (directory / "SHA256SUMS").write_text(f"{OTHER}  {NAME}\n")
    assert look(registry, first)[0].digest == f"sha256:{OTHER}"
    assert len(reads) == 2
    second: Any = registry.current(context())
    assert look(registry, second)[0].digest == f"sha256:{OTHER}"
    assert len(reads) == 3
    (directory / NAME).write_bytes(b"another artifact under the same name")
    look(registry, second)
    assert len(reads) == 4


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    directory = put(tmp_path, {NAME: DATA})
    with (directory / "SHA256SUMS").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(
        UpstreamError, match=f"^SHA256SUMS: larger than the {LIMIT} bytes that are read of such a file$"
    ):
        look(opened(tmp_path))


# -- at GitHub ---------------------------------------------------------------------------------------------------------


def release(repo: Repo, sums: str, digest: str | None = None, tag: str = "v1.0.0") -> None:
    repo.publish(tag, {"SHA256SUMS": sums.encode()})
    repo.server.add_asset(tag, NAME, DATA, repo=repo.name, digest=digest)


def test_github_s_own_digest_is_enough(repo: Repo) -> None:
    release(repo, f"{OTHER}  {NAME}\n", digest=f"sha256:{SUM}")
    found = announced(ask(repo.open()))
    assert (found.digest, found.digest_from, repo.downloads()) == (f"sha256:{SUM}", None, [])


def test_required_both_have_to_agree(repo: Repo) -> None:
    release(repo, f"{OTHER}  {NAME}\n", digest=f"sha256:{SUM}")
    with pytest.raises(
        UpstreamError, match=f"SHA256SUMS of release v1.0.0 says sha256:{OTHER}, the registry sha256:{SUM}"
    ):
        ask(repo.open(checksums="require"))


def test_where_github_has_none_the_file_counts(repo: Repo, tmp_path: Path) -> None:
    release(repo, f"{SUM}  {NAME}\n")
    registry = repo.open()
    loaded = ask(registry)
    found = announced(loaded)
    assert found.digest == f"sha256:{SUM}"
    assert len(repo.downloads()) == 1
    repo.server.add_asset("v1.0.0", "shipped_to_a.txt", b"", repo=repo.name)  # so the list has changed
    assert announced(ask(registry, loaded)).digest == f"sha256:{SUM}"
    assert len(repo.downloads()) == 1
    assert registry.fetch(found, tmp_path / "out").digest == found.digest
    assert len(repo.downloads()) == 2
    registry.fetch(Announced.from_value(found.to_value()), tmp_path / "out")  # as announced by Dewy v2
    assert [call["status"] for call in repo.downloads()] == [200] * 4


def test_what_v2_announced_is_checked_too(repo: Repo, tmp_path: Path) -> None:
    release(repo, f"{OTHER}  {NAME}\n")
    registry = repo.open()
    by_v2 = Announced.from_value(announced(ask(registry)).to_value())
    with pytest.raises(WrongBytes):
        registry.fetch(by_v2, tmp_path / "out")


def test_a_file_that_github_does_not_hand_out_is_a_failure(repo: Repo, fake_github: FakeGitHub) -> None:
    """Not the absence of a checksum: that would be a way round it."""
    release(repo, f"{SUM}  {NAME}\n")
    fake_github.mode("outage", "assets")
    with pytest.raises(UpstreamError, match="GET SHA256SUMS: 500"):
        ask(repo.open())
