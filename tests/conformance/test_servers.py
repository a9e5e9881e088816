"""Servers that are known to ignore conditions are found out, for the right reason; the others are not accused."""

from __future__ import annotations

import contextlib

import pytest

from kvcache.conformance.command import Examination
from kvcache.errors import InvalidURL
from tests.conformance.subjects import url_of

CREATE = {"create_only", "create_race", "match_of_odd_values"}
MATCH = {"stale", "version_of_another_key", "made_up_version", "vanished", "a_b_a", "match_race", "no_lost_update"}
HISTORY = {"linearizable"}
FINDS = {
    "localbucket": (MATCH, CREATE - {"match_of_odd_values"}),
    "nanio": (CREATE | MATCH | HISTORY, set()),
    "s3rver": (CREATE | MATCH, set()),
    "gcp_emulator": (CREATE | MATCH, set()),
}
"""By server: what must be broken, and what must not be although it is about conditions."""
QUICK = CREATE | MATCH | HISTORY | {"nothing_there", "delete", "list", "upload_replaces"}


def found(request, name: str) -> dict[str, tuple[str, str]]:
    server = request.getfixturevalue(name)
    for variable, value in getattr(server, "env", {}).items():
        request.getfixturevalue("monkeypatch").setenv(variable, value)
    with Examination(url_of(server), seed=1) as examination:
        examination.checks = tuple(check for check in examination.checks if check.name in QUICK)
        report = examination.run(time_limit=120)
    return {finding.check.name: (finding.outcome, finding.evidence) for finding in report.findings}


@pytest.mark.servers
@pytest.mark.parametrize("name", FINDS)
def test_a_server_that_ignores_conditions_is_found_out(request, name):
    findings = found(request, name)
    must, must_not = FINDS[name]
    assert {check for check in must if findings[check][0] != "broken"} == set(), findings
    assert {check for check in must_not if findings[check][0] != "kept"} == set(), findings
    reasons = "\n".join(evidence for outcome, evidence in findings.values() if outcome == "broken")
    assert "due was Conflict" in reasons
    with contextlib.suppress(KeyError):
        assert "wrote on the same version" in findings["match_race"][1]


@pytest.mark.servers
@pytest.mark.parametrize("name", ["redis", "consul", "fake_gcs", "seaweedfs"])
def test_a_server_that_honours_them_is_not_accused(request, name):
    findings = found(request, name)
    assert {outcome for outcome, _ in findings.values()} == {"kept"}, findings


def test_a_url_that_cannot_be_opened():
    with pytest.raises(InvalidURL):
        Examination("nonsense://")
