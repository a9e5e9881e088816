"""The contract behind faults: no promise is called broken because the network failed, none kept that is not."""

from __future__ import annotations

import re

import pytest

from kvcache.conformance import contract, examine
from kvcache.conformance.command import Examination
from kvcache.conformance.relay import relayed, through
from kvcache.conformance.run import open_unprobed
from kvcache.errors import InvalidURL
from tests.conformance.subjects import url_of
from tests.conformance.test_command import run
from tests.conformance.test_servers import CREATE, FINDS, HISTORY, MATCH
from tests.proxy import DelayReply, DelayRequest, DropReply, DropRequest, Duplicate, Fault, HttpProxy, TcpProxy, storm

RACES = CREATE | MATCH | HISTORY | {"create_again", "match", "no_torn_read", "delete", "read_what_was_written"}
CHECKS = [check for check in contract(faults=True) if check.name in RACES]
FEW = [check for check in CHECKS if check.name in {"create_only", "stale", "create_race", "match_race", "linearizable"}]
soak = pytest.mark.soak
ATTEMPTS = 6
SHARE = 0.04
TCP = [
    Fault(DropRequest(), probability=SHARE / 3),
    Fault(DropReply(), probability=SHARE / 3),
    Fault(DropReply(reset=True), probability=SHARE / 3),
]
DEFECTS = {name: broken for name, (broken, _) in FINDS.items() if name in ("nanio", "localbucket")}
pytestmark = pytest.mark.servers


def http_storm(style):
    """All but what sends a request twice or late: such a write may land over its successor, whatever the store is."""
    late = (Duplicate, DelayRequest, DelayReply)
    return [fault for fault in storm(style, SHARE, delay=0.1) if not isinstance(fault.action, late)]


def found(request, name, checks):
    """Outcome and evidence by check, of the server behind the project's fault proxy; and how often that acted."""
    server = request.getfixturevalue(name)
    for variable, value in getattr(server, "env", {}).items():
        request.getfixturevalue("monkeypatch").setenv(variable, value)
    plan = TCP if name == "redis" else http_storm("plain" if name == "consul" else "s3")
    proxy_of = TcpProxy if name == "redis" else HttpProxy
    with proxy_of(server.port) as proxy, open_unprobed(through(url_of(server), proxy.port)) as store:
        proxy.follow(plan, seed=7)
        findings = examine(store, checks, attempts=ATTEMPTS, time_limit=200)
        acted = sum(entry.action is not None for entry in proxy.journal)
        proxy.plan = []
    return {finding.check.name: (finding.outcome, finding.evidence) for finding in findings}, acted


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        pytest.param("redis", CHECKS, id="redis"),
        pytest.param("consul", FEW, id="consul"),
        pytest.param("seaweedfs", FEW, id="seaweedfs", marks=soak),
        pytest.param("consul", CHECKS, id="consul, all", marks=soak),
        pytest.param("seaweedfs", CHECKS, id="seaweedfs, all", marks=soak),
    ],
)
def test_a_mere_fault_is_no_broken_promise(request, name, checks):
    findings, acted = found(request, name, checks)
    assert acted > 5
    assert {check: it for check, it in findings.items() if it[0] == "broken"} == {}
    decided = [check for check, (outcome, _) in findings.items() if outcome == "kept"]
    assert len(decided) > len(findings) * 2 / 3, findings


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        pytest.param("nanio", FEW, id="nanio"),
        pytest.param("nanio", CHECKS, id="nanio, all", marks=soak),
        pytest.param("localbucket", CHECKS, id="localbucket", marks=soak),
    ],
)
def test_faults_hide_no_defect(request, name, checks):
    findings, _ = found(request, name, checks)
    outcomes = {findings[check][0] for check in DEFECTS[name] & findings.keys()}
    assert "kept" not in outcomes, findings
    assert "broken" in outcomes, findings


def test_the_relay_loses_requests_and_replies_from_when_it_is_told_to(redis):
    with Examination(url_of(redis), seed=1, through_faults=True) as examination:
        examination.checks = tuple(check for check in examination.checks if check.name in RACES)
        assert examination.store.write("kvcache-contract/x", b"x")  # no storm yet
        examination.store.delete("kvcache-contract/x")
        report = examination.run(time_limit=120)
    assert report.counts["broken"] == 0, report
    assert report.counts["kept"] > 10
    assert report.lost is not None and min(report.lost["requests"], report.lost["replies"]) > 5


@soak
def test_the_command_brings_its_own_faults(redis):
    code, out, err = run(url_of(redis), "--seed", "1", "--through-faults", "--time-limit", "120")
    assert err == ""
    assert " behind faults, at most " in out
    assert "BROKEN" not in out
    lost = re.search(r"(\d+) requests and (\d+) replies lost on purpose", out)
    assert lost and min(map(int, lost.groups())) > 10
    assert code == ("Undecided" in out.splitlines()[-1]), out
    assert len(re.findall(r"(?m)^kept ", out)) > 40


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "file:///tmp/x",
        "rediss://user:secret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?cluster=true",
        "consul://127.0.0.1:1/p?scheme=https",
        "s3://eu-central-1/bucket/p",
        "s3://eu-central-1/bucket/p?endpoint=https://127.0.0.1:1",
    ],
)
def test_where_there_is_no_plain_connection_there_are_no_faults(url):
    with pytest.raises(InvalidURL, match="--through-faults: expected a store on one server") as caught:
        Examination(url, through_faults=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "by_way_of_a_relay"),
    [
        ("redis://u:p%40@[::1]:7/3?prefix=x/", "redis://u:p%40@127.0.0.1:99/3?prefix=x/"),
        ("redis://host", "redis://127.0.0.1:99"),
        ("consul://host:8500/p?dc=x", "consul://127.0.0.1:99/p?dc=x"),
        ("s3://r/b/p?endpoint=http://h:1&check=off", "s3://r/b/p?check=off&endpoint=http://127.0.0.1:99"),
        ("gs://b/p?endpoint=http://h:1", "gs://b/p?endpoint=http://127.0.0.1:99"),
    ],
)
def test_a_url_by_way_of_a_relay(url, by_way_of_a_relay):
    assert through(url, 99) == by_way_of_a_relay
    relayed(url, seed=1)
