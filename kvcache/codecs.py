"""Values as JSON and back, chosen by a return annotation. For `kvcache.cached`; records know nothing of it.

JSON itself passes through. `bytes` become base64. msgspec structs, pydantic models and dataclasses go through their
own library, and what comes back is checked by it. Nothing is ever pickled.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any, Final, Protocol

from kvcache.errors import CorruptRecord, Unsupported

COMPRESSED: Final = "kvcache.zstd"
"""The one member of the object that stands for a compressed value."""
MAX_PLAIN_BYTES: Final = 64 * 2**20
"""A compressed value never unpacks to more than this."""


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
    """Structs and dataclasses, by msgspec."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def encode(self, value: Any) -> Any:
        import msgspec

        return msgspec.to_builtins(value)

    def decode(self, stored: Any) -> Any:
        import msgspec

        return msgspec.convert(stored, self._kind)


class Pydantic:
    """Models and dataclasses, by pydantic."""

    def __init__(self, kind: Any) -> None:
        from pydantic import TypeAdapter

        self._adapter: Any = TypeAdapter(kind)

    def encode(self, value: Any) -> Any:
        return self._adapter.dump_python(value, mode="json")

    def decode(self, stored: Any) -> Any:
        return self._adapter.validate_python(stored)


class Compressing:
    """Another codec, with zstandard (RFC 8878) above `above` bytes of JSON. Not for records that Dewy v2 reads."""

    def __init__(self, inner: Codec, above: int) -> None:
        self._inner, self._above = inner, above

    def encode(self, value: Any) -> Any:
        import zstandard

        stored = self._inner.encode(value)
        data = json.dumps(stored, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        if len(data) <= self._above:
            return stored
        return {COMPRESSED: base64.b64encode(zstandard.compress(data)).decode("ascii")}

    def decode(self, stored: Any) -> Any:
        import zstandard

        if not isinstance(stored, dict) or stored.keys() != {COMPRESSED}:
            return self._inner.decode(stored)
        packed = base64.b64decode(stored[COMPRESSED], validate=True)
        try:
            size = zstandard.frame_content_size(packed)
            if not 0 <= size <= MAX_PLAIN_BYTES:
                raise CorruptRecord(f"a compressed value of {size} bytes")
            return self._inner.decode(json.loads(zstandard.decompress(packed, max_output_size=MAX_PLAIN_BYTES)))
        except zstandard.ZstdError as error:
            raise CorruptRecord(f"not zstandard: {error}") from error


def codec_for(kind: Any) -> Codec:
    """The codec of a return annotation. Unsupported: the library for it is not installed."""
    if kind is bytes:
        return Bytes()
    if not isinstance(kind, type):
        return Plain()
    base = {cls.__module__.partition(".")[0] for cls in kind.__mro__}
    if "msgspec" in base:
        return Msgspec(kind)
    if "pydantic" in base:
        return Pydantic(kind)
    if dataclasses.is_dataclass(kind):
        for codec in (Msgspec, Pydantic):
            try:
                __import__(codec.__name__.lower())
            except ImportError:
                continue
            return codec(kind)
        raise Unsupported(f"{kind.__name__} is a dataclass: install msgspec or pydantic to cache it")
    return Plain()
