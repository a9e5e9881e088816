"""The loop: resolve -> plan -> stage -> release -> run -> report, once per interval, until it is told to stop.

Ticks have a thread of their own, one at a time. An error ends a tick, never the loop: it is logged in one line, told,
and what failed is tried again after a back-off, while the old release goes on. The thread that runs `run` only waits
for the end, so that a signal is obeyed at once, whatever a tick is waiting for.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from dewy import plan as p
from dewy.answers import Heard
from dewy.artifact import Staged
from dewy.cachedir import Place
from dewy.config import Config
from dewy.errors import ArchiveError, DeployError, DewyError, StartFailed
from dewy.hooks import run_hook
from dewy.log import Log, one_line, seconds
from dewy.notify import Notices
from dewy.registry import Announced, Registry
from dewy.release import KEEP, Info, Release, Releases
from dewy.schedule import until_next
from dewy.sharing import Sharing
from dewy.supervisor import Supervisor
from kvcache import KVCacheError

LAST_WORDS: Final = 5.0
"""Seconds that a tick under way is given once everything else has stopped; what it leaves half done is swept later."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loop works with."""

    config: Config
    env: Mapping[str, str]
    registry: Registry
    sharing: Sharing
    releases: Releases
    place: Place
    supervisor: Supervisor | None
    """None in assets mode."""
    notices: Notices
    log: Log
    phase: float
    """Seconds, see `dewy.schedule`."""


