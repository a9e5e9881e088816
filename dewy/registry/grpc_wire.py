"""The protocol of `grpc://`: Dewy v2's service `dewy.RegistryService`, its messages, and one call.

    rpc Current(CurrentRequest) returns (CurrentResponse)
    rpc Report(ReportRequest) returns (google.protobuf.Empty)

The messages are described here rather than generated: four of them, which do not change. grpcio and protobuf are
imported with this module, so it is imported only where such a registry is opened.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory, timestamp_pb2

from kvcache import UpstreamError, scrub

SERVICE: Final = "dewy.RegistryService"

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_LONGEST_PAUSE: Final = 24 * 3600.0
"""Seconds. What asks for more is a broken clock or a broken header."""
_TIMESTAMP: Final = timestamp_pb2.Timestamp.DESCRIPTOR

# Of each message: name and number of its fields. A trailing "?" marks one that may be absent, which proto3 tells from
# an empty one. The misspelling is the protocol's.
_MESSAGES: Final = {
    "CurrentRequest": {"arch": 1, "os": 2, "arifact_name?": 3},
    "CurrentResponse": {"id": 1, "tag": 2, "artifact_url": 3, "created_at?": 4},
    "ReportRequest": {"id": 1, "tag": 2, "command": 3, "err?": 4},
}

_CONSIDERED: Final = frozenset({
    "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "FAILED_PRECONDITION",
})  # fmt: skip
"""Codes that are the registry's considered answer: trying again at once cannot help."""


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="kvcache-dewy/registry.proto", package="dewy", syntax="proto3")
    file.dependency.append(_TIMESTAMP.file.name)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for marked, number in fields.items():
            field = message.field.add(name=marked.rstrip("?"), number=number, label=_FIELD.LABEL_OPTIONAL)
            if field.name == "created_at":
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_TIMESTAMP.full_name}"
            else:
                field.type = _FIELD.TYPE_STRING
            if marked.endswith("?"):
                field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")
    return file


# A pool of its own: the default one is the whole process's, where another program's `dewy` may stand.
_pool: Final = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_TIMESTAMP.file.serialized_pb)
_pool.Add(_described())
_classes: Final = {
    name: message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"dewy.{name}")) for name in _MESSAGES
}

CurrentRequest: Final[Any] = _classes["CurrentRequest"]
CurrentResponse: Final[Any] = _classes["CurrentResponse"]
ReportRequest: Final[Any] = _classes["ReportRequest"]


class Service:
    """Calls the service at `target` (`host:port`). Safe to use from any number of threads.

    Every call has a connection of its own: a poll every few seconds hardly feels the handshake, and nothing of a broken
    or forgotten connection, nor a thread of the library, is left between two polls, when processes are started.
    """

    def __init__(self, target: str, describe: str, roots: bytes | None, *, tls: bool, direct: bool, agent: str) -> None:
        """`roots`: certificates in PEM form; None: those that grpcio brings along. `direct`: by no proxy."""
        self._target = target
        self._describe = describe
        self._credentials = grpc.ssl_channel_credentials(root_certificates=roots) if tls else None
        self._options = [
            ("grpc.primary_user_agent", agent),
            ("grpc.enable_http_proxy", int(not direct)),
            ("grpc.enable_retries", 0),
        ]

    def current(self, request: Any, seconds: float) -> Any:
        """CurrentResponse. UpstreamError."""
        return self._call("Current", request, CurrentResponse, seconds)

    def report(self, request: Any, seconds: float) -> None:
        """UpstreamError."""
        self._call("Report", request, empty_pb2.Empty, seconds)

    def _call(self, method: str, request: Any, answer: Any, seconds: float) -> Any:
        if seconds <= 0:
            raise UpstreamError(f"{self._describe}: no time left to ask")
        with self._channel() as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            try:
                return call(request, timeout=seconds)
            except grpc.RpcError as error:
                raise _failed(self._describe, method, error) from error

    def _channel(self) -> Any:
        if self._credentials is None:
            return grpc.insecure_channel(self._target, self._options)
        return grpc.secure_channel(self._target, self._credentials, self._options)


def _failed(describe: str, method: str, error: Any) -> UpstreamError:
    """The one place where errors of grpcio become ours."""
    code = error.code().name
    details = scrub(error.details() or "", 300)
    words = code.lower().replace("_", " ")
    return UpstreamError(
        f"{describe}: {method}: {words}{': ' if details else ''}{details}",
        retry_after=_pushback(error),
        authoritative=code in _CONSIDERED,
    )


def _pushback(error: Any) -> float | None:
    """Seconds to stay away for, where the server says so; None where it does not."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-retry-pushback-ms" and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(int(value[:12]) / 1000.0, _LONGEST_PAUSE)
    return None
