"""`dewy.plan`: the table, and what must hold of every situation."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewy.plan import (
    CRASHES,
    FIRST_BACK_OFF,
    GRACE,
    LONGEST_BACK_OFF,
    Artifact,
    Deploy,
    Fail,
    Failed,
    Missing,
    NoAnswer,
    NotAsked,
    Nothing,
    Now,
    Reason,
    Rejected,
    Restart,
    RollBack,
    Situation,
    Start,
    Wait,
    failed_again,
    plan,
)

NOW = Now(wall=1_000_000.0, mono=100.0)
OLD = Artifact("v1--app.tgz", "v1", digest="aa", size=1)
NEW = Artifact("v2--app.tgz", "v2", digest="bb", size=2)
NEW_AGAIN = Artifact("v2--app.tgz", "v2", digest="cc", size=2)
UNPROVEN = Artifact(NEW.key, NEW.tag, size=3)
DATED = Artifact(NEW.key, NEW.tag, size=2, published=2.0)
UNPROVEN_DATED = Artifact(NEW.key, NEW.tag, size=2, published=1.0)
CRASHED = RollBack(NEW, OLD, "crashed 3 times in a row")
BLUE = Artifact("v2+blue--app.tgz", "v2+blue", slot="blue")


def server(said, deployed=None, running=None, **more) -> Situation:
    return Situation("server", said, deployed, running, **more)


def assets(said, deployed=None, **more) -> Situation:
    return Situation("assets", said, deployed, None, **more)


def uploading(seconds: float) -> Wait:
    return Wait(Reason.UPLOAD_MAY_RUN, seconds)


def soon(artifact: Artifact) -> Failed:
    return Failed(artifact, 1, NOW.mono + 7)


def no(artifact: Artifact) -> tuple[Rejected, ...]:
    return (Rejected(artifact, "bad", 0.0),)


def over(artifact: Artifact) -> Failed:
    return Failed(artifact, 1, NOW.mono)


TABLE = {
    # a fresh node
    "server, fresh": (server(NEW), Deploy(NEW)),
    "assets, fresh": (assets(NEW), Deploy(NEW)),
    "server, fresh, not asked": (server(NotAsked()), Nothing(Reason.NOT_ASKED)),
    "server, fresh, registry down": (server(NoAnswer()), Nothing(Reason.NO_ANSWER)),
    # a start of dewy with something deployed: B3
    "start before asking": (server(NotAsked(), OLD), Start(OLD)),
    "start though the registry is down": (server(NoAnswer(), OLD), Start(OLD)),
    "start though its newest has no artifact": (server(NoAnswer(), OLD, missing=Missing("none", None)), Start(OLD)),
    "start though the slot is another": (server(NEW, OLD, slot="blue"), Start(OLD)),
    "start what is announced": (server(NEW, NEW), Start(NEW)),
    "start while the new one backs off": (server(NEW, OLD, deploy_failed=soon(NEW)), Start(OLD)),
    "start failed a moment ago": (
        server(NoAnswer(), OLD, start_failed=soon(OLD)),
        Nothing(Reason.NO_ANSWER),
    ),
    "start failed a while ago": (server(NoAnswer(), OLD, start_failed=over(OLD)), Start(OLD)),
    "what failed to start does not hold up a new release": (server(NEW, OLD, start_failed=soon(OLD)), Deploy(NEW)),
    "assets start nothing": (assets(NotAsked(), OLD), Nothing(Reason.NOT_ASKED)),
    # steady state
    "server up to date": (server(NEW, NEW, NEW), Nothing(Reason.UP_TO_DATE)),
    "assets up to date": (assets(NEW, NEW), Nothing(Reason.UP_TO_DATE)),
    "registry down": (server(NoAnswer(), OLD, OLD), Nothing(Reason.NO_ANSWER)),
    "server, new": (server(NEW, OLD, OLD), Deploy(NEW)),
    "assets, new": (assets(NEW, OLD), Deploy(NEW)),
    "older is announced": (server(OLD, NEW, NEW), Deploy(OLD)),
    "runs something else than current": (server(NEW, NEW, OLD), Restart(NEW)),
    "restart failed a moment ago": (server(NEW, NEW, OLD, start_failed=soon(NEW)), Nothing(Reason.UP_TO_DATE)),
    # C16: the same tag published again
    "other digest": (server(NEW_AGAIN, NEW, NEW), Deploy(NEW_AGAIN)),
    "no digest known (a record of v2)": (
        server(Artifact(NEW.key, NEW.tag), NEW, NEW),
        Nothing(Reason.UP_TO_DATE),
    ),
    "no digest, other size": (server(UNPROVEN, NEW, NEW), Deploy(UNPROVEN)),
    "same digest, so the size cannot matter": (
        server(Artifact(NEW.key, NEW.tag, digest="bb", size=99), NEW, NEW),
        Nothing(Reason.UP_TO_DATE),
    ),
    # slots
    "our slot": (server(BLUE, OLD, OLD, slot="blue"), Deploy(BLUE)),
    "other slot": (server(BLUE, OLD, OLD, slot="green"), Nothing(Reason.OTHER_SLOT)),
    "no slot announced": (assets(NEW, OLD, slot="green"), Nothing(Reason.OTHER_SLOT)),
    "no slot asked for": (assets(BLUE, OLD), Deploy(BLUE)),
    # back-off after a failure
    "failed a moment ago": (server(NEW, OLD, OLD, deploy_failed=soon(NEW)), Wait(Reason.BACKING_OFF, 7.0)),
    "failed a while ago": (server(NEW, OLD, OLD, deploy_failed=over(NEW)), Deploy(NEW)),
    "another one failed": (server(NEW, OLD, OLD, deploy_failed=soon(BLUE)), Deploy(NEW)),
    "mended and published again": (server(NEW_AGAIN, OLD, OLD, deploy_failed=soon(NEW)), Deploy(NEW_AGAIN)),
    # rejected before
    "rejected": (server(NEW, OLD, OLD, rejected=no(NEW)), Nothing(Reason.REJECTED)),
    "rejected, assets": (assets(NEW, OLD, rejected=no(NEW)), Nothing(Reason.REJECTED)),
    "rejected, while the old one is down": (server(NEW, OLD, rejected=no(NEW)), Start(OLD)),
    "rejected, but there is nothing else": (server(NEW, rejected=no(NEW)), Deploy(NEW)),
    "another one was rejected": (server(NEW, OLD, OLD, rejected=no(BLUE)), Deploy(NEW)),
    "rejected and mended": (server(NEW_AGAIN, OLD, OLD, rejected=no(NEW)), Deploy(NEW_AGAIN)),
    "rejected and published again": (server(DATED, OLD, OLD, rejected=no(UNPROVEN_DATED)), Deploy(DATED)),
    "rejected, of the same date": (assets(DATED, OLD, rejected=no(DATED)), Nothing(Reason.REJECTED)),
    "rejected, and its digest proves it the same": (
        assets(replace(NEW, published=2.0), OLD, rejected=no(replace(NEW, published=1.0))),
        Nothing(Reason.REJECTED),
    ),
    # back to the last good one
    "deployed was rejected": (server(NEW, NEW, NEW, rejected=no(NEW), last_good=OLD), RollBack(NEW, OLD, "bad")),
    "before asking": (server(NotAsked(), NEW, rejected=no(NEW), last_good=OLD), RollBack(NEW, OLD, "bad")),
    "deployed was rejected, nothing to go back to": (server(NEW, NEW, rejected=no(NEW)), Start(NEW)),
    "a pin stands above it": (server(NEW, NEW, rejected=no(NEW), last_good=OLD, pin="v2"), Start(NEW)),
    "crashes while new": (server(NEW, NEW, NEW, last_good=OLD, crashes=CRASHES, on_probation=True), CRASHED),
    "crashes while new, pinned": (
        server(NEW, NEW, NEW, last_good=OLD, crashes=CRASHES, on_probation=True, pin="v2"),
        Nothing(Reason.UP_TO_DATE),
    ),
    "crashes, but ran well": (server(NEW, NEW, NEW, last_good=OLD, crashes=99), Nothing(Reason.UP_TO_DATE)),
    "crashed a little": (
        server(NEW, NEW, NEW, last_good=OLD, crashes=CRASHES - 1, on_probation=True),
        Nothing(Reason.UP_TO_DATE),
    ),
    # pinned
    "pinned to what runs": (server(NEW, OLD, OLD, pin="v1"), Nothing(Reason.PINNED)),
    "pinned to what is new": (server(NEW, OLD, OLD, pin="v2"), Deploy(NEW)),
    "pinned, and down": (server(NEW, OLD, pin="v1"), Start(OLD)),
    "an operator has switched": (server(NEW, OLD, NEW, pin="v1"), Restart(OLD)),
    # grace
    "just published": (assets(NoAnswer(), OLD, missing=Missing("none", NOW.wall - 60)), uploading(GRACE - 60)),
    "just published, after another": (server(OLD, OLD, OLD, missing=Missing("none", NOW.wall)), uploading(GRACE)),
    "the one before it is new here": (assets(OLD, missing=Missing("none", NOW.wall)), Deploy(OLD)),
    "published long ago": (assets(NoAnswer(), OLD, missing=Missing("none", NOW.wall - GRACE)), Fail("none")),
    "published some time": (server(OLD, OLD, OLD, missing=Missing("none", None)), Fail("none")),
    "published in a minute": (assets(NoAnswer(), missing=Missing("none", NOW.wall + 60)), uploading(GRACE + 60)),
    "published next year": (assets(NoAnswer(), missing=Missing("none", NOW.wall + 3e7)), Fail("none")),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    situation, step = TABLE[name]
    assert plan(situation, NOW) == step


# -- what must hold of every situation ---------------------------------------------------------------------------------

artifacts = st.builds(
    Artifact,
    key=st.sampled_from(["v1--a", "v2--a", "v2--b"]),
    tag=st.sampled_from(["v1", "v2"]),
    slot=st.sampled_from(["", "blue", "green"]),
    digest=st.sampled_from([None, "aa", "bb"]),
    size=st.sampled_from([None, 1, 2]),
)
failures = st.none() | st.builds(Failed, artifacts, st.integers(1, 9), st.floats(0, 200))
situations = st.builds(
    lambda mode, running, **more: Situation(mode=mode, running=running if mode == "server" else None, **more),
    mode=st.sampled_from(["server", "assets"]),
    said=st.builds(NotAsked) | st.builds(NoAnswer) | artifacts,
    missing=st.none() | st.builds(Missing, st.just("none"), st.none() | st.floats(0, 2e6)),
    deployed=st.none() | artifacts,
    running=st.none() | artifacts,
    slot=st.sampled_from(["", "blue"]),
    deploy_failed=failures,
    start_failed=failures,
    pin=st.sampled_from([None, "v1", "v2"]),
    rejected=st.lists(st.builds(Rejected, artifacts, st.just("bad"), st.just(0.0)), max_size=2).map(tuple),
    last_good=st.none() | artifacts,
    crashes=st.integers(0, 5),
    on_probation=st.booleans(),
)


@given(situations)
def test_every_step_is_warranted(situation: Situation) -> None:
    step = plan(situation, NOW)
    match step:
        case Deploy(artifact):
            assert artifact == situation.said
            assert situation.slot in ("", artifact.slot)
            assert situation.deployed is None or not artifact.is_same(situation.deployed)
            failed = situation.deploy_failed
            assert failed is None or not failed.artifact.is_same(artifact) or failed.retry_at <= NOW.mono
            assert situation.pin in (None, artifact.tag)
            assert situation.deployed is None or situation.why_rejected(artifact) is None
        case Start(artifact):
            assert situation.mode == "server"
            assert artifact == situation.deployed
            assert situation.running is None
        case Restart(artifact):
            assert situation.mode == "server"
            assert artifact == situation.deployed
            assert situation.running is not None and not situation.running.is_same(artifact)
        case RollBack(artifact, to, _):
            assert artifact == situation.deployed and to == situation.last_good and not to.is_same(artifact)
            assert artifact.tag != situation.pin
        case Wait(_, seconds):
            assert seconds > 0


@given(situations)
def test_a_server_that_can_run_does_not_idle(situation: Situation) -> None:
    """B3: whatever the registry says, what is deployed runs, unless it failed to a moment ago or is being replaced."""
    can_start = situation.start_failed is None or situation.start_failed.retry_at <= NOW.mono
    if situation.mode == "server" and situation.deployed is not None and situation.running is None and can_start:
        assert isinstance(plan(situation, NOW), Start | Deploy | RollBack)


@given(situations)
def test_a_pin_is_kept(situation: Situation) -> None:
    """Nothing takes a node away from the tag that an operator wants it at."""
    if situation.deployed is not None and situation.pin == situation.deployed.tag:
        match plan(situation, NOW):
            case Deploy(artifact):  # published again
                assert artifact.tag == situation.pin
            case RollBack():
                raise AssertionError("left a pinned release")
            case _:
                pass


@given(situations, st.floats(0, 1e6))
def test_waiting_ends(situation: Situation, later: float) -> None:
    """A Wait is over after its seconds, and not before."""
    step = plan(situation, NOW)
    if isinstance(step, Wait):
        then = Now(NOW.wall + later, NOW.mono + later)
        assert isinstance(plan(situation, then), Wait) == (later < step.seconds) or abs(later - step.seconds) < 1e-3


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_back_off_grows_to_a_limit(count: int, chance: float) -> None:
    failed = None
    for _ in range(count):
        failed = failed_again(failed, NEW, 100.0, chance)
    assert failed is not None and failed.count == count
    wait = failed.retry_at - 100.0
    longest = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** (count - 1))
    assert longest / 2 <= wait <= longest


def test_another_artifact_begins_anew() -> None:
    often = Failed(OLD, 9, 0.0)
    assert failed_again(often, NEW, 0.0, 0.0) == Failed(NEW, 1, FIRST_BACK_OFF / 2)
    assert failed_again(Failed(NEW, 9, 0.0), NEW_AGAIN, 0.0, 0.0).count == 1
