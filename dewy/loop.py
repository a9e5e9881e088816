"""The loop: resolve -> plan -> carry out, once per interval, until it is told to stop.

Ticks have a thread of their own, one at a time. An error ends a tick, never the loop: it is logged in one line, told,
and what failed is tried again after a back-off, or not before something changes, while the old release goes on. What
waits for others (the registry, the store) is bounded by the tick's deadline, even where it hangs for good. The thread
that runs `run` only waits for the end, so that a signal is obeyed at once, whatever a tick is waiting for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

from dewy import plan as p
from dewy.answers import Heard
from dewy.application import Application, Reason
from dewy.deadline import Bounded, Deadline, Overdue
from dewy.deploy import Deployer
from dewy.deployed import artifact_of, tag_of
from dewy.errors import DeployError, DewyError, StartFailed
from dewy.events import DeployFailed, RolledBack, TickEnded
from dewy.live import LiveFile
from dewy.log import one_line, seconds
from dewy.memory import Memory
from dewy.parts import Parts
from dewy.pulse import Pulse
from dewy.registry import Announced
from dewy.release import Release
from dewy.schedule import until_next
from dewy.systemd import Systemd
from dewy.verdicts import Verdicts

__all__ = ["Loop", "Parts"]

LAST_WORDS: Final = 5.0
"""Seconds that a tick under way is given once everything else has stopped; what it leaves half done is swept later."""
RESOLVE_WITHIN: Final = 120.0
"""Seconds for one answer of the registry, store and all; calls have shorter time-outs of their own, where they can."""


class Loop:
    """One run of `dewy server` or `dewy assets`. `run` blocks until `stop`; `stop` and `restart` from any thread."""

    def __init__(self, parts: Parts, systemd: Systemd | None = None) -> None:
        self._parts = parts
        self._config = parts.config
        self._log = parts.log
        self._systemd = systemd if systemd is not None else Systemd("")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._application = (
            Application(parts.supervisor, parts.notices, parts.log, parts.emit, ports=bool(parts.config.listen))
            if parts.supervisor is not None
            else None
        )
        self._memory = Memory(parts.state, parts.log)
        self._bounded = Bounded()
        self._deployer = Deployer(parts, self._application, self._memory, self._bounded, self._stop)
        self._live = LiveFile(parts.state.directory, parts.config, parts.log, parts.hide)
        self.pulse: Final = Pulse(parts.config)
        self._verdicts = Verdicts(self._memory, parts.releases, parts.log, self._stop, rollback=parts.config.rollback)
        self._seen: Release | None = None
        """What was current when this was last looked at; another one since then is an operator's doing."""

    # -- from outside --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Ticks until it is told to stop; returns when the application has ended too."""
        self._pin_deployed()
        ticker = threading.Thread(target=self._tick_on, name="tick", daemon=True)
        ticker.start()
        while not self._stop.wait(self._systemd.watchdog_interval):
            if self.pulse.beats():
                self._systemd.alive()
        self._systemd.stopping()
        if self._application is not None:
            self._application.stop()
        ticker.join(LAST_WORDS)

    def stop(self) -> None:
        """Has `run` come to its end. Twice is as good as once: `timeout` and some shells signal a process twice."""
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Has the next tick begin at once."""
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def restart(self, why: str) -> None:
        """Lets a new process of the deployed release take over from the one that runs. Does not wait for it."""
        if self._application is None:
            self._log.info("Nothing to restart", reason=why)
            return
        self._systemd.reloading()
        self._application.request_restart(why, self._systemd.ready)

    def _tick_on(self) -> None:
        while True:
            self.tick()
            self._systemd.started()
            self._wake.wait(until_next(time.time(), self._config.interval, self._parts.phase))
            self._wake.clear()
            if self._stop.is_set():
                return

    # -- one tick ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One turn. Never raises."""
        began = time.monotonic()
        deadline = Deadline(self._config.tick_timeout)
        self.pulse.tick_began()
        self._live.tick_began()
        problem = ""
        for part in (self._run_what_is_deployed, self._follow_the_registry):
            try:
                part(deadline)
            except Exception as error:
                # Also a fault of ours: it must not end the loop, or nobody would look after the application again.
                problem = one_line(error)
                self._failed(error)
        self.pulse.tick_ended()
        self._parts.emit(TickEnded(time.monotonic() - began, problem))
        self._tell_status(problem)

    def _run_what_is_deployed(self, deadline: Deadline) -> None:
        """Before anybody is asked: a registry that is down, or slow, keeps nobody waiting."""
        self._verdicts.refresh()
        self._notice_operator()
        self._take(Heard(p.NotAsked()), deadline)

    def _follow_the_registry(self, deadline: Deadline) -> None:
        heard = self._resolve(deadline)
        step = self._take(heard, deadline)
        if step == p.Nothing(p.Reason.UP_TO_DATE):
            self._verdicts.deploy_failed = None  # what failed is announced no more
        if isinstance(heard.said, p.Artifact) and self._verdicts.clean:
            self._parts.notices.worked()

    def _failed(self, error: Exception) -> None:
        if self._stop.is_set():
            self._log.debug("Tick ended by the stop", error=error)
            return
        self._log.exception("Dewy run failure", error)
        self._parts.notices.failed(one_line(error))

    def _resolve(self, deadline: Deadline) -> Heard:
        def ask() -> Heard:
            sharing.connect()
            return sharing.answers.ask()

        sharing = self._parts.sharing
        try:
            heard = self._bounded.call("registry", ask, min(RESOLVE_WITHIN, deadline.left))
        except Overdue:
            sharing.abandon()  # it is still in use by who does not come back
            raise
        self._live.heard(heard, sharing.record)
        if isinstance(heard.said, p.Artifact):
            self._verdicts.announced = heard.said
        if heard.failure is not None:
            self._log.error("Current failure", error=heard.failure)
            self._parts.notices.failed(heard.failure)
        return heard

    # -- the plan ------------------------------------------------------------------------------------------------------

    def _take(self, heard: Heard, deadline: Deadline) -> p.Step:
        """Plans the next step and carries it out."""
        step = p.plan(self._situation(heard), p.Now(time.time(), time.monotonic()))
        match step:
            case p.Nothing() | p.Wait():
                self._skip(step, heard)
            case p.Fail(why):
                raise DewyError(why)
            case p.Start(artifact):
                self._start(artifact, "start")
            case p.Restart(artifact):
                self._start(artifact, "operator")
            case p.RollBack():
                self._roll_back(step)
            case p.Deploy(artifact):
                assert heard.announced is not None
                self._deploy(artifact, heard.announced, deadline)
        return step

    def _situation(self, heard: Heard) -> p.Situation:
        verdicts, application = self._verdicts, self._application
        release, good = self._parts.releases.deployed(), verdicts.last_good()
        crashes = application.snapshot().crashes if application is not None else 0
        return p.Situation(
            mode=self._config.mode,
            said=heard.said,
            deployed=None if release is None else artifact_of(release),
            running=application.running if application is not None else None,
            missing=heard.missing,
            slot=self._config.slot,
            deploy_failed=verdicts.deploy_failed,
            start_failed=verdicts.start_failed,
            pin=self._memory.state.pin,
            rejected=verdicts.in_force(release, must_run=application is not None),
            last_good=None if good is None else artifact_of(good),
            crashes=crashes,
            on_probation=verdicts.on_probation(crashes),
        )

    def _skip(self, step: p.Nothing | p.Wait, heard: Heard) -> None:
        """Says why nothing is done, for those who want to know."""
        facts: dict[str, object] = {"left": seconds(step.seconds)} if isinstance(step, p.Wait) else {}
        self._live.waiting(step.reason)
        match step.reason:
            case p.Reason.NOT_ASKED:
                pass
            case p.Reason.OTHER_SLOT if heard.announced is not None:
                facts = {"expected_slot": self._config.slot, "actual_slot": heard.announced.slot}
                self._log.debug("Deploy skipped: slot mismatch", **facts, tag=heard.announced.tag)
            case p.Reason.UPLOAD_MAY_RUN if heard.missing is not None:
                facts |= {"message": heard.missing.why, "grace_period": seconds(p.GRACE)}
                self._log.debug("Artifact not found within grace period", **facts)
            case reason:
                self._log.debug("Deploy skipped", reason=reason.value, **facts)

    # -- its steps -----------------------------------------------------------------------------------------------------

    def _deploy(self, artifact: p.Artifact, announced: Announced, deadline: Deadline) -> None:
        began = time.monotonic()
        try:
            self._deployer.deploy(artifact, announced, deadline)
        except Exception as error:
            # Whatever it was, it is not tried again at once.
            self._verdicts.deploy_failed_by(artifact, error)
            if isinstance(error, Overdue):
                self._parts.sharing.abandon()
            if not self._stop.is_set():
                taken = time.monotonic() - began
                self._parts.emit(DeployFailed(announced.tag, announced.key, one_line(error), taken))
            raise DeployError(f"{announced.key}: {one_line(error)}") from error
        finally:
            self._seen = self._parts.releases.deployed()
        self._verdicts.deployed()

    def _start(self, artifact: p.Artifact, reason: Reason) -> None:
        """What is deployed already is started, or takes over from what runs."""
        assert self._application is not None
        release = self._parts.releases.deployed()
        try:
            self._application.run(artifact, reason)
        except StartFailed as error:
            self._verdicts.start_failed_by(artifact, release, error)
            raise StartFailed(f"{artifact.key or artifact.tag}: {error}") from error
        self._verdicts.started(release)
        if release is not None and reason == "operator":
            self._deployer.hook_after(release, None)

    def _roll_back(self, step: p.RollBack) -> None:
        """Leaves what came up, or was never started, and proved bad."""
        releases = self._parts.releases
        bad, good = releases.deployed(), self._verdicts.last_good()
        assert bad is not None and good is not None
        self._verdicts.left(bad, step.why)  # first: whoever is killed in between is not to start it again
        releases.switch(good)
        self._seen = good
        self._log.warn("Rolled back", to=good.path)
        self._parts.emit(RolledBack(tag_of(bad), tag_of(good), step.why))
        self._parts.notices.tell(
            "Roll-back notification", f"Rolled back from `{tag_of(bad)}` to `{tag_of(good)}`: {step.why}"
        )
        if self._application is not None:
            self._start(step.to, "rollback")
        self._deployer.hook_after(good, bad)

    def _notice_operator(self) -> None:
        """Assets: what an operator has switched to gets its after-hook. (A server is restarted first, by the plan.)"""
        before, self._seen = self._seen, self._parts.releases.deployed()
        if self._application is None and before is not None and self._seen not in (None, before):
            self._log.info("Release switched by an operator", tag=tag_of(self._seen))
            self._deployer.hook_after(self._seen, before)

    # -- what others may know ------------------------------------------------------------------------------------------

    def _tell_status(self, problem: str) -> None:
        application = self._application
        self._live.write(
            problem=problem,
            running=application.running if application is not None else None,
            snapshot=application.snapshot() if application is not None else None,
            next_in=until_next(time.time(), self._config.interval, self._parts.phase),
        )
        self._systemd.status(self._parts.hide(problem) or self._live.line())

    def _pin_deployed(self) -> None:
        with contextlib.suppress(DewyError):  # the tick will tell
            self._seen = release = self._parts.releases.deployed()
            if release is not None and release.info is not None:
                self._deployer.pin_staged(self._parts.place.artifact_prefix + release.info.key)
