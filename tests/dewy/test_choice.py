"""Which version is taken: slots, `--fallback`, and what may stand in the way of the newest one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.registry.choice import Choice, Rule, candidates, choose_version
from dewy.registry.keys import choice_scope, source_scope
from dewy.versions import CalVer, parse_semver, ranked

TAGS = st.builds(
    "v{}.{}.0{}{}".format,
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(["", "-rc.1"]),
    st.sampled_from(["", "+blue", "+green"]),
) | st.just("nightly")
RULES = st.builds(
    Rule, pre_release=st.booleans(), slot=st.sampled_from(["", "blue", "green", "red"]), fallback=st.booleans()
)


def chosen(tags: list[str], having: set[str], last: str | None = None, **rule: Any) -> Choice | None:
    """The choice where the tags of `having` have an artifact."""
    return choose_version(tags, Rule(**rule), lambda tag: "app" if tag in having else None, last)


def read(tag: str) -> Any:
    return parse_semver(tag)


@pytest.mark.parametrize(
    ("having", "rule", "expected"),
    [
        ("v1 v2", {}, ("v2", "app", "")),
        ("v1", {}, ("v2", None, "")),  # as Dewy v2: the newest, or nothing new
        ("v1", {"fallback": True}, ("v1", "app", "v2")),
        ("v1 v2", {"fallback": True}, ("v2", "app", "")),
        ("", {"fallback": True}, ("v2", None, "")),  # what is missing is the newest one's
    ],
)
def test_r6_the_newest_version_lacks_its_artifact(having: str, rule: dict, expected: tuple) -> None:
    names = {"v1": "v1.0.0", "v2": "v2.0.0"}
    choice = chosen(list(names.values()), {names[one] for one in having.split()}, **rule)
    tag, name, newest = expected
    assert choice == Choice(names[tag], "", name, names.get(newest, ""))


BLUE_GREEN = ["v1.0.0+blue", "v1.0.0+green", "v2.0.0+green"]


@pytest.mark.parametrize(
    ("tags", "rule", "tag"),
    [
        (BLUE_GREEN, {}, "v2.0.0+green"),
        (BLUE_GREEN, {"slot": "blue"}, "v2.0.0+green"),  # as Dewy v2: the node waits for one of its own
        (BLUE_GREEN, {"slot": "blue", "fallback": True}, "v1.0.0+blue"),
        (BLUE_GREEN, {"slot": "red", "fallback": True}, "v2.0.0+green"),
        (BLUE_GREEN[:2], {}, "v1.0.0+blue"),  # the first one listed
        (BLUE_GREEN[:2], {"slot": "green"}, "v1.0.0+green"),
        (BLUE_GREEN[:2], {"slot": "green", "fallback": True}, "v1.0.0+green"),
        (BLUE_GREEN[:2], {"slot": "red"}, "v1.0.0+blue"),
    ],
)
def test_r6_slots(tags: list[str], rule: dict, tag: str) -> None:
    choice = chosen(tags, set(tags), **rule)
    assert choice is not None
    assert (choice.tag, choice.slot, choice.name) == (tag, tag.partition("+")[2], "app")


def test_slots_of_calendar_versions() -> None:
    tags = ["2026.01.1+blue", "2026.01.1+green", "v9.0.0+green"]
    choice = chosen(tags, set(tags), calver=CalVer("YYYY.0M.MICRO"), slot="green")
    assert choice == Choice("2026.01.1+green", "green", "app")


def test_an_artifact_that_is_uploaded_again_sends_nobody_back() -> None:
    tags = ["v1.0.0", "v2.0.0", "v3.0.0"]
    assert chosen(tags, {"v1.0.0"}, "v2.0.0", fallback=True) == Choice("v2.0.0", "", None, "v3.0.0")
    assert chosen(tags, {"v1.0.0"}, "v9.0.0", fallback=True) == Choice("v1.0.0", "", "app", "v3.0.0")
    assert chosen(tags[:1] + tags[2:], {"v1.0.0"}, "v2.0.0", fallback=True) == Choice("v1.0.0", "", "app", "v3.0.0")


@given(st.lists(TAGS, max_size=8, unique=True), st.sets(TAGS), RULES, st.none() | TAGS)
def test_what_is_chosen(tags: list[str], having: set[str], rule: Rule, last: str | None) -> None:
    choice = choose_version(tags, rule, lambda tag: "app" if tag in having else None, last)
    counted = [version.text for version in ranked(tags, pre_release=rule.pre_release)]
    assert (choice is None) == (not counted)
    if choice is None:
        return
    assert choice.tag in counted
    assert choice.name == ("app" if choice.tag in having else None)
    assert choice.slot == (read(choice.tag).build or "")
    above = [tag for tag in counted if read(tag) > read(choice.tag)]
    if not rule.fallback:
        assert not above and choice.newest == ""
        equal = [tag for tag in counted if read(tag) == read(choice.tag)]
        own = [tag for tag in equal if (read(tag).build or "") == rule.slot]
        assert choice.tag == ((own if rule.slot and own else equal)[0])
        return
    own = [tag for tag in counted if read(tag).build == rule.slot] if rule.slot else []
    pool = own or counted
    assert choice.tag in pool
    if choice.name is not None:  # nothing that is better has one
        assert not [tag for tag in pool[: pool.index(choice.tag)] if tag in having]
        assert choice.newest == ("" if choice.tag == pool[0] else pool[0])
        assert last not in pool[: pool.index(choice.tag)]
    elif choice.tag != last:
        assert choice.tag == pool[0] and not having.intersection(pool)


@given(st.lists(TAGS, max_size=8, unique=True), RULES)
def test_only_a_fallback_looks_at_more_than_one(tags: list[str], rule: Rule) -> None:
    found = candidates(tags, rule)
    assert rule.fallback or len(found) <= 1


# -- whose answers are shared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["ghr://o/r", "ghr://o/r?", "ghr://o/r?a=1&b=", "file:///d?host=x&libc=musl"])
def test_nodes_that_may_take_another_version_share_no_answer(scope: str) -> None:
    assert choice_scope(scope, "", False) == scope
    scopes = {choice_scope(scope, slot, fallback) for slot in ("", "blue", "a&fallback=true") for fallback in (0, 1)}
    assert len(scopes) == 6
    for other in scopes:
        assert source_scope(other) == source_scope(scope)  # but they keep one place for artifacts
