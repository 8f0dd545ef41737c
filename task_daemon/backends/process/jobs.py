"""The directory of one started command: `<zone's directory>/jobs/<task uid>/`, shared with its supervisor.

Which files are in it and when they appear is written at the top of `supervisor.py`. The directory belongs to the user whose
command it is, so what is read from it is not trusted: no links are followed, and sizes are bounded.
"""

import json
import os
import select
import shutil
import stat
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from task_daemon.backends.process.account import Account
from task_daemon.backends.process.identity import PID_MAX, Identity, identify, reap, wait
from task_daemon.core.errors import BackendError

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LEAVES_WITHIN = 1.0  # seconds a supervisor without a job is waited for
READ_AT_MOST = 65_536  # bytes of any file in the directory

T = TypeVar("T")
D = TypeVar("D")


class Claim(Struct, frozen=True):
    """Who supervises the command. `cancelled`: nobody ever will, it was cancelled before it began."""

    pid: Annotated[int, Meta(ge=0, le=PID_MAX)] = 0
    start: int = 0
    boot: str = ""
    cancelled: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start, self.boot)


class End(Struct, frozen=True):
    """How the command ended: by itself (`status`), by a signal, or it could not even be run (`error`)."""

    status: int | None = None
    signal: int | None = None
    error: str | None = None
    cancelled: bool = False


class Job:
    def __init__(self, zone_directory: str, uid: str) -> None:
        self.path = Path(zone_directory, "jobs", uid)

    def make(self, account: Account) -> None:
        """Make the directory, on the disk when this returns; nothing happens if it is there."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if account.other:
            os.chown(self.path, account.uid, account.gid)
        _sync(self.path.parent)

    def exists(self) -> bool:
        return self.path.is_dir()

    def claim(self) -> Claim | None:
        """None: no supervisor has taken the job, so the command was never run."""
        text = self._read("claim")
        return None if text is None else _decoded(text, Claim, Claim())

    def child(self) -> Identity | None:
        text = self._read("child")
        return None if text is None else _decoded(text, Identity, None)

    def end(self) -> End | None:
        """None: not ended, or nobody was there to write it down."""
        text = self._read("end")
        return None if text is None else _decoded(text, End, End(error="what was written about its end cannot be read"))

    def tail(self) -> str:
        """The last output, up to 4 KiB."""
        return (self._read("tail") or b"").decode(errors="replace")

    def claim_as_cancelled(self) -> bool:
        """Take the job so that no supervisor can; False if one has it already."""
        mine = self.path / f"claim.by.daemon.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(mine, flags, 0o644), "wb") as file:
            file.write(b'{"cancelled": true}')
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(mine, self.path / "claim")
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        _sync(self.path)
        return True

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=False)
        _sync(self.path.parent)

    def supervise(self, order: dict[str, Any], account: Account, wait: float) -> None:
        """Start a supervisor and wait, at most so many seconds, until the command runs or it is clear that it will not.

        The supervisor begins as the daemon's user, because the interpreter may be readable by that one alone, and
        becomes the command's user before it does anything else. Raises BackendError.
        """
        if account.other:
            order = {**order, "uid": account.uid, "gid": account.gid, "groups": account.groups}
        opened: list[int] = []
        try:
            opened.append(os.memfd_create("order"))
            os.write(opened[0], json.dumps(order).encode())
            os.lseek(opened[0], 0, os.SEEK_SET)
            opened.append(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
            ready, told = os.pipe()
            opened.append(ready)
            try:
                pid = _spawn(opened[0], told, opened[1])
            finally:
                os.close(told)
            poller = select.poll()
            poller.register(ready, select.POLLIN)
            poller.poll(wait * 1000)
        except OSError as error:
            raise BackendError(f"cannot start the supervisor of {self.path.name}: {error}") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        claim = self.claim()
        if claim is None or claim.pid != pid:
            self._see_off(pid)

    def _see_off(self, pid: int) -> None:
        """A supervisor that found the job taken leaves at once; it must not stay as a zombie."""
        loser = identify(pid)
        if loser is not None and wait(loser, LEAVES_WITHIN):
            reap(loser)
        if self.claim() is None:
            raise BackendError(f"cannot start the supervisor of {self.path.name}: it did not get as far as taking the job")

    def _read(self, name: str) -> bytes | None:
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            return file.read(READ_AT_MOST)


def _spawn(order: int, told: int, directory: int) -> int:
    """posix_spawn, because it costs the same however large the daemon has grown."""
    argv = [sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR)]
    actions = [
        (os.POSIX_SPAWN_DUP2, order, 0),
        (os.POSIX_SPAWN_DUP2, told, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, directory, 3),
    ]
    # the user's `env` must not reach the supervisor: it starts as root
    return os.posix_spawn(sys.executable, argv, {"LANG": "C.UTF-8"}, file_actions=actions, setsigmask=[])


def _decoded(text: bytes, kind: type[T], otherwise: D) -> T | D:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        return otherwise


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
