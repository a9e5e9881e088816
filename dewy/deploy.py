"""One deploy: obtain -> unpack -> before-hook -> switch -> run -> after-hook -> report -> prune.

Up to the switch a deploy may fail, or be killed, and nothing has happened. After it the new release has to come up, or
the node goes back to the one before. Once it serves, nothing of what follows can fail the deploy any more.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import Final

from dewy import hooks
from dewy.application import Application
from dewy.artifact import Staged
from dewy.deadline import Bounded, Deadline
from dewy.deployed import tag_of
from dewy.errors import ArchiveError, DeployError, DewyError, StartFailed
from dewy.events import Deployed, Obtained, RolledBack, Source
from dewy.log import one_line, seconds
from dewy.memory import Memory
from dewy.notify import HookRun
from dewy.parts import Parts
from dewy.plan import Artifact
from dewy.registry import Announced
from dewy.release import Info, Release
from kvcache import KVCacheError

REPORT_WITHIN: Final = 60.0
"""Seconds that the registry may take to hear of a deploy."""
_SOURCES: Final[dict[str, Source]] = {"registry": "upstream", "store": "store", "local copy": "local"}


class Deployer:
    """Carries deploys out. `stop`: dewy is to end, and hooks with it. For the thread of the tick."""

    def __init__(
        self, parts: Parts, application: Application | None, memory: Memory, bounded: Bounded, stop: threading.Event
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._log = parts.log
        self._application = application
        self._memory = memory
        self._bounded = bounded
        self._stop = stop
        self._pin = contextlib.ExitStack()

    def deploy(self, artifact: Artifact, announced: Announced, deadline: Deadline) -> None:
        """Brings the announced release to this node. DewyError, KVCacheError or OSError: it is not, see above."""
        began = time.monotonic()
        with self._parts.sharing.staging.use(self._parts.sharing.artifacts.name(announced.key)):
            staged = self._obtain(announced, deadline)
            release = self._unpack(announced, staged)
        before = self._switch(release)
        if self._application is not None:
            self._run(self._application, artifact, release, before)
        self._memory.note(lambda state: state.served(release.id))
        taken = time.monotonic() - began
        self._parts.emit(Deployed(announced.tag, announced.key, tag_of(before), str(release.path), taken))
        self.pin_staged(staged.name)
        self._name_current(announced.key)
        self.hook_after(release, before)
        self._report(announced, deadline)
        self._prune()

    # -- before anything has happened ----------------------------------------------------------------------------------

    def _obtain(self, announced: Announced, deadline: Deadline) -> Staged:
        began = time.monotonic()
        obtain = partial(self._parts.sharing.artifacts.obtain, announced)
        staged = self._bounded.call(f"download of {announced.key}", obtain, deadline.left)
        taken = time.monotonic() - began
        self._parts.emit(Obtained(announced.key, _SOURCES[staged.source], staged.size, taken))
        self._parts.notices.tell("Download notification", f"Downloaded artifact for `{announced.tag}`")
        return staged

    def _unpack(self, announced: Announced, staged: Staged) -> Release:
        info = Info(announced.key, announced.tag, f"sha256:{staged.sha256}", staged.size)
        try:
            release = self._parts.releases.prepare(staged.path, announced.name, info)
        except ArchiveError:
            self._parts.sharing.artifacts.forget(announced)
            raise
        self._log.info("Extract archive", path=release.path)
        return release

    def _switch(self, release: Release) -> Release | None:
        """After the before-hook. The release that was current."""
        releases = self._parts.releases
        try:
            self._hook_before(release, releases.deployed())
            before = releases.switch(release)
        except DeployError:
            releases.discard(release)
            raise
        self._log.info("Create symlink", **{"from": release.path, "to": releases.current})
        return before

    # -- from the switch until it serves -------------------------------------------------------------------------------

    def _run(self, application: Application, artifact: Artifact, release: Release, before: Release | None) -> None:
        try:
            application.run(artifact, "deploy")
        except StartFailed as error:
            if before is not None and before.id in self._memory.state.good and self._may_leave():
                self._parts.releases.roll_back(release, before)
                self._log.warn("Rolled back", to=before.path)
                if not self._stop.is_set():
                    self._parts.emit(RolledBack(artifact.tag, tag_of(before), one_line(error)))
            raise

    def _may_leave(self) -> bool:
        """A start that was cut short has not failed, but next time begins with what is known to be good."""
        return self._config.rollback or self._stop.is_set()

    # -- once it serves ------------------------------------------------------------------------------------------------

    def pin_staged(self, name: str) -> None:
        """Keeps the local copy of what is deployed from being thrown out, by whatever process.

        It saves a download one day; no deploy fails for want of it.
        """
        before, self._pin = self._pin, contextlib.ExitStack()
        with contextlib.suppress(KVCacheError, OSError):
            self._pin.enter_context(self._parts.sharing.staging.use(name))
        before.close()

    def _name_current(self, key: str) -> None:
        try:
            self._parts.place.write_current(key)
        except OSError as error:
            self._log.warn("cannot write the name of what is deployed", path=self._parts.place.current, error=error)

    def _report(self, announced: Announced, deadline: Deadline) -> None:
        report = partial(self._parts.registry.report, announced, self._config.mode)
        try:
            self._bounded.call("report to the registry", report, min(REPORT_WITHIN, deadline.left))
        except (DewyError, KVCacheError) as error:
            self._log.error("Report shipping failure", error=error)

    def _prune(self) -> None:
        try:
            self._log.info("Keep releases", count=self._config.keep)
            self._parts.releases.prune(self._config.keep)
        except DewyError as error:
            self._log.error("Keep releases failure", error=error)

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _hook_before(self, release: Release, previous: Release | None) -> None:
        """DeployError: it failed, and may veto. Otherwise a failure is logged and the deploy goes on, as in Dewy v2."""
        failure = self._hook("before", self._config.before_deploy_hook, release, previous)
        if failure is not None and self._config.before_hook_vetoes:
            raise DeployError(f"the before-deploy hook refused it: {failure}")

    def hook_after(self, release: Release, previous: Release | None) -> None:
        """Runs the after-hook for a release that serves. Its failure is logged."""
        self._hook("after", self._config.after_deploy_hook, release, previous)

    def _hook(self, when: hooks.When, command: str, release: Release, previous: Release | None) -> str | None:
        """Why it failed; None: it did not, or there is none."""
        if not command:
            return None
        info = release.info
        variables = hooks.variables(
            when,
            tag=tag_of(release),
            key=info.key if info is not None else "",
            release=release.path,
            previous_tag=tag_of(previous),
        )
        failed = f"{when.capitalize()} deploy hook failure"
        try:
            result = hooks.run_hook(
                command,
                cwd=self._config.root,
                env={**self._parts.env, **variables},
                timeout=self._config.hook_timeout,
                stop=self._stop,
            )
        except OSError as error:
            self._log.error(failed, error=error)
            return one_line(error)
        facts: dict[str, object] = {"command": command, "stdout": result.stdout, "stderr": result.stderr}
        facts |= {"duration": seconds(result.duration)}
        ran = (result.exit_code, result.stdout, result.stderr, result.duration, result.succeeded)
        self._parts.notices.hook(HookRun(when, command, *ran))
        if result.succeeded:
            self._log.info("Execute hook", **facts)
            return None
        self._log.info("Execute hook failed", **facts, exit_code=result.exit_code)
        self._log.error(failed, error=result.failure)
        return result.failure
