"""The contract, against every store of `conftest.STORES`."""

from __future__ import annotations

import pytest

from kvcache.conformance import CONTRACT, Check
from kvcache.kvs import Store


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.name)
def test_contract(store: Store, check: Check) -> None:
    check.verify(store)
    assert list(store.list()) == [], "the check left something behind"
