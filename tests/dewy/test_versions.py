"""Which version name is the newest."""

from __future__ import annotations

import itertools
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dewy.versions import CalVer, InvalidFormat, Version, parse_semver, ranked, slot

SEMVER_ORG_CHAIN = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
]

numbers = st.integers(0, 10**30).map(str) | st.sampled_from(["0", "00", "1", "01", "9", "10", "007"])
identifiers = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=8) | numbers
suffix = st.lists(identifiers, min_size=1, max_size=4).map(".".join)


@st.composite
def semver(draw: st.DrawFn) -> str:
    core = ".".join(draw(st.tuples(numbers, numbers, numbers)))
    pre = draw(st.none() | suffix)
    build = draw(st.none() | suffix)
    tail = f"{'' if pre is None else f'-{pre}'}{'' if build is None else f'+{build}'}"
    return f"{draw(st.sampled_from(['', 'v']))}{core}{tail}"


def read(text: str) -> Version:
    version = parse_semver(text)
    assert version is not None, text
    return version


def newest(names: list[str], **options: Any) -> str | None:
    return next((version.text for version in ranked(names, **options)), None)


def test_the_precedence_chain_of_semver_org() -> None:
    for lower, higher in itertools.combinations(SEMVER_ORG_CHAIN, 2):
        assert read(lower) < read(higher), (lower, higher)
        assert not read(higher) < read(lower)


@given(semver(), semver(), semver())
def test_the_order_is_total_and_transitive(a: str, b: str, c: str) -> None:
    x, y, z = read(a), read(b), read(c)
    assert (x < y) + (x == y) + (x > y) == 1
    if x <= y and y <= z:
        assert x <= z
    if x == y:
        assert hash(x) == hash(y)
        assert (x < z) == (y < z)


@given(semver())
def test_build_metadata_and_the_leading_v_have_no_part_in_the_order(text: str) -> None:
    bare = text.removeprefix("v").partition("+")[0]
    assert read(text) == read(bare) == read(f"v{bare}+other.1")


@given(semver())
def test_the_text_is_kept(text: str) -> None:
    """R8: Dewy v2 writes the tag anew from its numbers for S3 and GCS."""
    """R8: v2 writes the tag anew from its numbers."""
    assert read(text).text == text
    assert newest([text], pre_release=True) == text


@given(st.text(max_size=30))
@example("1.0.0\n")
@example("٣.0.0")
@example("1" * 5000 + ".0.0")
def test_any_text_is_a_version_or_none(text: str) -> None:
    version = parse_semver(text)
    assert version is None or version.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "V1.2.3",
        "1.2.x",
        " 1.2.3",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-é",
        "1.2.3+a+b",
        "release-1.2.3",
    ],
)
def test_what_is_no_semantic_version(text: str) -> None:
    assert parse_semver(text) is None


@pytest.mark.parametrize(
    "text", ["01.002.0003", "v1.2.3-rc..1", "1.2.3--", "1.2.3-01", "1.2.3+build..5", "1.2.3-a-b.c"]
)
def test_what_v2_tolerates(text: str) -> None:
    assert parse_semver(text) is not None


def test_numbers_compare_as_numbers_whatever_their_length() -> None:
    assert read("1.2.10") > read("1.2.9")
    assert read(f"1.0.{'9' * 200}") < read(f"1.1{'0' * 200}.0")
    assert read("1.0.0-2") < read("1.0.0-10") < read("1.0.0-1a")


def test_of_equal_versions_the_first_one_is_the_newest() -> None:
    assert newest(["v1.0.0+blue", "1.0.0+green", "v1.0.0"]) == "v1.0.0+blue"
    assert newest(["1.0.0+green", "v1.0.0+blue"]) == "1.0.0+green"
    assert newest(["v01.0.0", "v1.0.0"]) == "v01.0.0"


def test_pre_releases_count_only_where_they_are_asked_for() -> None:
    names = ["v1.0.0", "v1.1.0-rc.1", "nightly", "v0.9.0"]
    assert newest(names) == "v1.0.0"
    assert newest(names, pre_release=True) == "v1.1.0-rc.1"
    assert newest(["v2.0.0-rc.1"]) is None
    assert newest([]) is None


