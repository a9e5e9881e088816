"""What is known of a release on disk, as the plan and people name it."""

from __future__ import annotations

from dewy.plan import Artifact
from dewy.release import Release


def artifact_of(release: Release) -> Artifact:
    """One that Dewy v2 made, or somebody by hand, is like no announced one."""
    if release.info is None:
        return Artifact(key="", tag=release.id)
    info = release.info
    return Artifact(info.key, info.tag, digest=info.digest or None, size=info.size)


def tag_of(release: Release | None) -> str:
    """The tag as far as it is known, else the id; empty for no release."""
    if release is None:
        return ""
    return release.info.tag if release.info is not None else release.id
