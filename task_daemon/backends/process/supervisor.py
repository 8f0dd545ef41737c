"""Stays with one command from its start to its end, whatever becomes of the daemon. Run as a script, never imported.

Started with `python -I -S`, so it sees the standard library only, and of that little: it has to start in milliseconds.

In:   descriptor 0  the order, JSON: argv, cwd, env, log_bytes, grace, and uid, gid, groups if it is to become somebody else
      descriptor 1  closed as soon as the command runs, or it is clear that it will not
      descriptor 3  the job's directory; its path may lead through directories that the user cannot enter
Out:  claim         who supervises: {pid, start, boot}. Linked into place, so of two supervisors only one goes on, and on
                    the disk before the command starts
      child         the command's process, the same three, written by that process just before it becomes the command
      tail          the last 4 KiB of output, replaced at most twice a second
      log, log.1    the output, the newest `log_bytes` of it at most
      end           {status} or {signal} or {error}, and cancelled; on the disk before the supervisor goes
SIGTERM cancels: SIGTERM to the command's process group, SIGKILL after `grace` seconds.
"""

# ruff: noqa: SIM105 - importing contextlib would cost milliseconds at each start
from __future__ import annotations

import json
import os
import select
import signal
import time
import warnings  # noqa: F401 - os.execvpe would import it, when as another user the library may be out of reach

TYPE_CHECKING = False  # importing `typing` for it would cost milliseconds at each start
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = 3
TAIL = 4096
TAIL_EVERY = 0.5  # seconds
LEFT_OVER = 1 << 24  # bytes still read after the end, in case a grandchild goes on writing for ever
RETRY_FOR = 3600  # seconds during which a full disk may be cleared so that the end can be written


def write(name: str, text: bytes, durable: bool = True) -> None:
    """Whole or not at all; with `durable` it survives a power cut."""
    temporary = f"{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600, dir_fd=DIRECTORY)
    try:
        os.write(descriptor, text)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, name, src_dir_fd=DIRECTORY, dst_dir_fd=DIRECTORY)
    if durable:
        os.fsync(DIRECTORY)


def own_identity() -> bytes:
    with open("/proc/self/stat") as file:
        start = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return json.dumps({"pid": os.getpid(), "start": start, "boot": boot}).encode()


def claim() -> bool:
    """False if somebody else has the job, or it was taken away meanwhile."""
    mine = f"claim.by.{os.getpid()}"
    try:
        write(mine, own_identity())
        os.link(mine, "claim", src_dir_fd=DIRECTORY, dst_dir_fd=DIRECTORY)
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        try:
            os.unlink(mine, dir_fd=DIRECTORY)
        except FileNotFoundError:
            pass
    os.fsync(DIRECTORY)
    return True


def become(order: dict[str, Any]) -> None:
    """Groups first: afterwards it would not be allowed any more."""
    if "uid" in order:
        os.setgroups(order["groups"])
        os.setresgid(order["gid"], order["gid"], order["gid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])


def spawn(order: dict[str, Any], output: int) -> tuple[int, str]:
    """Start the command as leader of a process group of its own. Returns its pid, and why it could not be run, if so."""
    error_in, error_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        what = "job directory"
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            write("child", own_identity(), durable=False)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.umask(0o022)
            what = order["cwd"]
            os.chdir(what)
            what = order["argv"][0]
            os.execvpe(what, order["argv"], order["env"])  # noqa: S606 - running what the user asks for is the purpose
        except Exception as error:
            os.write(error_out, f"{what}: {getattr(error, 'strerror', None) or error}".encode())
        finally:
            os._exit(127)
    os.close(error_out)
    with open(error_in, "rb") as file:
        return pid, file.read().decode(errors="replace")


class Output:
    """What the command prints: its end for the daemon, the rest for people. A full disk must not stop the command."""

    def __init__(self, log_bytes: int) -> None:
        self.half = log_bytes // 2
        self.logged = 0
        self.tail = b""
        self.due: float | None = None
        self.log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600, dir_fd=DIRECTORY)

    def take(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-TAIL:]
        if self.due is None:
            self.due = time.monotonic() + TAIL_EVERY
        try:
            if self.logged + len(data) > self.half:
                os.rename("log", "log.1", src_dir_fd=DIRECTORY, dst_dir_fd=DIRECTORY)
                fresh = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600, dir_fd=DIRECTORY)
                os.dup2(fresh, self.log, inheritable=False)
                os.close(fresh)
                self.logged = 0
            self.logged += os.write(self.log, data[-self.half :])
        except OSError:
            pass

    def show(self) -> None:
        self.due = None
        try:
            write("tail", self.tail, durable=False)
        except OSError:
            pass


