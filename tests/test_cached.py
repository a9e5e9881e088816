"""`kvcache.cached` and its codecs."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import json
import typing
import uuid

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvcache
from kvcache.backends.memory import MemoryStore
from kvcache.codecs import COMPRESSED, Bytes, Compressing, Plain, codec_for
from kvcache.errors import CorruptRecord, Unsupported


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    name: str


@dataclasses.dataclass
class Data:
    items: list[int]


@pytest.fixture
def store():
    return MemoryStore(2**26)


@pytest.fixture
def cache(store):
    return kvcache.SharedCache(store, ttl=60)


def test_one_call_per_arguments(cache, store):
    calls = []

    @kvcache.cached(cache, key="releases:{owner}/{repo}")
    def releases(owner: str, repo: str = "app") -> list[str]:
        """Doc."""
        calls.append((owner, repo))
        return [owner, repo]

    assert releases("a", "b") == releases("a", repo="b") == ["a", "b"]
    assert releases("a") == ["a", "app"]
    assert calls == [("a", "b"), ("a", "app")]
    assert list(store.list()) == ["releases:a/app", "releases:a/b"]
    assert releases.__doc__ == "Doc." and releases.__name__ == "releases"
    peeked = releases.peek("a", "b")
    assert peeked is not None and peeked.value == ["a", "b"]
    assert releases.peek("never") is None
    releases.invalidate("a", "b")
    releases("a", "b")
    assert len(calls) == 3


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_argument_leaves_its_place_in_the_key(one, two):
    cache = kvcache.SharedCache(MemoryStore(2**20), ttl=60)

    @kvcache.cached(cache, key="x/{one}/{two}")
    def function(one: str, two: str) -> int:
        return 1

    try:
        key = function.key(one, two)
    except UnicodeEncodeError:  # lone surrogates
        return
    assert key.count("/") == 2
    if one and two:
        kvcache.check_key(key)
    if (one, two) != (two, one):
        assert key != function.key(two, one)


def test_without_a_template_all_arguments_make_the_key(cache):
    @kvcache.cached(cache)
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3 and add(2, 2) == 4
    assert add.key(1, b=2) == add.key(1, 2) != add.key(2, 1)


def test_wrong_use_is_found_at_once(cache, store):
    with pytest.raises(ValueError, match=r"\{nobody\} is no parameter"):
        kvcache.cached(cache, key="{nobody}")(lambda a: a)

    async def coroutine() -> int:
        return 1

    with pytest.raises(TypeError, match="AsyncSharedCache"):
        kvcache.cached(cache)(coroutine)
    with pytest.raises(TypeError, match="SharedCache"):
        kvcache.cached(kvcache.AsyncSharedCache(store, ttl=1))(lambda: 1)


def test_results_keep_their_type(store):
    def through(function):
        value = kvcache.cached(kvcache.SharedCache(store, ttl=60))(function)()
        again = kvcache.cached(kvcache.SharedCache(store, ttl=60))(function)()  # another process reads it
        assert value == again and type(value) is type(again)
        return again

    def point() -> Point:
        return Point(3)

    def model() -> Model:
        return Model(name="m")

    def data() -> Data:
        return Data([1, 2])

    def binary() -> bytes:
        return b"\x00\xff"

    assert through(point) == Point(3)
    assert through(model) == Model(name="m")
    assert through(data) == Data([1, 2])
    assert through(binary) == b"\x00\xff"


class Colour(enum.Enum):
    RED = "red"


DAY = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize("hidden", [None, "msgspec", "pydantic"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[Data], [Data([1]), Data([])]),
        (Data | None, Data([1])),
        (Data | None, None),
        (dict[str, list[Data]], {"a": [Data([2])]}),
        (dict[int, str], {1: "one"}),
        (tuple[int, str], (1, "one")),
        (set[str], {"a", "b"}),
        (list[bytes], [b"\x00\xff"]),
        (datetime.datetime, DAY),
        (dict[str, Colour], {"sky": Colour.RED}),
        (uuid.UUID, uuid.UUID(int=7)),
        (list[dict[str, int]], [{"a": 1}]),
        (typing.Literal["a", "b"], "a"),
        (typing.Any, {"a": None}),
    ],
)
def test_types_within_types(store, monkeypatch, kind, value, hidden):
    if hidden:
        monkeypatch.setattr("kvcache.codecs.find_spec", lambda name: None if name == hidden else object())
    codec = codec_for(kind)
    again = codec.decode(json.loads(json.dumps(codec.encode(value))))
    assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize(("kind", "value"), [(list[Point], [Point(1)]), (Model | None, Model(name="m"))])
def test_a_librarys_own_types_within_types(kind, value):
    codec = codec_for(kind)
    assert codec.decode(json.loads(json.dumps(codec.encode(value)))) == value


def test_a_type_that_no_library_is_there_for(monkeypatch):
    monkeypatch.setattr("kvcache.codecs.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="datetime is not JSON: install msgspec or pydantic"):
        codec_for(list[datetime.datetime])
    assert isinstance(codec_for(dict[str, list[int]] | None), Plain)


def test_an_argument_whose_text_is_an_address_makes_no_key(cache):
    class Client:
        name = "c"

    assert kvcache.cached(cache, key="x:{client.name}")(lambda client: 1).key(Client()) == "x:c"
    for key in (None, "x:{client}"):
        with pytest.raises(TypeError, match="a Client reads otherwise in every process"):
            kvcache.cached(cache, key=key)(lambda client: 1).key(Client())


def test_large_results_are_compressed_and_marked(store):
    cache = kvcache.SharedCache(store, ttl=60)

    @kvcache.cached(cache, key="{size}", compress_above=1000)
    def text(size: int) -> str:
        return "x" * size

    assert text(10) == "x" * 10 and text(100_000) == "x" * 100_000
    assert len(store.read("100000")) < 1000
    assert COMPRESSED.encode() in store.read("100000") and COMPRESSED.encode() not in store.read("10")
    other = kvcache.cached(kvcache.SharedCache(store, ttl=60), key="{size}", compress_above=1000)
    assert other(lambda size: None)(100_000) == "x" * 100_000


@pytest.mark.parametrize(
    "damage", [lambda text: "AAAA", lambda text: "?", lambda text: 7, lambda text: None, lambda text: text[:-8]]
)
def test_a_compressed_value_that_is_none_is_corrupt(damage):
    codec = Compressing(Plain(), 0)
    stored = codec.encode("x" * 10_000)
    assert codec.decode(stored) == "x" * 10_000
    with pytest.raises(CorruptRecord):
        codec.decode({COMPRESSED: damage(stored[COMPRESSED])})


def test_a_compressed_value_unpacks_to_so_much_and_no_more(monkeypatch):
    codec = Compressing(Plain(), 0)
    monkeypatch.setattr("kvcache.codecs.MAX_PLAIN_BYTES", 1000)
    assert codec.decode(codec.encode("x" * 998)) == "x" * 998
    with pytest.raises(CorruptRecord, match="more than 1000 bytes"):
        codec.decode(codec.encode("x" * 100_000))


def test_a_stored_value_of_another_type_is_corrupt(store):
    def old() -> dict[str, str]:
        return {"y": "https://user:secret@host"}

    def new() -> Point:
        return Point(3)

    kvcache.cached(kvcache.SharedCache(store, ttl=60), key="same")(old)()
    changed = kvcache.cached(kvcache.SharedCache(store, ttl=60), key="same")(new)
    with pytest.raises(CorruptRecord, match="new: what is stored is not of its type") as caught:
        changed()
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=100))
def test_bytes_round_trip(data):
    assert Bytes().decode(Bytes().encode(data)) == data


def test_exceptions_are_the_cause(cache):
    @kvcache.cached(cache)
    def fails() -> int:
        raise OSError("no route")

    with pytest.raises(kvcache.UpstreamUnavailable) as error:
        fails()
    assert isinstance(error.value.__cause__, OSError)


def test_coroutine_functions(store):
    async def story():
        calls = []

        @kvcache.cached(kvcache.AsyncSharedCache(store, ttl=60), key="p:{x}")
        async def point(x: int) -> Point:
            calls.append(x)
            return Point(x)

        assert await point(1) == await point(1) == Point(1)
        peeked = await point.peek(1)
        assert peeked is not None and peeked.value == Point(1)
        await point.invalidate(1)
        await point(1)
        assert calls == [1, 1]

    asyncio.run(story())
