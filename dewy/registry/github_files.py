"""The small files of a GitHub release, for `dewy.registry.beside`."""

from __future__ import annotations

from typing import Final

from dewy.registry.github_api import GitHub, Release
from kvcache import UpstreamError


class ReleaseFiles:
    """Reads assets of a release as it was listed. No call ends later than `deadline`, on the monotonic clock."""

    def __init__(self, github: GitHub, release: Release, deadline: float) -> None:
        self._github = github
        self._deadline = deadline
        self._assets = {asset.name: asset for asset in reversed(release.assets)}  # the first of equal names stays
        self.names: Final = list(dict.fromkeys(asset.name for asset in release.assets))

    def mark(self, name: str) -> str:
        """The number of the asset: GitHub never changes one, a new upload has a new number."""
        return str(self._assets[name].id)

    def read(self, name: str, limit: int) -> bytes:
        asset = self._assets[name]
        if asset.size > limit:
            raise UpstreamError(f"{name}: larger than the {limit} bytes that are read of such a file")
        with self._github.download(asset.id, {}, self._deadline) as answer:
            body = answer.text(limit)
            if answer.status != 200:
                raise self._github.failed(f"GET {name}", answer.status, answer.headers, body)
            return body
