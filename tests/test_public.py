"""The public surface: what `kvcache` exports, what each name is, who may use what, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kvcache
from kvcache.url import SCHEMES

ROOT = Path(kvcache.__file__).parents[1]
EVENTS = "kvcache.events"
"""The one module beside the package itself that users import from: for `on_event`."""

SURFACE = {
    # stores
    "open_store": "(url: 'str | StoreURL', *, default_dir: 'str | os.PathLike[str] | None' = None) -> 'Store'",
    "Store": "class",
    "Stored": "(data: 'bytes', version: 'Version', store_time: 'float | None' = None) -> None",
    "Stat": "(size: 'int', version: 'Version', modified: 'float | None' = None) -> None",
    "Version": "(token: 'str') -> None",
    "ABSENT": "constant",
    "ANYWAY": "constant",
    "Match": "type",
    "Condition": "type",
    "Progress": "type",
    "Source": "type",
    "AsyncAccess": "class",
    "Capabilities": "class",
    "check_key": "(key: 'str') -> 'str'",
    # URLs
    "StoreURL": "class",
    "StoreOptions": "class",
    "parse_store_url": "(text: 'str') -> 'StoreURL'",
    "store_options": "(url: 'str | StoreURL') -> 'StoreOptions'",
    "parse_duration": "(text: 'str', *, plain_seconds: 'bool' = False) -> 'float'",
    "format_duration": "(seconds: 'float') -> 'str'",
    "parse_size": "(text: 'str') -> 'int'",
    "redact": "(url: 'str') -> 'str'",
    "scrub": "(text: 'str', limit: 'int' = 500) -> 'str'",
    "is_secret_name": "(name: 'str') -> 'bool'",
    # shared answers
    "SharedCache": "class",
    "AsyncSharedCache": "class",
    "Result": "class",
    "Load": "type",
    "AsyncLoad": "type",
    "LoadContext": "(previous: 'Any', validator: 'Any', extra: 'Any', deadline: 'float') -> None",
    "Loaded": "(value: 'T', validator: 'Any' = None, extra: 'Any' = None) -> None",
    "NOT_MODIFIED": "constant",
    "NotModified": "class",
    "cached": "(cache: 'SharedCache | AsyncSharedCache', key: 'str | None' = None, *, codec: 'Codec | None' = None, "
    "compress_above: 'int | None' = None) -> '_Decorator'",
    "Codec": "class",
    # local copies of large values
    "Staging": "class",
    "BadCopy": "class",
    # errors
    "KVCacheError": "Exception",
    "InvalidURL": "KVCacheError",
    "InvalidKey": "KVCacheError",
    "NotFound": "KVCacheError",
    "Conflict": "KVCacheError",
    "Unsupported": "KVCacheError",
    "TooLarge": "KVCacheError",
    "StoreUnavailable": "KVCacheError",
    "Throttled": "StoreUnavailable",
    "AmbiguousWrite": "StoreUnavailable",
    "UpstreamUnavailable": "KVCacheError",
    "UpstreamError": "KVCacheError",
    "CorruptRecord": "KVCacheError",
}
MEMBERS = {
    "Store": "capabilities close delete download list native_async put read read_versioned stat upload url "
    "wait_for_change write write_if",
    "SharedCache": "close get invalidate peek",
    "AsyncSharedCache": "aclose close get invalidate peek",
    "Result": "age count extra index refreshed state value",
    "Capabilities": "atomic_replace conditional_write expires_after max_value_bytes min_write_interval scope "
    "store_time time_resolution unique_versions watch",
}
CACHE = (
    "(self, store: 'Store', ttl: 'Seconds', max_stale: 'Seconds | None' = None, lease: 'Seconds | None' = None, "
    "refresh_ahead: 'float' = 0.0, on_event: 'Observer | None' = None, *, load_timeout: 'Seconds | None' = None, "
    "background: 'bool' = False, local_copy: 'str | os.PathLike[str] | None' = None, max_keys: 'int' = 10000, "
    "clock: 'Clock' = "
)


def test_every_name_is_what_it_was():
    assert len(kvcache.__all__) == len(set(kvcache.__all__))
    assert set(kvcache.__all__) == set(SURFACE)
    assert set(kvcache.__all__) <= set(dir(kvcache))
    for name, what in SURFACE.items():
        found = getattr(kvcache, name)
        if what.startswith("("):
            assert str(inspect.signature(found)) == what, name
        elif what == "class":
            assert inspect.isclass(found), name
        elif what == "constant":
            assert found.name == name
        elif what != "type":
            assert found.__base__.__name__ == what, name


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="has no attribute 'SharedCash'"):
        kvcache.SharedCash  # type: ignore[attr-defined]  # that is the test


@pytest.mark.parametrize("name", MEMBERS)
def test_every_method_is_there_and_says_what_it_does(name):
    kind = getattr(kvcache, name)
    assert sorted(member for member in dir(kind) if not member.startswith("_")) == MEMBERS[name].split()
    for member in MEMBERS[name].split():
        if callable(getattr(kind, member)):
            assert inspect.getdoc(getattr(kind, member)), f"{name}.{member}"


def test_both_caches_take_the_same_arguments():
    for cache in (kvcache.SharedCache, kvcache.AsyncSharedCache):
        assert str(inspect.signature(cache.__init__)).startswith(CACHE)


# -- who imports whom -------------------------------------------------------------------------------------------------


def imports(package: str) -> list[tuple[Path, str, str]]:
    """(file, module, name) of every import statement of a package of ours; name is empty for a whole module."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [(path, alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(path, node.module or "", alias.name) for alias in node.names]
    return found