@given(st.lists(semver() | st.just("nightly"), max_size=8), st.booleans())
def test_ranked_holds_all_that_count_in_their_order(names: list[str], pre_release: bool) -> None:
    versions = ranked(names, pre_release=pre_release)
    counted = [name for name in names if (v := parse_semver(name)) and (pre_release or v.pre_release is None)]
    assert sorted(version.text for version in versions) == sorted(counted)
    for higher, lower in itertools.pairwise(versions):
        assert higher >= lower
    for version in versions:
        equal = [other.text for other in versions if other == version]
        assert equal == [name for name in counted if read(name) == version]


@st.composite
def calendar(draw: st.DrawFn) -> tuple[int, int, int, str]:
    """(year, month, micro) and the version of them."""
    year, month, micro = draw(st.integers(1000, 9999)), draw(st.integers(1, 12)), draw(st.integers(0, 10**20))
    return year, month, micro, f"{draw(st.sampled_from(['', 'v']))}{year}.{month:02}.{micro}"


@given(calendar(), calendar())
def test_calendar_versions_are_ordered_as_their_dates(
    one: tuple[int, int, int, str], two: tuple[int, int, int, str]
) -> None:
    calver = CalVer("YYYY.0M.MICRO")
    low, high = calver.parse(one[3]), calver.parse(two[3])
    assert low is not None and high is not None
    assert (low < high) == (one[:3] < two[:3]) and (low == high) == (one[:3] == two[:3])


# -- calendar versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "older", "newer"),
    [
        ("YYYY.0M.MICRO", "2024.12.9", "2025.01.0"),
        ("YYYY.MM.MICRO", "2024.9.2", "v2024.10.0"),
        ("YY.0M", "24.04", "24.10"),
        ("0Y.0W", "09.52", "10.01"),
        ("YYYY-MM-DD", "2026-1-31", "2026-2-1"),
        ("YYYY.WW.MICRO", "2026.9.10", "2026.10.0"),
        ("YYYY0M0D", "20260131", "20260201"),
        ("release/YYYY.MICRO", "release/2026.9", "release/2026.10"),
        ("YYYY.MICRO", "2026.1-rc.2", "2026.1"),
        ("YYYY.MICRO", "2026.1-rc.2", "2026.1-rc.10"),
    ],
)
def test_calendar_versions(form: str, older: str, newer: str) -> None:
    calver = CalVer(form)
    low, high = calver.parse(older), calver.parse(newer)
    assert low is not None
    assert high is not None
    assert low < high
    assert newest([older, newer, "other"], calver=calver, pre_release=True) == newer


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("YYYY.0M.MICRO", "2024.1.0"),  # 0M has two digits
        ("YYYY.0M.MICRO", "24.01.0"),
        ("YYYY.0M.MICRO", "2024-01-0"),  # the dot is a dot
        ("YYYY.0M", "2024.01.0"),
        ("YYYY.MICRO", "x2024.1"),
        ("YYYY.MICRO", "2024.1\n"),
    ],
)
def test_what_does_not_have_the_format(form: str, text: str) -> None:
    assert CalVer(form).parse(text) is None


def test_a_format_says_what_is_wrong_with_it() -> None:
    with pytest.raises(InvalidFormat, match="calver format is empty"):
        CalVer("")
    with pytest.raises(InvalidFormat, match=r"calver format 'x\.y' contains no valid specifiers \(expected YYYY, 0Y"):
        CalVer("x.y")


@given(st.text("YM0DWICRO.-v/x[(*", max_size=20), st.text(max_size=20))
def test_any_format_is_read_or_refused(form: str, text: str) -> None:
    try:
        calver = CalVer(form)
    except InvalidFormat as error:
        assert "\n" not in str(error)
    else:
        version = calver.parse(text)
        assert version is None or version.text == text


# -- slots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("v1.2.3+blue", None, "blue"),
        ("v1.2.3-rc.1+blue.7", None, "blue.7"),
        ("v1.2.3", None, ""),
        ("nightly", None, ""),
        ("2026.01.5+green", "YYYY.0M.MICRO", "green"),
        ("1.2.3+blue", "YYYY.0M", "blue"),  # no such calendar version, but a semantic one
    ],
)
def test_the_slot_is_the_build_metadata(name: str, form: str | None, expected: str) -> None:
    assert slot(name, CalVer(form) if form else None) == expected
