"""`pytest --kvcache-store URL`: every promise of the contract as a test of its own, beside the tests of the project.

    pytest --kvcache-store s3://eu-central-1/bucket/scratch
    pytest --kvcache-store URL -k kvcache-contract          only the contract

A broken promise is a failed test with the evidence; one that the store does not offer is tested to be refused; a store
that does not answer is an error of the test. The fixture `kvcache_store` is the same store, for tests of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from kvcache.conformance.check import Check
    from kvcache.conformance.run import Finding
    from kvcache.kvs import Store

GROUP: Final = "kvcache-contract"
_store: pytest.StashKey[Store] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kvcache", "conformance of key-value stores")
    group.addoption("--kvcache-store", metavar="URL", help="Put the whole contract of stores to the store of this URL.")
    group.addoption("--kvcache-seed", metavar="N", type=int, default=0, help="Of what the clients of a race do.")


class BrokenPromise(Exception):
    """The evidence, shown in place of a traceback through the check."""


class Undecided(Exception):
    """Nothing can be said of the promise: the store did not answer, or the check was stopped."""


class Contract(pytest.Collector):
    """The checks, as if they were the tests of a module."""

    def collect(self) -> Iterator[pytest.Item]:
        from kvcache.conformance.contract import contract
        from kvcache.conformance.processes import linearizable_across_processes
        from kvcache.conformance.run import unprobed

        checks: tuple[Check, ...] = contract(self.config.option.kvcache_seed)
        if _opened(self.config).capabilities.scope != "process":
            url = unprobed(self.config.option.kvcache_store)
            checks += (linearizable_across_processes(url, self.config.option.kvcache_seed),)
        for check in checks:
            yield Promise.from_parent(self, name=check.name, check=check)


class Promise(pytest.Item):
    """One check."""

    def __init__(self, *, check: Check, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check

    def runtest(self) -> None:
        from kvcache.conformance.run import examine

        finding: Finding = examine(_opened(self.config), [self.check])[0]
        self.user_properties += [("kvcache_outcome", finding.outcome), ("kvcache_requests", finding.requests)]
        if finding.outcome == "broken":
            raise BrokenPromise(finding.evidence)
        if finding.outcome == "undecided":
            raise Undecided(finding.evidence)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, BrokenPromise):
            return f"{self.check.promise}\n\nThis promise is broken: {excinfo.value}"
        if isinstance(excinfo.value, Undecided):
            return f"{self.check.promise}\n\nThis could not be decided: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return GROUP, None, f"{GROUP}: {self.name}"


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.kvcache_store:
        _opened(config)  # a URL that cannot be opened ends the session here, in one line
        collector = Contract.from_parent(session, name=GROUP, nodeid=GROUP)
        report = session.ihook.pytest_make_collect_report(collector=collector)
        session.ihook.pytest_collectreport(report=report)  # so that the terminal counts them
        items.extend(item for item in report.result if isinstance(item, Promise))


def _opened(config: pytest.Config) -> Store:
    """The store, opened once for the session. A URL that cannot be opened is wrong usage, so pytest ends with 4."""
    from kvcache.conformance.run import open_unprobed
    from kvcache.errors import InvalidURL, StoreUnavailable

    if _store not in config.stash:
        try:
            config.stash[_store] = open_unprobed(config.option.kvcache_store)
        except (InvalidURL, StoreUnavailable) as error:
            raise pytest.UsageError(f"--kvcache-store: {error}") from error
    return config.stash[_store]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _store in config.stash:
        config.stash[_store].close()


@pytest.fixture(scope="session")
def kvcache_store(request: pytest.FixtureRequest) -> Store:
    """The store of `--kvcache-store`."""
    if not request.config.option.kvcache_store:
        raise pytest.UsageError("the fixture kvcache_store needs --kvcache-store URL")
    return _opened(request.config)