class Command:
    """The running command. Made while SIGTERM is held back: one that came meanwhile is delivered when that ends."""

    def __init__(self, grace: float, pid: int, output: Output, pipe: int, bell: int) -> None:
        self.grace = grace
        self.pid = pid
        self.output = output
        self.pipe = pipe
        self.bell = bell
        self.kill_at: float | None = None
        self.cancelled = False
        self.asked = False
        signal.signal(signal.SIGTERM, self.on_term)

    def on_term(self, *_: object) -> None:
        self.asked = True

    def signal_group(self, number: signal.Signals) -> None:
        # the leader is not reaped before `finish`, so its number cannot belong to anybody else
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def ended(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def stay(self) -> None:
        poller = select.poll()
        poller.register(self.pipe, select.POLLIN)
        poller.register(self.bell, select.POLLIN)
        while not self.ended():
            moments = [moment for moment in (self.output.due, self.kill_at) if moment is not None]
            wait = max(0.0, min(moments) - time.monotonic()) * 1000 if moments else None
            for descriptor, _ in poller.poll(wait):
                if descriptor == self.bell:
                    os.read(self.bell, 512)
                else:
                    data = os.read(self.pipe, 1 << 16)
                    if data:
                        self.output.take(data)
                    else:
                        poller.unregister(self.pipe)
            self.cancel_if_asked()
            if self.output.due is not None and time.monotonic() >= self.output.due:
                self.output.show()

    def cancel_if_asked(self) -> None:
        if self.asked and not self.cancelled:
            self.cancelled = True
            self.kill_at = time.monotonic() + self.grace
            self.signal_group(signal.SIGTERM)
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.kill_at = None
            self.signal_group(signal.SIGKILL)

    def finish(self) -> dict[str, Any]:
        """Returns what goes into `end`."""
        if self.cancelled:
            self.signal_group(signal.SIGKILL)
        os.set_blocking(self.pipe, False)
        left = LEFT_OVER
        while left > 0:
            try:
                data = os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self.output.take(data)
            left -= len(data)
        self.output.show()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return {"signal": os.WTERMSIG(status), "cancelled": self.cancelled}
        return {"status": os.WEXITSTATUS(status), "cancelled": self.cancelled}


def write_end(end: dict[str, Any]) -> None:
    until = time.monotonic() + RETRY_FOR
    while True:
        try:
            write("end", json.dumps(end).encode())
            return
        except FileNotFoundError:
            return  # the job was forgotten: nobody wants to know
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def main() -> None:
    with open(0, closefd=False, encoding="utf-8") as file:
        order = json.load(file)
    os.closerange(4, 65536)
    os.set_inheritable(DIRECTORY, False)
    os.setsid()
    become(order)
    os.umask(0o077)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.chdir("/")
    kept = Output(order["log_bytes"])
    bell, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    pipe, output = os.pipe()
    # SIGTERM is held back until the command runs; SIGCHLD only has to ring the bell
    signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM])
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if not claim():
        return
    pid, error = spawn(order, output)
    os.close(output)
    if error:
        os.waitpid(pid, 0)
        write_end({"error": error})
        return
    os.dup2(nothing, 1)
    command = Command(order["grace"], pid, kept, pipe, bell)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    command.stay()
    write_end(command.finish())


if __name__ == "__main__":
    main()
