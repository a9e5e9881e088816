"""What this tick has to do. Pure: the clock comes in, a step comes out.

    what is deployed was rejected, or      there is an earlier good one                    -> RollBack to it
    crashes again and again while new
    nothing asked yet, or the registry     server that does not run, something deployed    -> Start   what is deployed
    gave no answer                         else                                            -> Nothing
    announced = deployed                   server that does not run                        -> Start
                                           server that runs something else                 -> Restart
                                           else                                            -> Nothing
    announced, of another slot, or         as if nothing had been announced
    while another tag is pinned
    announced, rejected before             something is deployed: as if nothing were new   -> Nothing (or Start)
    announced, failed before               back-off still running: as if nothing were new  -> Wait    (or Start)
    announced, new                                                                         -> Deploy

and, where that leaves nothing to do, while the newest release has no artifact for this machine

                                           published less than GRACE ago                   -> Wait    for the upload
                                           else                                            -> Fail

A server that does not run starts what it has before anything else is looked at, so that a registry that is down, or
slow, keeps nobody waiting. A release is *rejected* when it failed by its own fault, or an operator left it: it is not
tried again before something about it changes, or an operator says so. What failed for another reason (a full disk)
is tried again after a back-off. So is a rejected release where nothing else is there to run.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from dewy.config import Mode

GRACE: Final = 30 * 60.0
"""Seconds after its publication for which a release without an artifact is one whose upload still runs."""
FIRST_BACK_OFF: Final = 5.0
LONGEST_BACK_OFF: Final = 300.0
CRASHES: Final = 3
"""Crashes in a row after which a release that has not yet run well is left for the last good one."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What tells one artifact from another. `key` is `<tag>--<name>`, `digest` is `sha256:<hex>`, `size` in bytes."""

    key: str
    tag: str
    slot: str = ""
    digest: str | None = None
    size: int | None = None
    published: float | None = None
    """Seconds since the epoch, as the registry tells it."""

    def is_same(self, other: Artifact) -> bool:
        """Whether nothing known of both speaks against it. A tag that was published again with other bytes is not."""
        if self.key != other.key:
            return False
        if self.digest is not None and other.digest is not None:
            return self.digest == other.digest
        return self.size is None or other.size is None or self.size == other.size

    def is_unchanged(self, other: Artifact) -> bool:
        """As `is_same`, but where no digest proves it, another date is a change too.

        Good enough to try once more what was rejected; to replace what runs it would not be, since not every node of
        a mixed fleet reads the same date from the same registry.
        """
        if not self.is_same(other):
            return False
        proven = self.digest is not None and other.digest is not None
        return proven or self.published is None or other.published is None or self.published == other.published


# -- what the registry said -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The tick has not come to it yet."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It failed, here or for the whole fleet, and there is no earlier answer to go by."""


Said: TypeAlias = NotAsked | NoAnswer | Artifact


@dataclass(frozen=True, slots=True)
class Missing:
    """The newest release has no artifact for this machine, so that what was said is no news.

    `released_at` in seconds since the epoch, None where unknown.
    """

    why: str
    released_at: float | None


# -- what went wrong before -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failed:
    """`artifact` failed to deploy (or to start) `count` times in a row; not again before `retry_at` (monotonic)."""

    artifact: Artifact
    count: int
    retry_at: float


def failed_again(before: Failed | None, artifact: Artifact, mono: float, chance: float) -> Failed:
    """The failure of `artifact` now, after what was known `before`. `chance` in [0, 1) spreads the nodes of a fleet."""
    count = before.count + 1 if before is not None and before.artifact.is_same(artifact) else 1
    longest = LONGEST_BACK_OFF if count > 30 else min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2.0 ** (count - 1))
    return Failed(artifact, count, mono + longest * (0.5 + 0.5 * chance))


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not to be deployed again as it is. `at`: when that came to be, in seconds since the epoch."""

    artifact: Artifact
    why: str
    at: float


# -- the situation and the step ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a step depends on, but the time."""

    mode: Mode
    said: Said
    deployed: Artifact | None
    """What `current` points to."""
    running: Artifact | None
    """What the application was last started from, while it is supervised; None: it is not (always, in assets mode)."""
    missing: Missing | None = None
    slot: str = ""
    """Only versions of this slot concern this node; empty: all do."""
    deploy_failed: Failed | None = None
    start_failed: Failed | None = None
    pin: str | None = None
    """The tag that an operator wants this node to stay at."""
    rejected: tuple[Rejected, ...] = ()
    last_good: Artifact | None = None
    """What to go back to; None: there is nothing, or nobody wants that."""
    crashes: int = 0
    """Of the application, in a row."""
    on_probation: bool = False
    """Whether what runs was deployed a short while ago, so that its crashes are its own fault."""

    def why_rejected(self, artifact: Artifact) -> str | None:
        """None: it is not."""
        return next((one.why for one in self.rejected if one.artifact.is_unchanged(artifact)), None)