def test_dewy_uses_public_names_only():
    used = [(path, module, name) for path, module, name in imports("dewy") if module.split(".")[0] == "kvcache"]
    assert used
    for path, module, name in used:
        assert module == EVENTS or (module == "kvcache" and name in {*kvcache.__all__, "events"}), (path, module, name)


def test_kvcache_knows_nothing_of_dewy():
    assert [entry for entry in imports("kvcache") if entry[1].split(".")[0] == "dewy"] == []


# -- what an import costs ---------------------------------------------------------------------------------------------

HEAVY = {
    *("s3fs", "aiobotocore", "botocore", "boto3", "gcsfs", "google", "adlfs", "azure", "aiohttp", "obstore", "redis"),
    *("urllib3", "fsspec", "msgspec", "pydantic", "backports", "compression", "zstandard", "py7zr", "matplotlib"),
}
"""What users install for one store or one command, and nobody else should wait for."""
SLOW = {"asyncio", "concurrent", "logging", "ssl", "http", "importlib.metadata", "multiprocessing"}
"""Parts of the standard library that are not needed to open a store."""


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after `code`, beyond what it starts with."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint('\\n'.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize(
    "code",
    [
        "import kvcache",
        "from kvcache import *",
        "import kvcache; kvcache.SharedCache(kvcache.open_store('memory://'), ttl=1).get('k', lambda ctx: 1)",
        "import kvcache.cli",
        "import dewy.cli",
    ],
)
def test_no_client_is_imported_before_it_is_needed(code):
    modules = modules_after(code)
    assert "kvcache" in modules or "dewy" in modules
    assert heavy(modules) == set()


def test_a_store_does_not_wait_for_what_caches_need():
    modules = modules_after("import kvcache; kvcache.open_store('memory://')")
    assert {name for name in modules if name.split(".")[0] in SLOW or name in SLOW} == set()
    assert "kvcache.protocol" not in modules and "kvcache.backends.memory" in modules


def test_each_store_brings_its_own_client_only():
    brought = heavy(modules_after("import kvcache; kvcache.open_store('redis://localhost:1/0')"))
    assert {name.split(".")[0] for name in brought} == {"redis"}
    brought = heavy(modules_after("import kvcache; kvcache.open_store('consul://localhost:1/x')"))
    assert {name.split(".")[0] for name in brought} <= {"urllib3", "backports", "compression"}  # urllib3 wants zstd


# -- extras -----------------------------------------------------------------------------------------------------------

URLS = {
    "s3": "s3://eu-central-1/bucket?check=off",
    "gs": "gs://bucket?check=off",
    "redis": "redis://localhost:1/0",
    "rediss": "rediss://localhost:1/0",
    "consul": "consul://localhost:1/x",
    "abfs": "abfs://container?check=off",
    "abfss": "abfss://container@account.dfs.core.windows.net?check=off",
    "az": "az://container?check=off",
}


def test_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {scheme for scheme in SCHEMES if SCHEMES[scheme].extra} == set(URLS)
    assert {scheme.extra for scheme in SCHEMES.values()} - {None} <= set(extras)
    (everything,) = extras["all"]
    assert everything == f"{project['name']}[{','.join(extra for extra in extras if extra != 'all')}]"


def test_a_missing_extra_is_named():
    """With all clients hidden at once, as on a machine with the bare library."""
    script = f"""
import json, sys
for name in {sorted(HEAVY)!r}:
    sys.modules[name] = None
import kvcache
said = {{}}
for scheme, url in {URLS!r}.items():
    try:
        kvcache.open_store(url)
    except kvcache.InvalidURL as error:
        said[scheme] = str(error)
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout)
    assert set(said) == set(URLS)
    for scheme, message in said.items():
        install = f"a package for {scheme}:// is missing: pip install 'kvcache-dewy[{SCHEMES[scheme].extra}]'"
        assert message == f"{URLS[scheme]}: {install}"