class Loop:
    """One run of `dewy server` or `dewy assets`. `run` blocks until `stop`; `stop` and `restart` from any thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._config = parts.config
        self._log = parts.log
        self._stop = threading.Event()
        self._deploy_failed: p.Failed | None = None
        self._start_failed: p.Failed | None = None
        # Written by the tick alone, read by `restart` too: what the supervised application was last started from.
        self._running: p.Artifact | None = None
        self._pin = contextlib.ExitStack()

    # -- from outside --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Ticks until it is told to stop; returns when the application has ended too."""
        self._pin_deployed()
        ticker = threading.Thread(target=self._tick_on, name="tick", daemon=True)
        ticker.start()
        self._stop.wait()
        if self._parts.supervisor is not None:
            self._parts.supervisor.stop()
        ticker.join(LAST_WORDS)

    def stop(self) -> None:
        """Has `run` come to its end. Twice is as good as once: `timeout` and some shells signal a process twice."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def restart(self, why: str) -> None:
        """Lets a new process of the deployed release take over from the one that runs. Does not wait for it."""
        running, supervisor = self._running, self._parts.supervisor
        if supervisor is None or running is None:
            self._log.info("Nothing to restart", reason=why)
            return

        def done(future: Future[None]) -> None:
            if error := future.exception():
                self._log.error("Server restart failure", version=running.tag, error=error)
            else:
                self._parts.notices.tell("Restart notification", f"Restarted receiving by `{why}` signal")

        supervisor.request_restart().add_done_callback(done)

    def _tick_on(self) -> None:
        while True:
            self.tick()
            if self._stop.wait(until_next(time.time(), self._config.interval, self._parts.phase)):
                return

    # -- one tick ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One turn. Never raises."""
        for part in (self._run_what_is_deployed, self._follow_the_registry):
            try:
                part()
            except Exception as error:
                # Also a fault of ours: it must not end the loop, or nobody would look after the application again.
                self._failed(error)

    def _run_what_is_deployed(self) -> None:
        """Before anybody is asked: a registry that is down, or slow, keeps nobody waiting."""
        self._take(Heard(p.NotAsked()))

    def _follow_the_registry(self) -> None:
        heard = self._resolve()
        step = self._take(heard)
        if step == p.Nothing(p.Reason.UP_TO_DATE):
            self._deploy_failed = None  # what failed is announced no more
        if isinstance(heard.said, p.Artifact) and self._deploy_failed is None and self._start_failed is None:
            self._parts.notices.worked()

    def _failed(self, error: Exception) -> None:
        if self._stop.is_set():
            self._log.debug("Tick ended by the stop", error=error)
            return
        self._log.exception("Dewy run failure", error)
        self._parts.notices.failed(one_line(error))

    def _resolve(self) -> Heard:
        self._parts.sharing.connect()
        heard = self._parts.sharing.answers.ask()
        if heard.failure is not None:
            self._log.error("Current failure", error=heard.failure)
            self._parts.notices.failed(heard.failure)
        return heard

    def _take(self, heard: Heard) -> p.Step:
        """Plans the next step and carries it out."""
        situation = p.Situation(
            mode=self._config.mode,
            said=heard.said,
            deployed=self._deployed(),
            running=self._running,
            missing=heard.missing,
            slot=self._config.slot,
            deploy_failed=self._deploy_failed,
            start_failed=self._start_failed,
        )
        step = p.plan(situation, p.Now(time.time(), time.monotonic()))
        match step:
            case p.Nothing() | p.Wait():
                self._skip(step, heard)
            case p.Fail(why):
                raise DewyError(why)
            case p.Start(artifact) | p.Restart(artifact):
                self._start(artifact)
            case p.Deploy(artifact):
                assert heard.announced is not None
                self._deploy(artifact, heard.announced)
        return step

    def _skip(self, step: p.Nothing | p.Wait, heard: Heard) -> None:
        """Says why nothing is done, for those who want to know."""
        facts: dict[str, object] = {"left": seconds(step.seconds)} if isinstance(step, p.Wait) else {}
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

    def _deployed(self) -> p.Artifact | None:
        release = self._parts.releases.deployed()
        return None if release is None else _artifact(release)

    # -- a deploy ------------------------------------------------------------------------------------------------------

    def _deploy(self, artifact: p.Artifact, announced: Announced) -> None:
        try:
            with self._parts.sharing.staging.use(self._parts.sharing.artifacts.name(announced.key)):
                staged = self._stage(announced)
                release = self._release(announced, staged)
            self._switch_and_run(artifact, release)
        except Exception as error:
            # Whatever it was, it is not tried again at once.
            self._deploy_failed = _again(self._deploy_failed, artifact)
            raise DeployError(f"{announced.key}: {one_line(error)}") from error
        self._deploy_failed = self._start_failed = None
        self._report(announced, staged)

    def _stage(self, announced: Announced) -> Staged:
        staged = self._parts.sharing.artifacts.obtain(announced)
        self._parts.notices.tell("Download notification", f"Downloaded artifact for `{announced.tag}`")
        return staged

    def _release(self, announced: Announced, staged: Staged) -> Release:
        self._hook("Before deploy hook failure", self._config.before_deploy_hook)
        info = Info(announced.key, announced.tag, f"sha256:{staged.sha256}")
        try:
            release = self._parts.releases.prepare(staged.path, announced.name, info)
        except ArchiveError:
            self._parts.sharing.artifacts.forget(announced)
            raise
        self._log.info("Extract archive", path=release.path)
        return release

    def _switch_and_run(self, artifact: p.Artifact, release: Release) -> None:
        releases = self._parts.releases
        try:
            before = releases.switch(release)
        except DeployError:
            releases.discard(release)
            raise
        self._log.info("Create symlink", **{"from": release.path, "to": releases.current})
        if self._config.mode == "assets":
            return
        try:
            self._run(artifact)
        except StartFailed:
            if self._stop.is_set() and before is None:
                raise  # it has not failed, its start was cut short; and there is nothing better for the next start
            releases.roll_back_to(before)
            self._log.warn("Rolled back", to=before.path if before is not None else None)
            raise

    def _start(self, artifact: p.Artifact) -> None:
        """What is deployed already is started."""
        try:
            self._run(artifact)
        except StartFailed as error:
            self._start_failed = _again(self._start_failed, artifact)
            raise StartFailed(f"{artifact.key or artifact.tag}: {error}") from error
        self._start_failed = None

    def _run(self, artifact: p.Artifact) -> None:
        """Starts the application from what is current, or lets that take over from what runs. StartFailed."""
        supervisor = self._parts.supervisor
        assert supervisor is not None
        first = self._running is None
        self._log.info("Start server" if first else "Restart server", version=artifact.tag)
        supervisor.restart()
        self._running = artifact
        kind, word = ("Start notification", "started") if first else ("Restart notification", "restarted")
        ports = "" if self._config.listen else " without port"
        self._parts.notices.tell(kind, f"Server {word} for `{artifact.tag}`{ports}")

    def _report(self, announced: Announced, staged: Staged) -> None:
        """What follows a deploy that succeeded. Nothing of it can fail it any more."""
        self._pin_staged(staged.name)
        try:
            self._parts.place.write_current(announced.key)
        except OSError as error:
            self._log.warn("cannot write the name of what is deployed", path=self._parts.place.current, error=error)
        self._hook("After deploy hook failure", self._config.after_deploy_hook)
        try:
            self._parts.registry.report(announced, self._config.mode)
        except (DewyError, KVCacheError) as error:
            self._log.error("Report shipping failure", error=error)
        try:
            self._log.info("Keep releases", count=KEEP)
            self._parts.releases.prune(KEEP)
        except DewyError as error:
            self._log.error("Keep releases failure", error=error)

    def _hook(self, failure: str, command: str) -> None:
        """Runs a hook. Its failure is logged; the deploy goes on, as in Dewy v2."""
        if not command:
            return
        try:
            result = run_hook(command, cwd=self._config.root, env=self._parts.env, stop=self._stop)
        except OSError as error:
            self._log.error(failure, error=error)
            return
        facts = {
            "command": command,
            "stdout": result.stdout,
            "stderr": result.stderr,
            "duration": seconds(result.duration),
        }
        if result.succeeded:
            self._log.info("Execute hook", **facts)
            return
        self._log.info("Execute hook failed", **facts, exit_code=result.exit_code)
        self._log.error(failure, error=result.failure)

    # -- the local copy of what is deployed stays ----------------------------------------------------------------------

    def _pin_deployed(self) -> None:
        with contextlib.suppress(DewyError):  # the tick will tell
            deployed = self._deployed()
            if deployed is not None and deployed.key:
                self._pin_staged(self._parts.place.artifact_prefix + deployed.key)

    def _pin_staged(self, name: str) -> None:
        """Keeps the local copy of what is deployed from being thrown out, by whatever process.

        It saves a download one day; no deploy fails for want of it.
        """
        before, self._pin = self._pin, contextlib.ExitStack()
        with contextlib.suppress(KVCacheError, OSError):
            self._pin.enter_context(self._parts.sharing.staging.use(name))
        before.close()


def _again(failed: p.Failed | None, artifact: p.Artifact) -> p.Failed:
    return p.failed_again(failed, artifact, time.monotonic(), random.random())


def _artifact(release: Release) -> p.Artifact:
    """What is known of a release on disk. One that Dewy v2 made, or somebody by hand, is like no announced one."""
    if release.info is None:
        return p.Artifact(key="", tag=release.id)
    return p.Artifact(release.info.key, release.info.tag, digest=release.info.digest or None)
