"""Store URLs: grammar, what backends ask of them, opening, and that secrets are never shown."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvcache.backends.file import FileStore
from kvcache.backends.memory import MemoryStore
from kvcache.errors import InvalidURL
from kvcache.redaction import is_secret_name, redact
from kvcache.url import StoreURL, open_store, parse_store_url, store_options

# -- grammar ----------------------------------------------------------------------------------------------------------


def test_all_parts() -> None:
    url = parse_store_url("redis://us%65r:p%40ss%2Fword@Host.example:6379/0?prefix=a%2Fb+c&cluster=true")
    assert (url.scheme, url.user, url.password, url.host, url.port) == (
        "redis",
        "user",
        "p@ss/word",
        "Host.example",
        6379,
    )
    assert (url.path, dict(url.params)) == ("/0", {"prefix": "a/b c", "cluster": "true"})
    assert url.segments == ["0"]
    assert url.redacted == "redis://us%65r:***@Host.example:6379/0?prefix=a%2Fb+c&cluster=true"
    assert url.address == "redis://us%65r:p%40ss%2Fword@Host.example:6379/0"


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path"),
    [
        ("", "", "", None, ""),
        ("file://", "file", "", None, ""),
        ("file:///abs/dir", "file", "", None, "/abs/dir"),
        ("file:/abs/dir", "file", "", None, "/abs/dir"),
        ("FILE:///a%20b", "file", "", None, "/a b"),
        ("s3://eu-central-1/bucket/pre%20fix/x", "s3", "eu-central-1", None, "/bucket/pre fix/x"),
        ("gs://my_bucket", "gs", "my_bucket", None, ""),
        ("redis://[::1]:7000/0", "redis", "::1", 7000, "/0"),
        ("redis://[fe80::1%25eth0]", "redis", "fe80::1%25eth0", None, ""),
        ("memory://name", "memory", "name", None, ""),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs", "account.dfs.core.windows.net", None, "/x"),
        ("dir::file:///tmp", "dir", "", None, ""),
        ("zip://inner.txt::file:///tmp/x.zip", "zip", "", None, ""),
    ],
)
def test_forms(text: str, scheme: str, host: str, port: int | None, path: str) -> None:
    url = parse_store_url(text)
    assert (url.scheme, url.host, url.port, url.path) == (scheme, host, port, path)


def test_a_chain_is_left_to_the_library_that_knows_it() -> None:
    assert parse_store_url("dir::file:///tmp?x=1").address == "dir::file:///tmp"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/bare/path", "not a store URL: expected scheme://"),
        ("no-scheme", "not a store URL"),
        ("consul:host:8500", "not a store URL"),
        ("s3://r/b#frag", "write # as %23"),
        ("s3://r/b%zz", "write % as %25"),
        ("s3://r/b%2", "write % as %25"),
        ("s3://r/b?x=%ff", "not UTF-8"),
        ("s3://r/%00", "no NUL"),
        ("s3://r/b\n", "control characters"),
        (" s3://r/b", "blanks"),
        ("redis://h:0", "port is not a number from 1 to 65535"),
        ("redis://h:65536", "port is not a number from 1 to 65535"),
        ("redis://h:", "port is not a number from 1 to 65535"),
        ("redis://h:abc/0", "the host is not a name"),
        ("redis://::1/0", "the host is not a name"),
        ("redis://[::1/0", "the host is not a name"),
        ("redis://u:p/w@h/0", "where the password ends is not clear"),
        ("redis://u:p@w@h/0?prefix=a@b", "where the password ends is not clear"),
        ("redis://u:1?2@h/0", "where the password ends is not clear"),
        ("s3://r/b?a=1&a=2", "parameter 'a' is given twice"),
        ("s3://r/b?a=1&%61=2", "parameter 'a' is given twice"),
    ],
)
def test_malformed(text: str, says: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_store_url(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
@example("a://[::1]:80@x?=&=&%41=")
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        url = parse_store_url(text)
    except InvalidURL as error:
        assert "\n" not in str(error)
    else:
        assert url.path == "" or url.path.startswith("/")


# -- what backends ask ------------------------------------------------------------------------------------------------


def test_parameters_of_each_kind() -> None:
    url = parse_store_url("x://h?on=yes&off=0&n=5&how=flock&for=1m30s&size=64MiB&text=a&empty=")
    assert (url.take_bool("on"), url.take_bool("off"), url.take_bool("absent")) == (True, False, False)
    assert url.take_bool("absent", True) is True
    assert url.take_int("n", None, least=0, most=5) == 5
    assert url.take_choice("how", ("none", "flock"), "none") == "flock"
    assert (url.take_duration("for", None), url.take_size("size", None)) == (90.0, 64 * 1024 * 1024)
    assert (url.take_text("text", None), url.take_text("empty", "default")) == ("a", "default")
    for absent in (
        url.take_int("absent", None, least=0, most=5),
        url.take_choice("absent", ("a",), None),
        url.take_duration("empty", None),
        url.take_size("absent", None),
    ):
        assert absent is None


@pytest.mark.parametrize(
    ("query", "ask", "says"),
    [
        ("a=maybe", lambda url: url.take_bool("a"), "a: 'maybe': expected true or false"),
        ("a=", lambda url: url.take_bool("a"), "a: '': expected true or false"),
        ("a=6", lambda url: url.take_int("a", 0, least=1, most=5), "a: '6': expected a whole number from 1 to 5"),
        ("a=-1", lambda url: url.take_int("a", 0, least=1, most=5), "expected a whole number"),
        ("a=x", lambda url: url.take_choice("a", ("no", "yes"), "no"), "a: 'x': expected no or yes"),
        ("a=30", lambda url: url.take_duration("a", 0.0), "a: '30': expected a duration such as 30s, 1m30s"),
        ("a=-1s", lambda url: url.take_duration("a", 0.0), "a: '-1s': expected a duration that is not negative"),
        ("a=64M", lambda url: url.take_size("a", 0), "a: '64M': expected a size such as 64MiB"),
        ("a=1%20x", lambda url: url.take_size("a", 0), "a: '1 x': expected a size"),
        ("token=bad", lambda url: url.take_bool("token"), "token: ***: expected true or false"),
        ("a=1", lambda url: url.require("bucket", "", "gs://<bucket>/<prefix>"), "bucket is required: gs://<bucket>"),
        (
            "typo=1",
            lambda url: url.reject_unknown({"endpoint"}),
            "unknown parameter 'typo': x takes endpoint, max-size",
        ),
    ],
)
def test_a_wrong_part_names_the_value_and_the_accepted_form(query: str, ask: object, says: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        ask(parse_store_url(f"x://h/p?{query}"))  # type: ignore[operator]
    assert says in str(caught.value)
    assert str(caught.value).startswith("x://h/p?")
    assert "\n" not in str(caught.value)


def test_every_url_takes_the_common_parameters() -> None:
    url = parse_store_url("x://h?registry-ttl=30s&max-size=1GiB")
    url.reject_unknown(())
    assert (store_options(url).registry_ttl, store_options(url).max_size) == (30.0, 1024**3)
    default = store_options("file://")
    assert (default.registry_ttl, default.max_size) == (None, 64 * 1024 * 1024)
    assert store_options("file://?registry-ttl=0").registry_ttl is None
    assert store_options("file://?registry-ttl=").registry_ttl is None
    with pytest.raises(InvalidURL, match="registry-ttl: '30': expected a duration"):
        store_options("s3://r/b?registry-ttl=30")


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("file:///a/b?registry-ttl=30s", "file:///a/b?registry-ttl=30s"),
        ("redis://h:6379/0?prefix=a:b", "redis://h:6379/0?prefix=a:b"),
        ("redis://user@h/0", "redis://user@h/0"),
        ("redis://:secret@h/0", "redis://:***@h/0"),
        ("redis://u:secret@h/0", "redis://u:***@h/0"),
        ("redis://u:se/c?r#e@t@h/0", "redis://u:***@h/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://u:secret@[::1]:6379/0", "redis://u:***@[::1]:6379/0"),
        ("https://ghp_token@h/x", "https://***@h/x"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("s3://r/b?key=a&secret=b&token=c&x=d", "s3://r/b?key=***&secret=***&token=***&x=d"),
        ("s3://r/b?endpoint=http://u:secret@h:9000&a=b", "s3://r/b?endpoint=http://u:***@h:9000&a=b"),
        ("s3://r/b?endpoint=http%3A%2F%2Fu%3Asecret%40h", "s3://r/b?endpoint=http://u:***@h"),
        ("https://h/x?X-Amz-Signature=abc&X-Amz-Date=1", "https://h/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("x://h?client%5Fsecret=abc", "x://h?client%5Fsecret=***"),
        ("not a url?password=abc", "not a url?password=***"),
        ("x://h?sig=a;b", "x://h?sig=***"),
        ("x://h?a=b;sig=c", "x://h?a=b;sig=***"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "name", ["key", "AWSAccessKeyId", "secret", "client_secret", "X-Amz-Credential", "sig", "apikey"]
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["prefix", "endpoint", "design", "passive", "monkey", "registry-ttl", "author", "expire"]
)
def test_names_that_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


ASCII = st.text(st.characters(codec="ascii", exclude_characters="*", exclude_categories=["Cc"]), max_size=10)
SECRET = st.builds("{}Xq7z{}".format, ASCII, ASCII)  # which no message of ours contains


@settings(max_examples=300, deadline=None)
@given(SECRET)
def test_no_password_is_shown_however_it_is_written(secret: str) -> None:
    text = f"redis://user:{secret}@host:6379/0?prefix=x"
    assert secret not in redact(text)
    try:
        url = parse_store_url(text)
    except InvalidURL as error:
        assert secret not in str(error)
    else:
        assert secret not in repr(url) + url.redacted
        assert url.password == unquote(secret)
        for ask in (lambda: url.reject_unknown(()), lambda: url.take_bool("prefix")):
            with pytest.raises(InvalidURL) as caught:
                ask()
            assert secret not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(SECRET.filter(lambda secret: "&" not in secret))
def test_no_secret_parameter_is_shown(secret: str) -> None:
    text = f"s3://eu/bucket?client-secret={secret}&endpoint=x"
    assert f"={secret}" not in redact(text)
    try:
        parse_store_url(text).reject_unknown(())
    except InvalidURL as error:
        assert secret not in str(error)


# -- opening ----------------------------------------------------------------------------------------------------------


def test_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("", "file://", "file://?registry-ttl=30s"):
        assert open_store(url).url == f"file://{tmp_path}/.dewy/cache"
        assert open_store(url, default_dir=tmp_path / "mine").url == f"file://{tmp_path}/mine"
        assert open_store(url, default_dir="relative").url == f"file://{tmp_path}/relative"
    assert open_store(f"file://{tmp_path}/given", default_dir="/other").url == f"file://{tmp_path}/given"
    assert list(tmp_path.iterdir()) == [], "opening a store is no reason to create its directory"


def test_schemes_of_ours(tmp_path: Path) -> None:
    assert isinstance(open_store(f"file:{tmp_path}"), FileStore)
    assert isinstance(open_store(f"file://localhost{tmp_path}"), FileStore)
    assert isinstance(open_store("memory://test-url"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://x", "unknown scheme 'nosuch': expected file, memory, s3, gs"),
        ("file://rel/dir", "host: 'rel': expected none: file:///abs/dir"),
        ("file:///a?locking=maybe", "locking: 'maybe': expected none or flock"),
        ("file:///a?lock=flock", "unknown parameter 'lock': file takes locking, max-size, registry-ttl"),
        ("file:///a?registry-ttl=soon", "registry-ttl: 'soon': expected a duration"),
        ("memory://m?max-size=big", "max-size: 'big': expected a size"),
        ("memory://h:80", "name"),
    ],
)
def test_what_cannot_be_opened(url: str, says: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        open_store(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidURL, match="expected a directory"):
        open_store(f"file://{tmp_path}/file")


def opened_by_entry_point(url: StoreURL) -> MemoryStore:
    return MemoryStore(1000, name=f"third-party-{url.host}")


def opens_without_its_library(url: StoreURL) -> MemoryStore:
    import a_client_library_that_is_not_installed  # noqa: F401 - that it is missing is the test

    raise AssertionError


def _with_entry_point(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    point = EntryPoint("thirdparty", f"{__name__}:{function}", "kvcache.stores")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: EntryPoints([point]).select(**wanted))


def test_third_parties_add_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_entry_point(monkeypatch, "opened_by_entry_point")
    assert open_store("thirdparty://x").url == "memory://third-party-x"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_entry_point(monkeypatch, "opens_without_its_library")
    with pytest.raises(InvalidURL, match="a package for thirdparty:// is missing: install a_client_library"):
        open_store("thirdparty://x")


def test_a_missing_package_of_ours_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: StoreURL) -> None:
        raise ModuleNotFoundError("No module named 's3fs'", name="s3fs")

    monkeypatch.setattr("kvcache.url._opener", lambda url: missing)
    with pytest.raises(InvalidURL) as caught:
        open_store("s3://eu/bucket")
    assert str(caught.value).endswith("a package for s3:// is missing: pip install 'kvcache-dewy[s3]'")


def test_opening_a_local_store_imports_no_client_library() -> None:
    program = (
        "import sys, kvcache.url as u; u.open_store('memory://'); u.open_store('file:///tmp');"
        "print([m for m in ('fsspec', 's3fs', 'gcsfs', 'redis', 'urllib3', 'click') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
