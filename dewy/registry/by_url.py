"""Artifacts that somebody else's registry names by their URLs: each is fetched as the registry of its own kind would.

ghr://owner/repo/tag/v1.2.3/app.tar.gz      s3://region/bucket/dir/app.tar.gz?endpoint=...
gs://bucket/dir/app.tar.gz                  file:///dir/app.tar.gz
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import parse_qsl

from dewy.errors import ConfigError, printable
from dewy.registry.base import Announced, Registry
from kvcache import UpstreamError

FORMS: Final = "ghr://owner/repo/tag/TAG/FILE, s3://region/bucket/DIR/FILE, gs://bucket/DIR/FILE or file:///DIR/FILE"


class Open(Protocol):
    """`open_registry`, with all but the URL settled."""

    def __call__(self, url: str) -> Registry:
        """ConfigError."""


@contextmanager
def source_of(announced: Announced, open_url: Open) -> Iterator[tuple[Registry, Announced]]:
    """The registry that has the artifact, and the artifact in its terms. UpstreamError.

    It is opened anew for each artifact: there is one in a release, and who names them may change where they are.
    """
    url, there = home_of(announced)
    try:
        registry = open_url(url)
    except ConfigError as error:
        # Of our machine's configuration perhaps, but it came with an answer, and another answer may be better.
        why = str(error).removeprefix("--registry: ")
        raise UpstreamError(f"{printable(announced.artifact_url)}: {why}") from error
    try:
        yield registry, there
    finally:
        registry.close()


def home_of(announced: Announced) -> tuple[str, Announced]:
    """(URL of the registry that has the artifact, the artifact as that one names it). Pure. UpstreamError."""
    address, mark, query = announced.artifact_url.partition("?")
    scheme, _, place = address.partition("://")
    match scheme, place.split("/"):
        case "ghr", [owner, repo, "tag", *tag, name] if owner and repo and any(tag) and name:
            return f"ghr://{owner}/{repo}", replace(announced, tag="/".join(tag), artifact_url=address)
        case "s3" | "gs" | "file", [*top, directory, name] if top and directory and name:
            written = [value for key, value in parse_qsl(query) if key == "endpoint" and scheme == "s3"]
            there = replace(announced, tag=directory, artifact_url=address + "".join(f"?endpoint={e}" for e in written))
            return f"{scheme}://{'/'.join(top)}{mark}{query}", there
        case _:
            raise UpstreamError(f"{printable(announced.artifact_url)}: expected {FORMS}", authoritative=True)
