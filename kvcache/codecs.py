"""Values as JSON and back, chosen by a return annotation. For `kvcache.cached`; records know nothing of it.

JSON itself passes through. `bytes` become base64. msgspec structs, pydantic models, dataclasses, dates and the like go
through msgspec or pydantic, and what comes back is checked there. Nothing is ever pickled.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import sys
import uuid
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol, get_args, get_origin

from kvcache.errors import CorruptRecord, Unsupported

COMPRESSED: Final = "kvcache.zstd"
"""The one member of the object that stands for a compressed value."""
MAX_PLAIN_BYTES: Final = 64 * 2**20
"""A compressed value never unpacks to more than this."""
_NOT_JSON: Final = (
    *(bytes, tuple, set, frozenset, datetime.date, datetime.time, datetime.timedelta),
    *(decimal.Decimal, uuid.UUID, enum.Enum),
)


class Codec(Protocol):
    """`decode(encode(value)) == value`. ValueError or TypeError for what is no such value."""

    def encode(self, value: Any) -> Any: ...

    def decode(self, stored: Any) -> Any: ...


class Plain:
    """For values that are JSON already."""

    def encode(self, value: Any) -> Any:
        return value

    def decode(self, stored: Any) -> Any:
        return stored


class Bytes:
    def encode(self, value: Any) -> Any:
        return base64.b64encode(value).decode("ascii")

    def decode(self, stored: Any) -> Any:
        return base64.b64decode(stored, validate=True)


class Msgspec:
    """Whatever msgspec knows."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def encode(self, value: Any) -> Any:
        import msgspec

        return msgspec.to_builtins(value, str_keys=True)

    def decode(self, stored: Any) -> Any:
        import msgspec

        return msgspec.convert(stored, self._kind, str_keys=True)


class Pydantic:
    """Whatever pydantic knows."""

    def __init__(self, kind: Any) -> None:
        from pydantic import PydanticUserError, TypeAdapter

        try:
            adapter = TypeAdapter(kind, config={"ser_json_bytes": "base64", "val_json_bytes": "base64"})
        except PydanticUserError:  # a model, which has a configuration of its own
            adapter = TypeAdapter(kind)
        self._adapter: Any = adapter

    def encode(self, value: Any) -> Any:
        return self._adapter.dump_python(value, mode="json")

    def decode(self, stored: Any) -> Any:
        return self._adapter.validate_json(json.dumps(stored))


class Compressing:
    """Another codec, with zstandard (RFC 8878) above `above` bytes of JSON. Not for records that Dewy v2 reads."""

    def __init__(self, inner: Codec, above: int) -> None:
        self._inner, self._above = inner, above

    def encode(self, value: Any) -> Any:
        stored = self._inner.encode(value)
        data = json.dumps(stored, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if len(data) <= self._above:
            return stored
        return {COMPRESSED: base64.b64encode(_zstd().compress(data)).decode("ascii")}

    def decode(self, stored: Any) -> Any:
        if not isinstance(stored, dict) or stored.keys() != {COMPRESSED}:
            return self._inner.decode(stored)
        zstd = _zstd()
        inflating = zstd.ZstdDecompressor()
        try:
            packed = base64.b64decode(stored[COMPRESSED], validate=True)
            data = inflating.decompress(packed, MAX_PLAIN_BYTES)
        except (zstd.ZstdError, ValueError, TypeError) as error:
            raise CorruptRecord(f"not zstandard in base64: {error}") from error
        if not inflating.eof:
            raise CorruptRecord(f"a compressed value that is cut short, or of more than {MAX_PLAIN_BYTES} bytes")
        return self._inner.decode(json.loads(data))


def _zstd() -> Any:
    """The standard library's module, or what it is called before Python 3.14."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def codec_for(kind: Any) -> Codec:
    """The codec of a return annotation. Unsupported: the library for it is not installed.

    Where a type that is not JSON stands anywhere in it, as in `list[Release] | None`, the whole is left to msgspec or
    pydantic: to the one whose type it is, else to either.
    """
    if kind is bytes:
        return Bytes()
    types = tuple(_types(kind))
    homes = {base.__module__.partition(".")[0] for each in types for base in each.__mro__}
    if "msgspec" in homes:
        return Msgspec(kind)
    if "pydantic" in homes:
        return Pydantic(kind)
    foreign = [each for each in types if issubclass(each, _NOT_JSON) or dataclasses.is_dataclass(each)]
    if not foreign:
        return Plain()
    for codec in (Msgspec, Pydantic):
        if find_spec(codec.__name__.lower()) is not None:
            return codec(kind)
    raise Unsupported(f"{foreign[0].__name__} is not JSON: install msgspec or pydantic to cache it, or give a codec")


def _types(kind: Any) -> Iterator[type]:
    """The classes in an annotation."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return
    for part in (kind, origin):
        if isinstance(part, type) and get_origin(part) is None:
            yield part
    for argument in arguments:
        yield from _types(argument)
    if origin is dict and arguments[0] not in (str, Any):
        yield set  # JSON has no such keys: what is said of sets is true of it as well
