"""`kvcache.cached`: a function whose results the fleet shares."""

from __future__ import annotations

import functools
import inspect
import string
import typing
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from kvcache.cache import SharedCache
from kvcache.codecs import Codec, Compressing, codec_for
from kvcache.errors import CorruptRecord
from kvcache.load import LoadContext, Loaded, Result
from kvcache.redaction import scrub

if typing.TYPE_CHECKING:
    from kvcache.aio import AsyncSharedCache

P = ParamSpec("P")
R = TypeVar("R")


class Cached(Generic[P, R]):
    """A plain function, cached. Its exceptions arrive as UpstreamUnavailable, caused by them.

    CorruptRecord: what is stored is not of the return type, as when that has changed: change the key with it.
    """

    def __init__(self, cache: SharedCache, function: Callable[P, R], values: _Values) -> None:
        self._cache, self._function, self._values = cache, function, values
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for these arguments: shared, fresh if at all possible."""

        def load(_: LoadContext) -> Loaded[Any]:
            return Loaded(self._values.codec.encode(self._function(*args, **kwargs)))

        return typing.cast(R, self._values.decoded(self._cache.get(self.key(*args, **kwargs), load)).value)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key in the store for these arguments."""
        return self._values.key(args, kwargs)

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Result | None:
        """The last known result, without a call."""
        found = self._cache.peek(self.key(*args, **kwargs))
        return None if found is None else self._values.decoded(found)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """The next call with these arguments refreshes."""
        self._cache.invalidate(self.key(*args, **kwargs))


class AsyncCached(Generic[P, R]):
    """A coroutine function, cached. As `Cached`, to be awaited."""

    def __init__(self, cache: AsyncSharedCache, function: Callable[P, Awaitable[R]], values: _Values) -> None:
        self._cache, self._function, self._values = cache, function, values
        functools.update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for these arguments: shared, fresh if at all possible."""

        async def load(_: LoadContext) -> Loaded[Any]:
            return Loaded(self._values.codec.encode(await self._function(*args, **kwargs)))

        return typing.cast(R, self._values.decoded(await self._cache.get(self.key(*args, **kwargs), load)).value)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key in the store for these arguments."""
        return self._values.key(args, kwargs)

    async def peek(self, *args: P.args, **kwargs: P.kwargs) -> Result | None:
        """The last known result, without a call."""
        found = await self._cache.peek(self.key(*args, **kwargs))
        return None if found is None else self._values.decoded(found)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """The next call with these arguments refreshes."""
        await self._cache.invalidate(self.key(*args, **kwargs))


class _Decorator:
    """What `cached` returns: takes a plain function for a SharedCache, a coroutine function for an AsyncSharedCache."""

    def __init__(
        self, cache: SharedCache | AsyncSharedCache, key: str | None, codec: Codec | None, above: int | None
    ) -> None:
        self._cache, self._key, self._codec, self._above = cache, key, codec, above

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function too; the first one wins
        self, function: Callable[P, Awaitable[R]]
    ) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Cached[P, R]: ...
    def __call__(self, function: Any) -> Any:
        values = _Values(function, self._key, self._codec, self._above)
        if isinstance(self._cache, SharedCache):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{function.__qualname__} is a coroutine function: it needs an AsyncSharedCache")
            return Cached(self._cache, function, values)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is no coroutine function: it needs a SharedCache")
        return AsyncCached(self._cache, function, values)


def cached(
    cache: SharedCache | AsyncSharedCache,
    key: str | None = None,
    *,
    codec: Codec | None = None,
    compress_above: int | None = None,
) -> _Decorator:
    """Shares a function's results through `cache`.

    `key` is a template over the function's parameters, `"releases:{owner}/{repo}"`; each argument is quoted, so no
    argument can leave its place in the key. Without one the function's name and all of its arguments make the key.
    `codec` turns results into JSON and back; it is chosen by the return annotation unless given. `compress_above`:
    bytes of JSON from which on zstandard is used; never unless given. TypeError, ValueError: for a key that names no
    parameter, at once.
    """
    return _Decorator(cache, key, codec, compress_above)


class _Values:
    """Keys from arguments, values from what is stored."""

    def __init__(self, function: Callable[..., Any], key: str | None, codec: Codec | None, above: int | None) -> None:
        self._signature = inspect.signature(function)
        self._template = key
        self._name = f"{function.__module__}.{function.__qualname__}".replace("<", "").replace(">", "")
        for _, field, _, _ in string.Formatter().parse(key or ""):
            if field is not None and field.partition(".")[0].partition("[")[0] not in self._signature.parameters:
                raise ValueError(f"key: {key!r}: {{{field}}} is no parameter of {function.__qualname__}")
        chosen = codec if codec is not None else codec_for(_return_type(function))
        self.codec: Codec = chosen if above is None else Compressing(chosen, above)
        self._last: tuple[Any, Any] | None = None

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._template is None:
            return self._name + "".join(f":{name}={_quoted(value)}" for name, value in bound.arguments.items())
        return self._template.format_map({name: _Quoted(value) for name, value in bound.arguments.items()})

    def decoded(self, result: Result) -> Result:
        # A hit returns the same stored object again and again; it is decoded once.
        last = self._last
        if last is None or last[0] is not result.value:
            try:
                last = self._last = (result.value, self.codec.decode(result.value))
            except Exception as error:  # each codec's library has exceptions of its own
                raise CorruptRecord(f"{self._name}: what is stored is not of its type: {scrub(str(error))}") from error
        return result._replace(value=last[1])


class _Quoted:
    """An argument in a template: whatever is asked of it, what comes out is quoted."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        return _quoted(format(self._value, spec) if spec else self._value)

    def __getattr__(self, name: str) -> _Quoted:
        return _Quoted(getattr(self._value, name))

    def __getitem__(self, index: Any) -> _Quoted:
        return _Quoted(self._value[index])

    def __str__(self) -> str:
        return _quoted(self._value)

    def __repr__(self) -> str:
        return _quoted(repr(self._value))


def _quoted(value: Any) -> str:
    kind: Any = type(value)
    if {kind.__str__, kind.__repr__} == {object.__str__, object.__repr__}:
        raise TypeError(f"key: a {kind.__name__} reads otherwise in every process: name an attribute of it in `key`")
    text = quote(str(value), safe="-_~")
    return text.replace(".", "%2E") if set(text) <= {"."} else text


def _return_type(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except NameError:  # an annotation that only a type checker can resolve
        return None
