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
from dewy.control import WAKE
from dewy.deadline import Bounded, Overdue
from dewy.errors import ConfigError
from dewy.health import health_check
from dewy.history import History
from dewy.listen import Listeners, open_listeners
from dewy.log import Log, Redactor, seconds, set_up
from dewy.loop import Loop, Parts
from dewy.monitoring import Monitoring
from dewy.notify import Notices, Once, Post, Sender, open_channel
from dewy.registry import open_registry, source_scope
from dewy.release import Releases
from dewy.schedule import phase_of
from dewy.sharing import Sharing
from dewy.signals import install_signals
from dewy.state import StateFile
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
from dewy.systemd import Systemd
from kvcache import InvalidURL, parse_duration, parse_store_url

_WORDS: Final = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt", signal.SIGQUIT: "quit"}
"""Dewy v2's words for what ends it."""

CONNECT_WITHIN: Final = 30.0
"""Seconds that a start waits for the store; a node that runs what it has can join its fleet later."""
PORT_PATIENCE: Final = 8.0
"""Seconds to wait for a port: workers of a dewy that was killed hold it until they have been ended, 5 s at most."""


def run(config: Config, env: Mapping[str, str]) -> int:
    """One run, until a signal ends it: exit code 0. ConfigError, StartFailed: before anything was started."""
    set_up(config.log_level, config.log_format, env)
    log = Log()
    signal.signal(WAKE, signal.SIG_IGN)  # an operator's command may send it before the handlers stand
    hide = Redactor(env)
    with ExitStack() as stack:
        registry = open_registry(
            config.registry,
            calver=config.calver,
            slot=config.slot,
            fallback=config.fallback,
            checksums=config.checksums,
            env=env,
        )
        stack.callback(registry.close)
        sender = Sender.here(config.root, _version())
        monitoring = stack.enter_context(Monitoring(config, version=_version(), log=log, hide=hide))
        observer = monitoring.observer
        channels = [open_channel(url, sender, env) for url in config.notifier]
        post = Post(channels, log, on_outcome=observer.on_notification)
        notices = Notices(log, post.put, hide=hide)
        state = StateFile(config.root)
        _be_the_only_one(state, stack, log)
        directory, local = _cache_directory(config, env, log)
        place = cachedir.place_of(directory, source_scope(registry.scope), config.root)
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
            observe=observer.on_cache,
        )
        _connect(sharing, log)
        stack.callback(sharing.close)
        once = Once(lambda: sharing.store, scope=registry.scope, node=node, log=log) if config.notify_once else None
        post.start(once)
        stack.callback(post.close)
        supervisor = None
        if config.mode == "server":
            listeners = stack.enter_context(open_listeners(config.listen, patience=PORT_PATIENCE))
            settings = _supervision(config, env, listeners)
            supervisor = stack.enter_context(
                Supervisor(config.command, listeners, settings=settings, on_event=_observer(log, observer.on_worker))
            )
        releases = Releases(config.root, keep=config.keep)
        loop = Loop(
            Parts(
                config=config,
                env=env,
                registry=registry,
                sharing=sharing,
                releases=releases,
                state=state,
                place=place,
                supervisor=supervisor,
                notices=notices,
                log=log,
                phase=phase_of(f"{socket.gethostname()}|{config.root}", config.interval),
                listeners=(History(state.directory, hide=hide), *monitoring.listeners),
                hide=hide,
            ),
            Systemd.of(env),
        )

        monitoring.start(
            registry=registry,
            staging=sharing.staging,
            releases=releases,
            supervisor=supervisor,
            pulse=loop.pulse,
        )

        def stop(number: signal.Signals) -> None:
            log.debug("PID received signal", pid=os.getpid(), signal=number.name)
            if not loop.stopping:
                notices.tell("Shutdown notification", f"Stop receiving by `{_WORDS[number]}` signal")
            loop.stop()

        def restart(number: signal.Signals) -> None:
            log.debug("PID received signal", pid=os.getpid(), signal=number.name)
            loop.restart(number.name)

        handlers = {
            **dict.fromkeys(_WORDS, stop),
            signal.SIGHUP: restart,
            signal.SIGUSR1: restart,
            WAKE: lambda _: loop.wake(),
        }
        with install_signals(handlers):
            for option, why in config.ignored:
                log.warn("Option ignored", option=option, reason=why)
            notices.tell(
                "Dewy start notification", f"Automatic shipping started by *Dewy* ({_version()}: {config.mode})"
            )
            loop.run()
    return 0


def _be_the_only_one(state: StateFile, stack: ExitStack, log: Log) -> None:
    """DeployError: another dewy runs in this directory; the two would undo each other's deploys for ever."""
    try:
        stack.enter_context(state.running())
    except OSError as error:  # a disk that takes no writes keeps nobody from running what is there
        problem = cachedir.make_usable(state.directory) or str(error)
        log.warn("cannot tell other dewys of this one", problem=problem)


def _connect(sharing: Sharing, log: Log) -> None:
    """Opens the store, unless it hangs: then the ticks go on trying. ConfigError."""
    try:
        Bounded().call("cache store", sharing.connect, CONNECT_WITHIN)
    except Overdue as error:
        log.warn("cache store unavailable; going on without it", error=error)
        sharing.abandon()
    except InvalidURL as error:
        raise ConfigError(f"--cache: {error}") from error


def _supervision(config: Config, env: Mapping[str, str], listeners: Listeners) -> Settings:
    """How patient the supervisor is. ConfigError."""
    return Settings(
        ready=health_check(config.health_path, config.health_port, listeners),
        ready_timeout=config.health_timeout,
        overlap=overlap(env),
        drain=config.drain_time,
        reap_orphans=os.getpid() == 1,  # as a container's first process has to
    )


def overlap(env: Mapping[str, str]) -> float:
    """Seconds for which an old worker serves beside a new one, in the variables of server-starter. ConfigError."""
    text = env.get("KILL_OLD_DELAY") or ("5" if env.get("ENABLE_AUTO_RESTART", "").lower() in ("1", "true") else "0")
    try:
        return parse_duration(text, plain_seconds=True)
    except ValueError as error:
        raise ConfigError(f"KILL_OLD_DELAY: {error}") from error


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


def _observer(log: Log, count: Callable[[Event], None]) -> Callable[[Event], None]:
    """Logs and counts what the supervisor tells."""

    def tell(event: Event) -> None:
        write, message = _EVENTS[type(event)]
        facts = asdict(event)
        for name in _DURATIONS & {name for name, value in facts.items() if value is not None}:
            facts[name] = seconds(facts[name])
        write(log, message, **facts)
        count(event)

    return tell


def _version() -> str:
    try:
        return f"v{version('kvcache-dewy')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "dev"