@dataclass(frozen=True, slots=True)
class Now:
    """`wall`: seconds since the epoch. `mono`: of the monotonic clock."""

    wall: float
    mono: float


class Reason(enum.Enum):
    """Why there is nothing to do, or not yet."""

    NOT_ASKED = "the registry was not asked yet"
    NO_ANSWER = "no answer from the registry"
    UP_TO_DATE = "up to date"
    OTHER_SLOT = "slot mismatch"
    UPLOAD_MAY_RUN = "artifact not found within grace period"
    BACKING_OFF = "failed before, waiting to try again"
    REJECTED = "rejected before"
    PINNED = "another release is pinned"


@dataclass(frozen=True, slots=True)
class Nothing:
    reason: Reason


@dataclass(frozen=True, slots=True)
class Wait:
    """Not for another `seconds`; a later tick looks again."""

    reason: Reason
    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing can be done, and somebody should know."""

    why: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start the application from what is deployed."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Restart:
    """Let what is deployed take over from what runs."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Deploy:
    """Fetch, unpack, switch, and start or let it take over."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class RollBack:
    """Leave what is deployed for the last good release, `to`."""

    artifact: Artifact
    to: Artifact
    why: str


Step: TypeAlias = Nothing | Wait | Fail | Start | Restart | Deploy | RollBack


def plan(situation: Situation, now: Now) -> Step:
    """The next step. Total: every situation has one."""
    step = _way_back(situation) or _step(situation, now)
    return _missing(situation.missing, now) if isinstance(step, Nothing) and situation.missing is not None else step


def _way_back(situation: Situation) -> RollBack | None:
    """From a release that proved bad after it had become the current one; an operator's pin stands above that."""
    deployed, to = situation.deployed, situation.last_good
    if deployed is None or to is None or deployed.tag == situation.pin or to.is_same(deployed):
        return None
    why = situation.why_rejected(deployed)
    if why is None and situation.on_probation and situation.crashes >= CRASHES:
        why = f"crashed {situation.crashes} times in a row"
    return RollBack(deployed, to, why) if why is not None else None


def _step(situation: Situation, now: Now) -> Step:
    match situation.said:
        case NotAsked():
            return _keep(situation, now, Nothing(Reason.NOT_ASKED))
        case NoAnswer():
            return _keep(situation, now, Nothing(Reason.NO_ANSWER))
        case Artifact() as announced if situation.slot and announced.slot != situation.slot:
            return _keep(situation, now, Nothing(Reason.OTHER_SLOT))
        case Artifact() as announced if situation.deployed is not None and announced.is_same(situation.deployed):
            return _keep(situation, now, Nothing(Reason.UP_TO_DATE))
        case Artifact() as announced if situation.pin is not None and announced.tag != situation.pin:
            return _keep(situation, now, Nothing(Reason.PINNED))
        case Artifact() as announced if situation.deployed is not None and situation.why_rejected(announced):
            return _keep(situation, now, Nothing(Reason.REJECTED))
        case Artifact() as announced:
            left = _left(situation.deploy_failed, announced, now)
            return _keep(situation, now, Wait(Reason.BACKING_OFF, left)) if left > 0 else Deploy(announced)


def _missing(missing: Missing, now: Now) -> Step:
    age = now.wall - missing.released_at if missing.released_at is not None else GRACE
    # A date in the future is some clock's error; one far off must not silence the failure until then.
    return Wait(Reason.UPLOAD_MAY_RUN, GRACE - age) if -GRACE < age < GRACE else Fail(missing.why)


def _keep(situation: Situation, now: Now, otherwise: Step) -> Step:
    """What it takes to have the deployed release run; `otherwise` where it does, or cannot yet."""
    deployed = situation.deployed
    if situation.mode == "assets" or deployed is None or _left(situation.start_failed, deployed, now) > 0:
        return otherwise
    if situation.running is None:
        return Start(deployed)
    return otherwise if situation.running.is_same(deployed) else Restart(deployed)


def _left(failed: Failed | None, artifact: Artifact, now: Now) -> float:
    """Seconds of back-off that `artifact` still has to wait."""
    return failed.retry_at - now.mono if failed is not None and failed.artifact.is_same(artifact) else 0.0
