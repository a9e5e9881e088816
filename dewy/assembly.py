"""Puts a run together: everything is checked and opened, in the order of what it costs, and then the loop goes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from dewy import cachedir
from dewy.config import Config
from dewy.errors import ConfigError
from dewy.listen import open_listeners
from dewy.log import Log, seconds, set_up
from dewy.loop import Loop, Parts
from dewy.notify import Notices, open_channel
from dewy.registry import open_registry
from dewy.release import Releases
from dewy.schedule import phase_of
from dewy.sharing import Sharing
from dewy.signals import install_signals
from dewy.supervision import (
    Event,
    Settings,
    WorkerCrashed,
    WorkerFinishing,
    WorkerGone,
    WorkerKilled,
    WorkerRecovered,
    WorkerRefused,
    WorkerStarted,
    WorkerUp,
)
from dewy.supervisor import Supervisor
from kvcache import InvalidURL, parse_store_url

_WORDS: Final = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt", signal.SIGQUIT: "quit"}
"""Dewy v2's words for what ends it."""

PORT_PATIENCE: Final = 8.0
"""Seconds to wait for a port: workers of a dewy that was killed hold it until they have been ended, 5 s at most."""


def run(config: Config, env: Mapping[str, str]) -> int:
    """One run, until a signal ends it: exit code 0. ConfigError, StartFailed: before anything was started."""
    set_up(config.log_level, config.log_format, env)
    log = Log()
    with ExitStack() as stack:
        registry = open_registry(config.registry, calver=config.calver, env=env)
        stack.callback(registry.close)
        notices = Notices(log, open_channel(config.notifier))
        directory, local = _cache_directory(config, env, log)
        place = cachedir.place_of(directory, registry.scope, config.root)
        node = f"{socket.gethostname() or 'unknown-host'}:{os.getpid()}"
        sharing = Sharing(
            config,
            registry,
            directory=directory,
            local=local,
            prefix=place.artifact_prefix,
            node=node,
            log=log,
            notices=notices,
        )
        try:
            sharing.connect()
        except InvalidURL as error:
            raise ConfigError(f"--cache: {error}") from error
        stack.callback(sharing.close)
        supervisor = None
        if config.mode == "server":
            listeners = stack.enter_context(open_listeners(config.listen, patience=PORT_PATIENCE))
            settings = Settings(reap_orphans=os.getpid() == 1)  # as a container's first process has to
            supervisor = stack.enter_context(
                Supervisor(config.command, listeners, settings=settings, on_event=_observer(log))
            )
        loop = Loop(
            Parts(
                config=config,
                env=env,
                registry=registry,
                sharing=sharing,
                releases=Releases(config.root),
                place=place,
                supervisor=supervisor,
                notices=notices,
                log=log,
                phase=phase_of(f"{socket.gethostname()}|{config.root}", config.interval),
            )
        )

        def stop(number: signal.Signals) -> None:
            log.debug("PID received signal", pid=os.getpid(), signal=number.name)
            if not loop.stopping:
                notices.tell("Shutdown notification", f"Stop receiving by `{_WORDS[number]}` signal")
            loop.stop()

        def restart(number: signal.Signals) -> None:
            log.debug("PID received signal", pid=os.getpid(), signal=number.name)
            loop.restart(number.name)

        handlers = {**dict.fromkeys(_WORDS, stop), signal.SIGHUP: restart, signal.SIGUSR1: restart}
        with install_signals(handlers):
            for option, why in config.ignored:
                log.warn("Option ignored", option=option, reason=why)
            notices.tell(
                "Dewy start notification", f"Automatic shipping started by *Dewy* ({_version()}: {config.mode})"
            )
            loop.run()
    return 0


def _cache_directory(config: Config, env: Mapping[str, str], log: Log) -> tuple[Path, bool]:
    """The cache directory, and whether it is the store itself: `file:///dir` names one as `DEWY_CACHEDIR` does."""
    try:
        url = parse_store_url(config.cache)
    except InvalidURL as error:
        raise ConfigError(f"--cache: {error}") from error
    local = url.scheme in ("", "file")
    if local and url.path:
        directory = Path(url.path)
        if problem := cachedir.make_usable(directory):
            raise ConfigError(f"--cache: {problem}")
        return directory, True
    chosen = cachedir.choose(env, config.root)
    if chosen.problem is not None:
        log.warn("cache directory cannot be used; using a temporary one", path=chosen.path, problem=chosen.problem)
    return chosen.path, local


_EVENTS: Final = {
    WorkerStarted: (Log.debug, "Worker started"),
    WorkerUp: (Log.info, "Worker up"),
    WorkerRefused: (Log.warn, "Worker did not come up"),
    WorkerCrashed: (Log.error, "Server run failure"),
    WorkerRecovered: (Log.info, "Worker runs well again"),
    WorkerFinishing: (Log.info, "Worker told to finish"),
    WorkerKilled: (Log.warn, "Worker killed"),
    WorkerGone: (Log.info, "Worker gone"),
}
_DURATIONS: Final = frozenset({"after", "drain", "ran_for", "retry_in"})


def _observer(log: Log) -> Callable[[Event], None]:
    """Logs what the supervisor tells."""

    def tell(event: Event) -> None:
        write, message = _EVENTS[type(event)]
        facts = asdict(event)
        for name in _DURATIONS & {name for name, value in facts.items() if value is not None}:
            facts[name] = seconds(facts[name])
        write(log, message, **facts)

    return tell


def _version() -> str:
    try:
        return f"v{version('kvcache-dewy')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "dev"
