"""Decompression as a stream: the same bytes whatever the pieces that come in, and never a byte less."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest

from dewy.archive.limits import Limits, Meter
from dewy.archive.streams import CHUNK, Inflow, bzip2, decompressed, deflate, gzip, xz, zstandard
from dewy.errors import BadArchive
from tests.dewy.archives import COMPRESS


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


MAKERS = {
    "gzip": (gzip, COMPRESS[".tar.gz"]),
    "deflate": (deflate, _deflate),
    "bzip2": (bzip2, COMPRESS[".tar.bz2"]),
    "xz": (xz, COMPRESS[".tar.xz"]),
    "zstandard": (zstandard, COMPRESS[".tar.zst"]),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_pieces_of_any_size(name: str, piece: int) -> None:
    make, compress = MAKERS[name]
    data = random.Random(name).randbytes(3000) + bytes(2 * CHUNK + 100)
    packed = compress(data)
    source = (packed[at : at + piece] for at in range(0, len(packed), piece))
    chunks = list(decompressed(source, make))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK


@pytest.mark.parametrize("name", MAKERS)
def test_what_ends_just_behind_a_chunk(name: str) -> None:
    """The decompressor has then swallowed all input while some output is yet to come."""
    make, compress = MAKERS[name]
    for more in range(0, 600, 43):
        data = bytes(CHUNK + more)
        assert b"".join(decompressed(iter([compress(data)]), make, joined=False)) == data, more


@pytest.mark.parametrize("name", MAKERS)
def test_every_cut_is_noticed(name: str) -> None:
    make, compress = MAKERS[name]
    packed = compress(random.Random(name).randbytes(200) + bytes(200))
    for cut in range(len(packed)):
        with pytest.raises(BadArchive, match=r"truncated|empty"):
            list(decompressed(iter([packed[:cut]] if cut else []), make))


def test_data_behind_a_stream_that_stands_alone() -> None:
    packed = _deflate(b"x")
    for pieces in ([packed + b"y"], [packed, b"y"], [packed + packed]):
        with pytest.raises(BadArchive, match="behind the end"):
            list(decompressed(iter(pieces), deflate, joined=False))


def test_an_inflow_gives_what_is_asked_for() -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"ab", b"cdefg", b"h")

    meter = Meter(Limits(), 8)
    inflow = Inflow(chunks(), meter)
    assert inflow.read(3) == b"abc"
    assert bytes(inflow.take(2)) == b"de"
    assert bytes(inflow.take(100)) == b"fg"
    assert inflow.read(0) == b""
    assert inflow.read(100) == b"h"
    assert bytes(inflow.take(1)) == b""
    assert meter.unpacked == 8
