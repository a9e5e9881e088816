"""`dewy.minisign`: what the real minisign 0.11 signed, and what nobody did."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dewy.errors import ConfigError
from dewy.minisign import BadSignature, PublicKey, Signature, Verifier, parse_keys
from tests.dewy.signing import Signer

# `minisign -S` and `minisign -S -l` of the file PAYLOAD, with a key that was made for this and thrown away.
KEY = "RWQkp7U1zGFgXqUlGRJ5VZYWIIZefRR0FBSBZif4MTo6ZeqL3izZavPu"
PAYLOAD = b"payload of the real tool\n"
SIGNATURE = b"""\
untrusted comment: signature from minisign secret key
RUQkp7U1zGFgXnTQah871fNzyI26rmxOuhll4lc/2Ib+skWn+xI/R1B6+CmhR+KkOr2pINE3nRC5dAW6hdpGNVhF/equlKWvhAU=
trusted comment: timestamp:1770000000\tfile:app_linux_amd64.tar.gz\thashed
EK8EWkUqsGemWVF8NJ29t9Lg9siYJZrc/4o02nBdCKWGwr2JaMtnc1Hi2nCm9RSaFmXqbpBPGEvnFxV2RdRLAw==
"""
LEGACY = b"""\
untrusted comment: signature from minisign secret key
RWQkp7U1zGFgXkwAjavxTYTA7o8h6FzB7EFUFxTCfl1DBpdlLCzUxyAGHDlQ5R24o/IDIRFg+eokkVJldjD48M5QyxNWRYsREAg=
trusted comment: timestamp:1795572036\tfile:app_linux_amd64.tar.gz
JiUn7PUNXuPzlT3s4zuGgjAysMu84pEsOU6a8NMYI0hOOKG+K+y/n325bx4BQ4Iu16TuteP2sOeIciQlHOt4BA==
"""
OURS = Verifier(parse_keys(KEY))


@pytest.mark.parametrize("text", [SIGNATURE, LEGACY, SIGNATURE.replace(b"\n", b"\r\n")], ids=["new", "old", "crlf"])
def test_the_real_tool_s_signatures(text: bytes, tmp_path: Path) -> None:
    signature = Signature.parse(text)
    file = tmp_path / "file"
    file.write_bytes(PAYLOAD)
    for key in (OURS.check_bytes(signature, PAYLOAD), OURS.check_file(signature, file)):
        assert key.shown == "5E6061CC35B5A724"  # as minisign -G printed it
    assert signature.file_name == "app_linux_amd64.tar.gz"
    assert signature.comment.startswith("timestamp:17")
    file.write_bytes(PAYLOAD + b"\n")
    with pytest.raises(BadSignature, match="not by key 5E6061CC35B5A724, or not of these bytes"):
        OURS.check_file(signature, file)


@example(at=313, by=64)  # in the last character of base64: the same bytes, spelled another way
@given(st.integers(min_value=0, max_value=len(SIGNATURE) - 1), st.integers(min_value=1, max_value=255))
def test_nothing_of_a_signature_can_be_changed(at: int, by: int) -> None:
    """But for the untrusted comment, and what ends a line."""
    changed = SIGNATURE[:at] + bytes([SIGNATURE[at] ^ by]) + SIGNATURE[at + 1 :]
    lines, before = changed.splitlines(), SIGNATURE.splitlines()
    try:
        OURS.check_bytes(Signature.parse(changed), PAYLOAD)
    except BadSignature as error:
        assert str(error) and "\n" not in str(error)
        return
    assert lines[0].startswith(b"untrusted comment:") or at >= len(SIGNATURE) - 1
    assert [line.rstrip(b"\r") for line in lines[1:4]] == before[1:4]


@pytest.mark.parametrize("prehashed", [True, False])
def test_one_of_several_keys_signed(prehashed: bool, tmp_path: Path) -> None:
    """A key can be replaced while both are believed."""
    old, new, other = Signer(b"old....."), Signer(b"new....."), Signer(b"other...")
    verifier = Verifier(parse_keys(f"{old.public}, {new.public}"))
    for signer in (old, new):
        signature = Signature.parse(signer.sign(b"data", prehashed=prehashed))
        assert verifier.check_bytes(signature, b"data").number == signer.number
    with pytest.raises(BadSignature, match=r"^signed by key 2E2E2E726568746F, expected .* or .*$"):
        verifier.check_bytes(Signature.parse(other.sign(b"data")), b"data")
    pretender = Signer(b"new.....")  # the number is no proof
    with pytest.raises(BadSignature, match="is not by key"):
        verifier.check_bytes(Signature.parse(pretender.sign(b"data")), b"data")
    file = tmp_path / "empty"
    file.touch()
    verifier.check_file(Signature.parse(new.sign(b"", prehashed=prehashed)), file)


def test_the_trusted_comment_is_signed() -> None:
    signer = Signer()
    verifier = Verifier(parse_keys(signer.public))
    signed = signer.sign(b"data", "file:a")
    verifier.check_bytes(Signature.parse(signed), b"data")
    for forged in (signed.replace(b"file:a", b"file:b"), signed.replace(b"file:a", b"file:a ")):
        with pytest.raises(BadSignature):
            verifier.check_bytes(Signature.parse(forged), b"data")


def test_the_older_kind_has_to_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer, file = Signer(), tmp_path / "file"
    verifier = Verifier(parse_keys(signer.public))
    monkeypatch.setattr("dewy.minisign.MOST_PURE", 4)
    for data in (b"four", b"fives"):
        file.write_bytes(data)
        verifier.check_file(Signature.parse(signer.sign(data)), file)
        if len(data) == 4:
            verifier.check_file(Signature.parse(signer.sign(data, prehashed=False)), file)
    with pytest.raises(BadSignature, match=r"older kind of signature .* on a large file: sign it without -l"):
        verifier.check_file(Signature.parse(signer.sign(b"fives", prehashed=False)), file)


def test_memory_stays_flat(tmp_path: Path) -> None:
    data = b"x" * 20_000_000
    signer = Signer()
    signature = Signature.parse(signer.sign(data))
    (tmp_path / "file").write_bytes(data)
    del data
    verifier = Verifier(parse_keys(signer.public))
    tracemalloc.start()
    verifier.check_file(signature, tmp_path / "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no signature",
        SIGNATURE.replace(b"untrusted comment:", b"comment:"),
        SIGNATURE.replace(b"\ntrusted comment: ", b"\ntrusted: "),
        SIGNATURE.replace(b"RUQkp", b"RVQkp"),  # another algorithm
        SIGNATURE.replace(b"RUQkp", b"RUQk*"),
        b"\n".join(SIGNATURE.splitlines()[:3]),
        SIGNATURE.replace(b"EK8EWk", b""),
    ],
)
def test_what_is_no_signature(text: bytes) -> None:
    with pytest.raises(BadSignature, match="minisign signature"):
        Signature.parse(text)


@pytest.mark.parametrize(
    "text", ["key", KEY[:-1], KEY.replace("RWQ", "RUQ"), KEY + KEY, f"{KEY},", "RWQ" + "A" * 53 + "é"]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'[^']{0,8}'\.\.\.: a minisign public key, as in RWQ") as caught:
        parse_keys(text)
    assert len(str(caught.value)) < 120  # a secret key, given by mistake, is not shown


def test_no_key_at_all() -> None:
    assert parse_keys("") == parse_keys("  ") == ()
    assert PublicKey.parse(f" {KEY}\n").shown == "5E6061CC35B5A724"


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(
        ConfigError, match=r"--signature-key: needs cryptography: pip install 'kvcache-dewy\[signatures\]'"
    ):
        Verifier(parse_keys(KEY))
