"""The command `task-daemon`: flags and configuration in, one daemon until it is told to stop.

Exit codes: 0 stopped as asked; 1 a fault of the daemon itself; 2 a mistake in flags or configuration, or a store of
a newer daemon (starting again would not help); 3 another daemon serves the workspace; 4 the store cannot be used (the
supervisor may start again: everything acknowledged is on disk).
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec

from task_daemon import __version__, config, install_units, logs, simulate
from task_daemon.api.server import ListenError
from task_daemon.backends.registry import find_family
from task_daemon.clock import FastClock, SystemClock
from task_daemon.core import crash
from task_daemon.core.errors import ConfigError, Refusal, StoreError, StoreTooNew, WorkspaceTaken
from task_daemon.daemon import Daemon
from task_daemon.engine.local import lock
from task_daemon.notify_systemd import inherited_socket, notify, watchdog_seconds

log = logging.getLogger("task_daemon.main")

TURN = 0.001  # seconds until a thread that computes lets another one go on (Python: 5 ms), which a request needs several times
GARBAGE = 5000  # objects made and not freed between two looks for cycles (Python: 700); each hundredth look is a whole one

STOPPED, BROKEN, MISCONFIGURED, TAKEN, STORE_FAILED = 0, 1, 2, 3, 4


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [install_units.VERB]:
        return install_units.main(given[1:])
    flags = vars(_parser().parse_args(given))
    file = flags.pop("config_file") or config.default_file()
    check, show = flags.pop("check_config"), flags.pop("show_config")
    scenario, throwaway = flags.pop("simulate"), None
    try:
        if scenario is None:
            settings, clock = config.load(file, flags, find_family), SystemClock()
        else:
            settings, speed = simulate.load(scenario, flags, find_family)
            clock = FastClock(speed)
            if settings.daemon.workspace == config.DaemonTable().workspace and not (check or show):
                throwaway = tempfile.mkdtemp(prefix="task-daemon-")
                settings, _ = simulate.load(scenario, flags | {"workspace": throwaway}, find_family)
        daemon = Daemon(settings, clock, None if check or show else _inherited_socket())
        _crash_for_a_test()
    except ConfigError as error:
        for mistake in error.mistakes:
            sys.stderr.write(f"task-daemon: {mistake}\n")
        return MISCONFIGURED
    if show:
        sys.stdout.write(config.shown(settings))
    if check or show:
        return STOPPED
    logs.set_up(settings.daemon.log_level, settings.daemon.log_format)
    return _serve(settings, daemon, throwaway)


def _inherited_socket() -> int | None:
    """Raises ConfigError."""
    try:
        return inherited_socket()
    except (ValueError, OSError) as error:
        raise ConfigError([str(error)]) from error


def _crash_for_a_test() -> None:
    """TASK_DAEMON_CRASH_AT names one of `crash.POINTS`: the process ends itself there. Raises ConfigError for another name."""
    point = os.environ.get(crash.VARIABLE)
    if point:
        try:
            crash.install(point, lambda: os.kill(os.getpid(), signal.SIGKILL))
        except ValueError as error:
            raise ConfigError([f"{crash.VARIABLE}: {error}"]) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="task-daemon", description="Watches long-running tasks and calls back when they have ended.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"task-daemon {__version__}")
    parser.add_argument("--check-config", action="store_true", help="find every mistake in the configuration, and exit")
    parser.add_argument("--show-config", action="store_true", help="print the effective configuration, secrets hidden, and exit")
    parser.add_argument(
        "--simulate", metavar="FILE", help="serve simulated zones as a scenario says (TOML), in a workspace of its own"
    )
    for name, text in (
        ("config-file", "TOML file (default: etc/task-daemon.toml beside the installation, else the built-in defaults)"),
        ("workspace", "directory of the store, the lock and the jobs"),
        ("unix-socket", f"socket to listen on (default: <workspace>/{config.SOCKET_NAME})"),
        ("log-level", "debug, info, warning or error"),
    ):
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", help=text)
    old = parser.add_argument_group("options of the service this one replaces")
    for name in sorted(config.OLD_OPTIONS):
        text = "accepted, without effect" if name in config.OLD_WITHOUT_EFFECT else "as in [region]"
        if name == "enable_mebs":
            old.add_argument("--enable-mebs", "--enable_mebs", nargs="?", const=True, type=_truth, help=text)
        else:
            old.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name, help=text)
    return parser


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in {"true", "1", "yes"}


def _serve(settings: config.Config, daemon: Daemon, throwaway: str | None = None) -> int:
    """`throwaway`: a directory that ends with the daemon."""
    os.umask(0o077)
    try:
        held = lock.take(settings.workspace)
    except WorkspaceTaken as error:
        log.error("%s", error)
        return TAKEN
    except StoreError as error:
        log.error("%s", error)
        return MISCONFIGURED
    _raise_descriptor_limit()
    try:
        # The runner is not closed: it would wait for threads that hang in a file or in the resolving of a name (I11).
        code = _runner().run(_run(daemon))
    except (ListenError, StoreTooNew) as error:
        log.error("%s", error)
        code = MISCONFIGURED
    except (StoreError, Refusal) as error:
        log.error("%s", error)
        code = STORE_FAILED
    except Exception:
        log.critical("the daemon cannot go on", exc_info=True)
        code = BROKEN
    logging.shutdown()
    sys.stdout.flush()
    held.release()
    if throwaway is not None:
        shutil.rmtree(throwaway, ignore_errors=True)
    # Everything is on disk. Threads stuck in a hung backend must not keep the process from ending.
    os._exit(code)


async def _run(daemon: Daemon) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal is no reason to stop watching
    sys.setswitchinterval(TURN)
    await daemon.start(stop)
    _rarely_look_for_garbage()
    notify("READY=1")
    seconds = watchdog_seconds()
    feeding = None if seconds is None else asyncio.create_task(_feed_watchdog(daemon, seconds))
    await stop.wait()
    notify("STOPPING=1")
    if feeding is not None:
        feeding.cancel()
    await daemon.stop()
    return STORE_FAILED if daemon.failed else STOPPED


def _rarely_look_for_garbage() -> None:
    """Nearly all is freed without a look for cycles, and a whole look stops everything: for 20 ms in what is loaded now, which
    stays anyhow, and for 15 ms for 100,000 live tasks."""
    gc.freeze()
    gc.set_threshold(GARBAGE)


async def _feed_watchdog(daemon: Daemon, seconds: float) -> None:
    """A daemon whose loop or store hangs gives no sign of life, and the service manager starts it again."""
    while True:
        await daemon.alive()
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 3)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _runner() -> "asyncio.Runner":
    if find_spec("uvloop") is None:
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
