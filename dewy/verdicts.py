"""What is held against releases: what failed lately and waits, what is rejected, and what is still on probation."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from dewy import plan as p
from dewy.deployed import artifact_of
from dewy.errors import ArchiveError, StartFailed
from dewy.log import Log, one_line
from dewy.memory import Memory
from dewy.release import Release, Releases

PROBATION: Final = 60.0
"""Seconds for which a new release that crashes has itself to blame."""


class Verdicts:
    """For the thread of the tick. `rollback`: whether there is to be a way back from what proves bad. `now` is
    monotonic."""

    def __init__(
        self,
        memory: Memory,
        releases: Releases,
        log: Log,
        stop: threading.Event,
        *,
        rollback: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._memory = memory
        self._releases = releases
        self._log = log
        self._stop = stop
        self._rollback = rollback
        self._deployed_at: float | None = None
        """When this process last deployed something (monotonic), while that is on probation."""
        self.announced: p.Artifact | None = None
        """What the registry last said."""
        self.deploy_failed: p.Failed | None = None
        self.start_failed: p.Failed | None = None

    def refresh(self) -> None:
        """Looks for an operator's word: after one, what failed has another chance, at once."""
        before = self._memory.state
        self._memory.refresh()
        if self._memory.state != before:
            self.deploy_failed = self.start_failed = None

    # -- what there is to know -----------------------------------------------------------------------------------------

    def last_good(self) -> Release | None:
        """What to go back to from what is deployed, if that is wanted."""
        return self._releases.last_good(self._memory.state.good) if self._rollback else None

    def is_good(self, release: Release) -> bool:
        """Whether it has come up once."""
        return release.id in self._memory.state.good

    def in_force(self, deployed: Release | None, *, must_run: bool) -> tuple[p.Rejected, ...]:
        """What is rejected, as far as that holds: a rejected release is better than none that has ever come up."""
        something_good = deployed is not None and (not must_run or self.is_good(deployed))
        return self._memory.state.rejected if something_good or self.last_good() is not None else ()

    def on_probation(self, crashes: int) -> bool:
        """Whether what runs is so new that its crashes are its own fault."""
        if self._deployed_at is not None and not crashes and self._now() - self._deployed_at >= PROBATION:
            self._deployed_at = None
        return self._deployed_at is not None

    @property
    def clean(self) -> bool:
        """Whether nothing has failed lately."""
        return self.deploy_failed is None and self.start_failed is None

    # -- what there is to say ------------------------------------------------------------------------------------------

    def deployed(self) -> None:
        """A deploy has succeeded."""
        self.deploy_failed = self.start_failed = None
        self._deployed_at = self._now()

    def started(self, release: Release | None) -> None:
        """What is deployed has come up."""
        self.start_failed = None
        if release is not None:
            self._memory.note(lambda state: state.served(release.id))

    def deploy_failed_by(self, artifact: p.Artifact, error: Exception) -> None:
        """A release at fault is rejected; whatever else it was, it is tried again, in a while."""
        deployed = self._releases.deployed()
        if deployed is not None and artifact_of(deployed).is_same(artifact):
            self.start_failed = self._again(self.start_failed, artifact)
            return
        if deployed is not None and self._is_to_blame(error):
            self._reject(artifact, one_line(error))
        # Also of what was rejected: as long as nothing good is there, that alone holds it up.
        self.deploy_failed = self._again(self.deploy_failed, artifact)

    def start_failed_by(self, artifact: p.Artifact, release: Release | None, error: StartFailed) -> None:
        """What is deployed did not come up; it is started again in a while."""
        self.start_failed = self._again(self.start_failed, artifact)
        # Killed between the switch to it and this: it has never come up, and there is one that has.
        never = release is not None and not self.is_good(release)
        if never and self.last_good() is not None and self._is_to_blame(error):
            self._reject(self._as_announced(artifact), one_line(error))

    def left(self, bad: Release, why: str) -> None:
        """A release that was deployed proved bad, and is left for another one."""
        artifact = artifact_of(bad)
        if not any(one.artifact.is_unchanged(artifact) for one in self._memory.state.rejected):
            self._reject(self._as_announced(artifact), why)
        self._memory.note(lambda state: state.failed(bad.id))
        self._deployed_at = None

    def _reject(self, artifact: p.Artifact, why: str) -> None:
        self._memory.note(lambda state: state.reject(artifact, why, time.time()))
        self._log.warn("Release rejected; not tried again before it changes", tag=artifact.tag, reason=why)

    def _as_announced(self, artifact: p.Artifact) -> p.Artifact:
        """With all that the registry last said of it: the less is known, the more is taken for the same."""
        return self.announced if self.announced is not None and self.announced.is_same(artifact) else artifact

    def _is_to_blame(self, error: Exception) -> bool:
        """Whether a release failed by its own fault, so that the same bytes would fail again. What was cut short by the
        end of dewy has not failed."""
        own = isinstance(error, ArchiveError) or (isinstance(error, StartFailed) and not error.host)
        return own and not self._stop.is_set()

    def _again(self, failed: p.Failed | None, artifact: p.Artifact) -> p.Failed:
        return p.failed_again(failed, artifact, self._now(), random.random())
