"""What the contract does not ask. The contract itself: `pytest --kvcache-store sqlite:////tmp/values.db`."""

import pytest

import kvcache


def test_it_is_opened_by_its_scheme(tmp_path):
    with kvcache.open_store(f"sqlite://{tmp_path}/values.db") as store:
        store.write("key", b"value")
    with kvcache.open_store(f"sqlite://{tmp_path}/values.db?timeout=1s") as store:
        assert store.read("key") == b"value"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://host/file.db", "host: 'host': expected none"),
        ("sqlite://", "path is required"),
        ("sqlite:///no/such/directory/file.db", "path: '/no/such/directory/file.db': expected a file in a directory"),
        ("sqlite:///tmp/file.db?timeout=soon", "timeout: 'soon': expected a duration"),
        ("sqlite:///tmp/file.db?wal=on", "unknown parameter 'wal'"),
    ],
)
def test_wrong_urls(url, says):
    with pytest.raises(kvcache.InvalidURL, match=says):
        kvcache.open_store(url)


def test_two_caches_share_one_answer(tmp_path):
    calls = []

    def load(ctx):
        calls.append(ctx)
        return "answer"

    for _ in range(2):  # two nodes
        with kvcache.open_store(f"sqlite://{tmp_path}/answers.db") as store:
            assert kvcache.SharedCache(store, ttl=60).get("key", load).value == "answer"
    assert len(calls) == 1


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    (tmp_path / "file.db").write_bytes(b"no database" * 1000)
    with pytest.raises(kvcache.StoreUnavailable, match="not a database"):
        kvcache.open_store(f"sqlite://{tmp_path}/file.db")
