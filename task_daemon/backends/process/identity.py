"""Which process is meant. A pid is used again sooner or later; a pid, its start time and the boot id together never are."""

import os
import select
import signal
from errno import EINVAL, ENOENT, ESRCH
from functools import cache
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

PID_MAX = 1 << 22  # PID_MAX_LIMIT of Linux
NO_SUCH_PROCESS = (ESRCH, EINVAL, ENOENT)  # the latter two for a number that is no process, only a thread or nothing
GONE = "ZX"  # states of /proc/PID/stat in which nothing runs any more: zombie, dead


class Identity(Struct, frozen=True):
    """`start` is in clock ticks since boot (field 22 of /proc/PID/stat, see proc(5))."""

    pid: Annotated[int, Meta(ge=0, le=PID_MAX)]
    start: int
    boot: str


class Facts(Struct, frozen=True):
    """`leader`: the pid names a whole process, not one thread of it."""

    identity: Identity
    uid: int
    leader: bool


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """The process that has this pid now, zombies included; None if there is none."""
    stat = _stat(pid)
    return None if stat is None else Identity(pid, stat[1], boot_id())


def facts(pid: int) -> Facts | None:
    """Who a process is and to whom it belongs (its real uid); None if there is none."""
    identity = identify(pid)
    if identity is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return Facts(identity=identity, uid=int(fields["Uid"][0]), leader=int(fields["Tgid"][0]) == pid)


def alive(identity: Identity) -> bool:
    """Whether exactly this process still runs. A zombie does not: it has ended, and only its parent has not asked yet."""
    if identity.boot != boot_id():
        return False
    stat = _stat(identity.pid)
    return stat is not None and stat[1] == identity.start and stat[0] not in GONE


def pin(pid: int) -> int | None:
    """A descriptor that stays with this process, readable once it has ended (pidfd_open(2)); None if there is none."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in NO_SUCH_PROCESS:
            return None
        raise


def send(identity: Identity, number: signal.Signals, uid: int, group: bool = False) -> bool:
    """Signal exactly this process, or the group it leads, if it belongs to `uid`; False if it does not, or is gone.

    The descriptor pins the process, so its pid cannot change hands in between.
    """
    descriptor = pin(identity.pid)
    if descriptor is None:
        return False
    try:
        now = facts(identity.pid)
        if now is None or now.uid != uid or not alive(identity):
            return False
        if group:
            os.killpg(identity.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait(identity: Identity, seconds: float) -> bool:
    """Wait until this process has ended, at most so long; False if it has not."""
    descriptor = pin(identity.pid)
    if descriptor is None:
        return True
    try:
        if alive(identity):
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll(seconds * 1000)
    finally:
        os.close(descriptor)
    return not alive(identity)


def reap(identity: Identity) -> None:
    """Take the exit status of an ended child of ours, so that it does not stay as a zombie. Harmless for any other."""
    stat = _stat(identity.pid)
    if stat is None or identity.boot != boot_id() or stat[1] != identity.start or stat[0] not in GONE:
        return
    try:
        os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return  # not ours: started by an earlier daemon, so init takes it


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the second field is the program's name in parentheses and may itself hold spaces and parentheses
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
