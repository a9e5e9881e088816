"""Registry URLs are checked before anything starts; answers are those of Dewy v2."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.errors import ArtifactNotFound, ConfigError
from dewy.registry import Announced, InvalidAnswer, Pending, Platform, artifact_not_found, open_registry
from dewy.registry.base import answer_id, artifact_pending, parse_time, published, report_text, time_text
from kvcache import LoadContext, SharedCache, UpstreamUnavailable, open_store

LINUX = Platform("linux", "amd64", "gnu")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "expected scheme://place"),
        ("owner/repo", "expected scheme://place"),
        ("://owner/repo", "expected scheme://place"),
        ("GHR://owner/repo", "expected scheme://place"),
        ("http://github.com/o/r", "unsupported registry: expected ghr://, s3://, gs://, grpc:// or file://"),
        ("ghr://", "repository: '': expected ghr://owner/repo"),
        ("ghr://owner", "repository: 'owner': expected ghr://owner/repo"),
        ("ghr://owner/", "expected ghr://owner/repo"),
        ("ghr:///repo", "expected ghr://owner/repo"),
        ("ghr://owner/repo/more", "expected ghr://owner/repo"),
        ("ghr://owner/..", "expected ghr://owner/repo"),
        ("ghr://own er/repo", "expected ghr://owner/repo"),
        ("ghr://owner/re%2Fpo", "expected ghr://owner/repo"),
        ("ghr://user:hunter2@owner/repo", "credentials come from the environment"),
        ("ghr://owner/repo#x", "expected no fragment"),
        ("ghr://owner/repo?prerelease=true", "'prerelease': expected artifact, calver, pre-release"),
        ("ghr://owner/repo?pre-release=maybe", "pre-release: 'maybe': expected true or false"),
        ("ghr://owner/repo?pre-release=TrUe", "pre-release: 'TrUe': expected true or false"),
        ("ghr://owner/repo?artifact=a&artifact=b", "'artifact': expected only once"),
        ("ghr://owner/repo?artifact=a;pre-release=true", "expected % before two hexadecimal digits, and &"),
        ("ghr://owner/repo?artifact=%zz", "expected % before two hexadecimal digits, and &"),
        ("ghr://owner/repo?calver=nothing", "calver format 'nothing' contains no valid specifiers"),
        ("ghr://owner/repo\n", "expected a URL without control characters"),
        ("file://", "directory: '': expected file:///absolute/dir"),
        ("file:///", "directory: '/': expected file:///absolute/dir"),
        ("file://relative/dir", "directory: 'relative/dir': expected file:///absolute/dir"),
        ("file:///dir?report=perhaps", "report: 'perhaps': expected true or false"),
        ("file:///dir?owner=x", "'owner': expected artifact, calver, pre-release, report"),
    ],
)
def test_a_wrong_url_is_an_error_in_one_line(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_registry(url, env={}, platform=LINUX)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith(("--registry: ", "--calver: "))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"GITHUB_API_URL": "github.example.com"}, "GITHUB_API_URL: expected a URL such as"),
        ({"GITHUB_ENDPOINT": "ftp://github.example.com"}, "GITHUB_ENDPOINT: expected a URL such as"),
        ({"GITHUB_API_URL": "https://user:hunter2@ghe/api/v3"}, "GITHUB_API_URL: expected no user, password"),
        ({"GITHUB_API_URL": "https://ghe/api/v3?token=hunter2"}, "GITHUB_API_URL: expected no user, password"),
        ({"GH_TOKEN": "two words hunter2"}, "GH_TOKEN: expected a token of printable ASCII"),
        ({"GITHUB_TOKEN": "hunter2\r\nX-Evil: 1"}, "GITHUB_TOKEN: expected a token of printable ASCII"),
        ({"HTTPS_PROXY": "nonsense://"}, "HTTPS_PROXY: expected a proxy"),
        ({"SSL_CERT_FILE": "/no/such/file"}, "SSL_CERT_FILE: '/no/such/file': expected readable certificates"),
    ],
)
def test_a_wrong_environment_is_an_error_in_one_line(env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_registry("ghr://owner/repo", env=env, platform=LINUX)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_calver_option_is_found_whatever_the_scheme() -> None:
    for url in ("ghr://owner/repo", "file:///dir"):
        with pytest.raises(ConfigError, match=r"^--calver: calver format"):
            open_registry(url, calver="x.y.z", env={}, platform=LINUX)


@pytest.mark.parametrize(
    "word", ["1", "t", "T", "true", "True", "TRUE", "on", "0", "f", "F", "false", "False", "FALSE"]
)
def test_the_words_for_true_and_false_are_go_s(word: str) -> None:
    open_registry(f"ghr://owner/repo?pre-release={word}", env={}, platform=LINUX).close()


# -- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "calver", "env", "scope"),
    [
        ("ghr://owner/repo", None, {}, "ghr://owner/repo"),
        ("ghr://owner/repo", None, {"GH_TOKEN": "x"}, "ghr://owner/repo"),
        ("ghr://owner/repo", None, {"GITHUB_API_URL": "https://API.github.com"}, "ghr://owner/repo"),
        ("ghr://owner/repo?artifact=a", None, {"GITHUB_ARTIFACT": "b"}, "ghr://owner/repo?artifact=a"),
        ("ghr://owner/repo", None, {"GITHUB_ARTIFACT": "b"}, "ghr://owner/repo?artifact=b"),
        ("ghr://owner/repo", "YYYY.MICRO", {}, "ghr://owner/repo?calver=YYYY.MICRO"),
        (
            "ghr://owner/repo",
            None,
            {"GITHUB_ENDPOINT": "https://ghe.example/api/v3/"},
            "ghr://owner/repo?github-api-url=https%3A%2F%2Fghe.example%2Fapi%2Fv3%2F",
        ),
        (
            "ghr://owner/repo",
            None,
            {"GITHUB_ENDPOINT": "https://other.example", "GITHUB_API_URL": "https://ghe.example"},
            "ghr://owner/repo?github-api-url=https%3A%2F%2Fghe.example%2F",
        ),
        ("file:///srv/app", None, {}, "file:///srv/app?host=web-1"),
    ],
)
def test_what_is_in_force_makes_the_scope(url: str, calver: str | None, env: dict[str, str], scope: str) -> None:
    """C8."""
    registry = open_registry(url, calver=calver, env=env, platform=LINUX, hostname="web-1")
    assert registry.scope == scope
    registry.close()


def test_musl_has_a_scope_of_its_own_unless_the_artifact_is_named() -> None:
    alpine = Platform("linux", "amd64", "musl")
    assert open_registry("ghr://o/r", env={}, platform=alpine).scope == "ghr://o/r?libc=musl"
    assert open_registry("ghr://o/r?artifact=a", env={}, platform=alpine).scope == "ghr://o/r?artifact=a"


# -- answers ----------------------------------------------------------------------------------------------------------

ANNOUNCED = Announced(
    id="20260501T000000Z",
    tag="v1.2.3+blue",
    artifact_url="ghr://o/r/tag/v1.2.3+blue/app_linux_amd64.tar.gz",
    created_at=datetime(2026, 4, 30, 1, 2, 3, tzinfo=UTC),
    slot="blue",
    digest="sha256:" + "0" * 64,
    size=7,
    asset=42,
)


def test_an_answer_has_v2_s_fields_in_v2_s_order() -> None:
    assert json.dumps(ANNOUNCED.to_value(), separators=(",", ":")) == (
        '{"ID":"20260501T000000Z","Tag":"v1.2.3+blue",'
        '"ArtifactURL":"ghr://o/r/tag/v1.2.3+blue/app_linux_amd64.tar.gz",'
        '"CreatedAt":"2026-04-30T01:02:03Z","Slot":"blue"}'
    )
    assert ANNOUNCED.extra() == {"digest": "sha256:" + "0" * 64, "size": 7, "asset": 42}
    assert (ANNOUNCED.name, ANNOUNCED.key) == ("app_linux_amd64.tar.gz", "v1.2.3+blue--app_linux_amd64.tar.gz")


def test_an_answer_is_read_again() -> None:
    assert Announced.from_value(ANNOUNCED.to_value(), ANNOUNCED.extra()) == ANNOUNCED


def test_answers_of_v2_are_read() -> None:
    value = {
        "ID": "x",
        "Tag": "v1",
        "ArtifactURL": "s3://r/b/v1/app.tar.gz?endpoint=http://h:9000/p",
        "CreatedAt": None,
    }
    announced = Announced.from_value(value)
    assert announced == Announced("x", "v1", value["ArtifactURL"] or "", None)
    assert announced.name == "app.tar.gz"
    lower = {"id": "x", "tag": "v1", "artifacturl": "ghr://o", "createdat": "2026-05-01T09:00:00.123456789+09:00"}
    assert Announced.from_value(lower).created_at == datetime(2026, 5, 1, 0, 0, 0, 123456, UTC)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["ID", "Tag", "ArtifactURL", "CreatedAt", "Slot", "digest", "size", "asset", "pending"])


@given(json_values | st.dictionaries(fields, json_values), json_values | st.dictionaries(fields, json_values))
def test_whatever_lies_under_the_key_is_an_answer_or_refused(value: Any, extra: Any) -> None:
    Pending.from_extra(extra)
    try:
        announced = Announced.from_value(value, extra)
    except InvalidAnswer as error:
        assert "\n" not in str(error)
    else:
        json.dumps([announced.to_value(), announced.extra()])
        assert announced.size is None or announced.size >= 0


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=9)))).filter(lambda moment: 1 < moment.year < 9999))
def test_times_are_read_as_they_were_written(moment: datetime) -> None:
    text = time_text(moment)
    assert parse_time(text) == moment
    assert text.endswith("Z")
    assert not text.endswith(("0Z", ".Z")) or "." not in text


@pytest.mark.parametrize("text", [None, 7, "", "soon", "2026-05-01T00:00:00", "0001-01-01T00:00:00Z"])
def test_what_is_no_time(text: Any) -> None:
    assert parse_time(text) is None


def test_ids_and_reports_are_as_v2_writes_them() -> None:
    moment = datetime(2026, 5, 1, 9, 0, 0, 120_000, timezone(timedelta(hours=9)))
    assert answer_id(moment) == "20260501T000000Z"
    assert report_text("Web-1.Example", "server", moment) == (
        "shipped to web-1.example server at 20260501T000000.120000000Z"
    )


# -- a release without an artifact ------------------------------------------------------------------------------------

RELEASED = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WAITING = artifact_pending("", "v2.0.0", RELEASED)


def context(previous: Any = None, extra: Any = None) -> LoadContext:
    return LoadContext(previous, None, extra, time.monotonic() + 10)


def test_the_last_answer_stands_while_a_release_is_pending() -> None:
    loaded = published(WAITING, context(ANNOUNCED.to_value(), ANNOUNCED.extra()), "validator")
    assert Announced.from_value(loaded.value, loaded.extra) == ANNOUNCED
    assert Pending.from_extra(loaded.extra) == WAITING
    assert loaded.validator == "validator"
    error = WAITING.error()
    assert (str(error), error.release_time) == (
        "artifact not found: none for this platform (release v2.0.0, published 2026-05-01T12:00:00Z)",
        RELEASED,
    )
    again = published(ANNOUNCED, context(loaded.value, loaded.extra))
    assert Pending.from_extra(again.extra) is None


@pytest.mark.parametrize("previous", [None, "nonsense", {"Tag": ""}])
def test_without_a_last_answer_it_is_an_error(previous: Any) -> None:
    with pytest.raises(ArtifactNotFound):
        published(WAITING, context(previous))


@pytest.mark.parametrize("release_time", [RELEASED, None])
def test_other_nodes_learn_of_it_with_its_time(release_time: datetime | None) -> None:
    """The failure goes through a real record, as a follower on another node reads it."""

    def load(ctx: LoadContext) -> Any:
        return published(artifact_pending("app.tgz", "v1.0.0-a+b", release_time), ctx)

    with open_store("memory://pending-releases") as store:
        store.delete("key")
        for cache in (SharedCache(store, ttl=30), SharedCache(store, ttl=30)):
            with pytest.raises(UpstreamUnavailable) as caught:
                cache.get("key", load)
            found = artifact_not_found(caught.value)
            assert found is not None
            assert found.release_time == release_time
            assert str(found).startswith("artifact not found: app.tgz (release v1.0.0-a+b")


def test_other_failures_are_no_missing_artifact() -> None:
    assert artifact_not_found(UpstreamUnavailable("x", kind="upstream", failure="artifact not found: x")) is None
