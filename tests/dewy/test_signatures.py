"""Signed artifacts: what is proven, by whom, and that a node with a key believes nobody else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dewy import cli
from dewy.artifact import RECORD_TTL, Artifacts
from dewy.errors import Untrusted
from dewy.log import Log
from dewy.minisign import Verifier, parse_keys
from dewy.proofs import Proofs
from dewy.registry import Announced, Registry, open_registry
from dewy.registry.signatures import Proof
from kvcache import KVCacheError, SharedCache, Staging, Store, UpstreamError, open_store
from tests.dewy.github_repo import LINUX, NAME, Repo, announced, ask, context
from tests.dewy.node import Node, archive
from tests.dewy.signing import Signer
from tests.dewy.test_minisign import KEY, PAYLOAD, SIGNATURE

DATA = os.urandom(100_000)
SUM = hashlib.sha256(DATA).hexdigest()
SIGNER = Signer()
# `minisign -S` of `sha256sum app_linux_amd64.tar.gz`, by the same key as SIGNATURE.
SUMS = b"3118ddb8b59cdad41b148507df07fc4bf68be46a7250f62abafb9e5227730b16  app_linux_amd64.tar.gz\n"
SUMS_SIGNATURE = b"""\
untrusted comment: signature from minisign secret key
RUQkp7U1zGFgXirpXa+XzErTduazyQNTqQgYsG0LlMrL9VRWP0udDVfnHGA6C5siV7BOqP2m/X5f5e/HI/eS+ZDRFuX+jPLfsA0=
trusted comment: timestamp:1795572036\tfile:SHA256SUMS\thashed
YC24GJHZFdOInfnm5lPnPRR87TNjqD52eZU8upEhow4dINFp72scTLJGeKRR6PA4ykCHin/PKOtOl8+8VoVyBg==
"""

# -- one proof ---------------------------------------------------------------------------------------------------------


def check(proof: Proof, data: bytes, tmp_path: Path, key: str = SIGNER.public, name: str = NAME) -> str:
    (tmp_path / "staged").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return proof.check(Verifier(parse_keys(key)), name, tmp_path / "staged", digest)


@pytest.mark.parametrize("signed", [None, SUMS], ids=["artifact", "checksums"])
def test_what_the_real_tool_signed(signed: bytes | None, tmp_path: Path) -> None:
    name = "SHA256SUMS.minisig" if signed else f"{NAME}.minisig"
    proof = Proof(name, SUMS_SIGNATURE if signed else SIGNATURE, signed)
    assert "timestamp:" in check(proof, PAYLOAD, tmp_path, KEY)
    with pytest.raises(Untrusted, match=rf"^{name}: "):
        check(proof, PAYLOAD + b"x", tmp_path, KEY)
    with pytest.raises(Untrusted, match="expected 2E73657479622038"):
        check(proof, PAYLOAD, tmp_path)
    assert Proof.from_value(json.loads(json.dumps(proof.to_value()))) == proof


def test_the_signature_of_another_file_is_no_substitute(tmp_path: Path) -> None:
    for comment in ("file:other.tar.gz", "timestamp:1\tfile:other.tar.gz\thashed"):
        with pytest.raises(Untrusted, match=r"it was made of another file, other\.tar\.gz"):
            check(Proof("x.minisig", SIGNER.sign(DATA, comment)), DATA, tmp_path)
    for comment in ("", "release 1.0", f"file:{NAME}"):
        assert check(Proof("x.minisig", SIGNER.sign(DATA, comment)), DATA, tmp_path) == comment


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (f"{SUM}  other.tar.gz\n", f"the signed checksums name no {NAME}"),
        (f"{'0' * 64}  {NAME}\n", f"the signed checksum is sha256:{'0' * 64}, of the file it is sha256:{SUM}"),
        (f"{SUM}  {NAME}\n{'0' * 64}  {NAME}\n", "more than one SHA-256 checksum"),
    ],
    ids=["another file", "another sum", "two sums"],
)
def test_signed_checksums_that_do_not_speak_for_it(sums: str, message: str, tmp_path: Path) -> None:
    proof = Proof("SHA256SUMS.minisig", SIGNER.sign(sums.encode()), sums.encode())
    with pytest.raises(Untrusted, match=message):
        check(proof, DATA, tmp_path)


def test_checksums_that_were_changed_after_they_were_signed(tmp_path: Path) -> None:
    sums = f"{SUM}  {NAME}\n".encode()
    assert check(Proof("SHA256SUMS.minisig", SIGNER.sign(sums), sums), DATA, tmp_path) == ""
    with pytest.raises(Untrusted, match="not of these bytes"):
        check(Proof("SHA256SUMS.minisig", SIGNER.sign(b"before"), sums), DATA, tmp_path)


@pytest.mark.parametrize(
    "value",
    [None, {}, {"name": 1, "signature": "", "signed": None}, {"name": "a", "signature": "\u20ac", "signed": None}],
)
def test_what_is_no_proof(value: Any) -> None:
    assert Proof.from_value(value) is None


# -- a fleet -----------------------------------------------------------------------------------------------------------


class World:
    """Releases in a directory, a shared store, and nodes of which some have the key."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.releases = top / "releases"
        self.registry = self.open()

    def open(self) -> Registry:
        return open_registry(f"file://{self.releases}", env={}, platform=LINUX, hostname="h")

    def publish(self, data: bytes = DATA, **files: bytes) -> Announced:
        directory = self.releases / "v1.0.0"
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in {NAME: data, **files}.items():
            (directory / name).write_bytes(content)
            os.utime(directory / name, (1_700_000_000, 1_700_000_000))
        loaded: Any = self.registry.current(context())
        return Announced.from_value(loaded.value, loaded.extra)

    def withdraw(self) -> None:
        shutil.rmtree(self.releases)

    def store(self, locking: bool = True) -> Store:
        return open_store(f"file://{self.top}/store{'?locking=flock' if locking else ''}")

    def node(self, name: str, key: str = SIGNER.public, *, shared: str = "records") -> Artifacts:
        """`shared`: by records, by notes (a store without conditional writes), or nothing."""
        store = self.store(shared == "records") if shared != "nothing" else None
        records = SharedCache(store, ttl=RECORD_TTL) if store is not None and shared == "records" else None
        parts: dict[str, Any] = {"objects": store, "records": records, "log": Log()}
        proofs = Proofs(self.registry, Verifier(parse_keys(key)), **parts) if key else None
        return Artifacts(self.registry, Staging(self.top / name), prefix="", proofs=proofs, **parts)

    def kept(self, folder: str) -> list[Path]:
        return sorted((self.top / "store" / folder).glob("*.json"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


MINISIG = f"{NAME}.minisig"
SHARED = ["records", "notes", "nothing"]


@pytest.mark.parametrize("shared", SHARED)
def test_a_signed_artifact_is_deployed(world: World, shared: str) -> None:
    found = world.publish(**{MINISIG: SIGNER.sign(DATA, f"file:{NAME}")})
    for name in ("one", "two"):
        assert world.node(name, shared=shared).obtain(found).path.read_bytes() == DATA


@pytest.mark.parametrize("shared", ["records", "notes"])
@pytest.mark.parametrize("by", ["artifact", "checksums"])
def test_who_follows_needs_no_registry(world: World, shared: str, by: str) -> None:
    """And still checks its own copy, by its own key."""
    sums = f"{SUM}  {NAME}\n".encode()
    files = (
        {MINISIG: SIGNER.sign(DATA)}
        if by == "artifact"
        else {"SHA256SUMS": sums, "SHA256SUMS.minisig": SIGNER.sign(sums)}
    )
    found = world.publish(**files)
    world.node("leader", shared=shared).obtain(found)
    world.withdraw()
    staged = world.node("follower", shared=shared).obtain(found)
    assert (staged.source, staged.path.read_bytes()) == ("store", DATA)
    with pytest.raises((Untrusted, KVCacheError)):
        world.node("stranger", Signer(b"another.").public, shared=shared).obtain(found)


def test_of_many_nodes_one_asks_for_the_signature(repo: Repo, tmp_path: Path) -> None:
    repo.publish("v1.0.0", {NAME: DATA, MINISIG: SIGNER.sign(DATA)})
    world = World(tmp_path)
    world.registry = repo.open()
    found = announced(ask(world.registry))
    for number in range(5):
        world.node(f"node-{number}").obtain(found)
    assert len(repo.downloads()) == 2  # the signature and the artifact


@pytest.mark.parametrize("shared", SHARED)
def test_without_a_signature_nothing_is_fetched(world: World, shared: str) -> None:
    found = world.publish()
    node = world.node("one", shared=shared)
    with pytest.raises(KVCacheError, match=f"no minisign signature: expected {MINISIG}, or one of a checksums file"):
        node.obtain(found)
    assert not (world.top / "one" / found.key).exists()
    assert world.node("without a key", key="", shared=shared).obtain(found).source == "registry"


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("digest", [True, False])
def test_a_wrong_signature_is_refused(world: World, shared: str, digest: bool) -> None:
    """R3. However often it is tried, and wherever the bytes are by then."""
    sums = {"SHA256SUMS": f"{SUM}  {NAME}\n".encode()} if digest else {}
    found = world.publish(**{MINISIG: SIGNER.sign(b"other bytes")}, **sums)
    assert (found.digest is not None) == digest
    node = world.node("one", shared=shared)
    for _ in range(3):
        with pytest.raises(
            Untrusted, match=f"^{MINISIG}: the signature is not by key 2E73657479622038, or not of these"
        ):
            node.obtain(found)


@pytest.mark.parametrize("shared", ["records", "notes"])
def test_a_poisoned_store_is_found_out_and_healed(world: World, shared: str) -> None:
    """Whoever can write to the store can make record and object agree; the signature still does not."""
    found = world.publish(**{MINISIG: SIGNER.sign(DATA)})
    world.node("one", shared=shared).obtain(found)
    evil = os.urandom(len(DATA))
    (world.top / "store" / found.key).write_bytes(evil)
    for record in world.kept("artifact-cache"):
        record.write_text(record.read_text().replace(SUM, hashlib.sha256(evil).hexdigest()))
    assert world.node("believer", key="", shared=shared).obtain(found).path.read_bytes() == evil
    two = world.node("two", shared=shared).obtain(found)
    assert (two.source, two.path.read_bytes()) == ("registry", DATA)
    three = world.node("three", shared=shared).obtain(found)
    assert (three.source, three.path.read_bytes()) == ("store", DATA)


@pytest.mark.parametrize("shared", ["records", "notes"])
@pytest.mark.parametrize("poison", ["another's", "garbage"])
def test_a_poisoned_proof_is_fetched_again(world: World, shared: str, poison: str) -> None:
    found = world.publish(**{MINISIG: SIGNER.sign(DATA)})
    world.node("one", shared=shared).obtain(found)
    (record,) = world.kept("signature-cache")
    bad = Proof(MINISIG, Signer().sign(DATA)).to_value() if poison == "another's" else {"name": "none"}
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({**kept, "response": bad} if "response" in kept else bad))
    assert world.node("two", shared=shared).obtain(found).path.read_bytes() == DATA
    world.withdraw()
    if shared == "notes":
        assert world.node("three", shared=shared).obtain(found).path.read_bytes() == DATA


def test_a_signature_that_was_replaced(world: World) -> None:
    """It was made with the old key, and somebody put that right."""
    found = world.publish(**{MINISIG: Signer().sign(DATA)})
    with pytest.raises(Untrusted):
        world.node("one").obtain(found)
    world.publish(**{MINISIG: SIGNER.sign(DATA)})
    assert world.node("two").obtain(found).path.read_bytes() == DATA


def test_a_store_that_is_down_does_not_matter(world: World) -> None:
    found = world.publish(**{MINISIG: SIGNER.sign(DATA)})
    (world.top / "store").symlink_to("store")  # nothing can be read or written there
    for shared in ("records", "notes"):
        assert world.node(f"one-{shared}", shared=shared).obtain(found).source == "registry"


def test_a_registry_that_fails_is_no_missing_signature(world: World) -> None:
    found = world.publish(**{MINISIG: SIGNER.sign(DATA)})
    world.withdraw()
    with pytest.raises(UpstreamError, match="cannot list"):
        world.node("one", shared="nothing").obtain(found)


def test_a_key_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["assets", "--registry", "file:///releases", "--signature-key", "RWRTY0IysecretsecretsecretSECRET"])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("dewy: --signature-key: 'RWRTY0Iy'...: a minisign public key, as in RWQ")
    assert "SECRET" not in line


# -- the whole thing ---------------------------------------------------------------------------------------------------


def test_a_node_deploys_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    """Through the command line. The old release stays while the new one is not signed."""

    def publish(tag: str, signer: Signer | None) -> None:
        data = archive({"VERSION": tag})
        directory = tmp_path / "releases" / tag
        directory.mkdir(parents=True)
        if signer is not None:
            (directory / MINISIG).write_bytes(signer.sign(data, f"file:{NAME}"))
        (directory / f"{NAME}.part").write_bytes(data)
        (directory / f"{NAME}.part").rename(directory / NAME)

    publish("v1.0.0", SIGNER)
    node = Node(tmp_path / "node", "assets", f"file://{tmp_path}/releases", "--signature-key", SIGNER.public)
    with node:
        node.wait_deployed("v1.0.0")
        publish("v2.0.0", Signer())
        failed = node.wait_logged("Dewy run failure")
        assert f"{MINISIG}: the signature is not by key" in failed["error"]
        assert node.deployed() == "v1.0.0"
        assert len(node.releases()) == 1
        publish("v3.0.0", SIGNER)
        node.wait_deployed("v3.0.0")
    assert "comment" in node.logged("Signature verified")[0]
