"""Which of the versions that a registry lists is the one to deploy. Pure.

Without options it is the newest, as in Dewy v2. Two things may stand in its way: it has no artifact for this machine,
or it is of another slot; then nothing new is deployed, unless `--fallback` asks for the next one down.

- Of versions that are equal but for their build metadata, the one of this node's slot goes first.
- With `fallback`, only versions of this node's slot count where there are any, and the newest of them that has an
  artifact is taken. It never goes below what was announced last while that is still listed: an artifact that is being
  uploaded again is gone for a moment, and a fleet must not take that for an order to go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dewy.versions import CalVer, Version, ranked


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operator said about versions."""

    pre_release: bool = False
    calver: CalVer | None = None
    """None: versions are semantic."""
    slot: str = ""
    """Empty: slots do not matter."""
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A version by its name as listed, and its artifact."""

    tag: str
    slot: str
    name: str | None
    """None: it has no artifact for this machine."""
    newest: str = ""
    """The version that would have been taken, had it an artifact for this machine; empty where this is it."""


def candidates(names: Iterable[str], rule: Rule) -> Sequence[Version]:
    """The versions that may be taken, the best one first; more than one only with `fallback`."""
    versions = ranked(names, pre_release=rule.pre_release, calver=rule.calver)
    if rule.slot and rule.fallback:
        versions = [version for version in versions if version.build == rule.slot] or versions
    if rule.fallback or not versions:
        return versions
    equal = [version for version in versions if version == versions[0]]
    return [next((version for version in equal if version.build == rule.slot), equal[0])]


def choose_version(
    names: Iterable[str], rule: Rule, artifact_of: Callable[[str], str | None], last: str | None = None
) -> Choice | None:
    """The version to deploy; None where no name is a version.

    `artifact_of` gives the artifact of a version for this machine, if it has one; `last` is the version that was
    announced last.
    """
    passed_over = ""
    versions = candidates(names, rule)
    for version in versions:
        name = artifact_of(version.text)
        if name is not None or version.text == last:
            return Choice(version.text, version.build or "", name, passed_over)
        passed_over = passed_over or version.text
    return Choice(versions[0].text, versions[0].build or "", None) if versions else None
