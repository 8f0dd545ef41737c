"""One held QMP connection for each zone, all of them on one event-loop thread, with a blocking face for worker threads.

qemu.qmp 0.0.6 bounds nothing by itself: connect, execute and disconnect can each wait for ever (a held monitor gives no
greeting, a stopped storage service no answer). Here each call has one time-out over everything it does, and a client
that was in doubt once is never used again.
"""

import asyncio
import contextlib
import errno
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, Message, QMPClient, Runstate
from qemu.qmp.error import ProtocolError

from task_daemon.core.errors import BackendError, BackendUnreachable

log = logging.getLogger("task_daemon.backends")
# It logs each failed connect twice at ERROR, and a time-out within its own cleaning up as a bug of its own with a traceback at
# CRITICAL; we say it once.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

LETTING_GO = 1.0  # seconds for the end of a connection; it is dropped in any case
LONGEST = 2048  # characters of an error from outside that are kept: it goes into tasks, histories, callbacks and the log
MARGIN = 5.0  # seconds the loop thread may be late before a worker stops waiting for it
TELLING = frozenset({"concluded", "ready", "pending"})  # job states that somebody must look at now

T = TypeVar("T")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def readable(error: BaseException | str) -> str:
    """What an error says, so that it can be logged and stored whoever wrote it: of bounded length, and without halves of
    surrogate pairs. qemu.qmp's own errors would show the whole message, of up to 10 MiB."""
    text = error.error_message if isinstance(error, ProtocolError) else str(error)
    return text[:LONGEST].encode(errors="replace").decode() or type(error).__name__


class CommandRefused(BackendError):
    """QEMU understood a command and refused it; the connection is fine."""


class Peer(Struct, frozen=True):
    """The process at the other end, as the kernel told: the same `identity` means the same process as before.

    `identity` is None when the kernel cannot tell (a process of another pid namespace).
    """

    identity: str | None
    uid: int
    gid: int


class Answer(Struct, frozen=True):
    """What a command returned, and who answered."""

    value: Any
    peer: Peer


class _Client(QMPClient):
    """All zones share one thread, and what one storage sends must not hold it up for the others.

    Left out: the texts that qemu.qmp makes of messages for its logs, shown or not (indented JSON by pure Python, 2.4 s for a
    line of 6 MB), and the reading of what nobody asked for (0.7 s for such a line; to find its members takes 0.02 s).
    """

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    async def _do_recv(self) -> Message:
        """A message; the members of a long one that cannot be an answer to us stay unread (as msgspec.Raw)."""
        line = await self._readline()
        await asyncio.sleep(0)  # else all that has arrived is taken in one turn of the loop, however much it is
        try:
            message: Any
            if len(line) < LONGEST or any(exec_id and exec_id.encode() in line for exec_id in self._pending):
                message = json.loads(line)
            else:
                message = _members.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise ProtocolError("a line that is no JSON") from None
        if not isinstance(message, dict):
            raise ProtocolError("a line that is no JSON object")
        return Message(message, eager=False)

    async def _on_message(self, msg: Message) -> None:
        """Answers that nobody waits for are dropped, as QEMU's specification has it."""
        exec_id = msg.get("id")
        if "event" in msg or (isinstance(exec_id, str) and exec_id in self._pending):
            await super()._on_message(msg)
        elif "error" in msg and "id" not in msg:
            raise ProtocolError("an error that belongs to no command")


class _LoopThread:
    """The one asyncio loop of all zones of this process; runs as long as a connection needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="qmp", daemon=True)
                self._thread.start()
            return self._loop

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(MARGIN)
            self._loop = self._thread = None

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


_shared = _LoopThread()


class QmpConnection:
    """The monitor of one zone. Methods may be called from any thread but the loop's own; calls queue up behind each other."""

    def __init__(self, path: str, timeout: float) -> None:
        """`path`: the monitor's socket. `timeout`: seconds for one call, connecting included."""
        self.path = path
        self.timeout = timeout
        self._wake: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_lock = threading.Lock()
        self._closed = False
        self._turn = asyncio.Lock()
        self._client: QMPClient | None = None
        self._socket: socket.socket | None = None
        self._peer: Peer | None = None

    def on_change(self, wake: Callable[[], None]) -> None:
        """`wake` is called on the loop's thread when a job has concluded or waits for somebody."""
        self._wake = wake

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, expect: type = dict) -> Any:
        """Send one command and wait for its return value, which must be of type `expect`.

        Raises CommandRefused with QEMU's own words, BackendUnreachable for everything else.
        """
        return self.ask(command, arguments, expect).value

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None, expect: type = dict) -> Answer:
        """Like `execute`, and says which process answered."""
        return self._run(self._bounded(command, arguments, expect), self.timeout)

    def close(self) -> None:
        """Hang up. The work goes on. Harmless when repeated; nothing can be asked afterwards."""
        with self._loop_lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None:
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._drop(), loop).result(LETTING_GO + MARGIN)
        _shared.release()

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        with self._loop_lock:
            if self._closed:
                work.close()
                raise BackendUnreachable(f"cannot reach storage {self.path}: this connection was closed")
            if self._loop is None:
                self._loop = _shared.acquire()
            loop = self._loop
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(seconds + LETTING_GO + MARGIN)
        except TimeoutError:
            future.cancel()
            raise BackendUnreachable(f"cannot reach storage {self.path}: no result within {seconds:g} s") from None

    async def _bounded(self, command: str, arguments: Mapping[str, Any] | None, expect: type) -> Answer:
        doing = ["wait for the connection"]
        try:
            return await asyncio.wait_for(self._ask(command, arguments, expect, doing), self.timeout)
        except ExecuteError as error:
            raise CommandRefused(f"cannot execute {command}: {readable(error)}") from None
        except Exception as error:
            was = self._client is not None
            cause = await self._drop()
            told = cause if cause is not None and isinstance(error, ExecInterruptedError) else error
            sentence = f"cannot reach storage {self.path}: {self._cause(told, doing[0])}"
            if was:
                log.warning("%s", sentence)
            raise BackendUnreachable(sentence) from None

    async def _ask(self, command: str, arguments: Mapping[str, Any] | None, expect: type, doing: list[str]) -> Answer:
        async with self._turn:
            if self._client is not None and self._client.runstate is not Runstate.RUNNING:
                await self._drop()
            if self._client is None:
                doing[0] = "connect"
                await self._connect()
            assert self._client is not None
            assert self._peer is not None
            doing[0] = command
            value = await self._client.execute(command, dict(arguments) if arguments is not None else None)
            if not isinstance(value, expect):
                raise TypeError(f"{command} answered {type(value).__name__} instead of {expect.__name__}")
            return Answer(value, self._peer)

    async def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self.path)
            peer = _peer_of(sock)
            client = _Client()
            # Returning False: the event is neither queued nor kept. The default keeps 1.5 kB of each for ever.
            client.events.event_filter = self._heard
            await client.connect(sock)
        except BaseException:
            sock.close()
            raise
        self._client, self._socket, self._peer = client, sock, peer
        log.info("connected to storage %s (process %s)", self.path, peer.identity or "of another namespace")

    def _heard(self, event: Mapping[str, Any]) -> bool:
        data = event.get("data")
        if event.get("event") == "JOB_STATUS_CHANGE" and isinstance(data, dict) and data.get("status") in TELLING and self._wake:
            try:
                self._wake()
            except Exception:
                log.exception("cannot pass on an event of storage %s", self.path)
        return False

    async def _drop(self) -> Exception | None:
        """Hang up whatever state the connection is in; answers why it had ended before, if it had."""
        client, sock = self._client, self._socket
        self._client = self._socket = self._peer = None
        if client is None:
            return None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # a reader that waits for a hung service ends at once
        try:
            await asyncio.wait_for(client.disconnect(), LETTING_GO)
        except Exception as error:
            return error
        return None

    def _cause(self, error: Exception, doing: str) -> str:
        cause = error.exc if isinstance(error, ConnectError) else error
        other = "another client may hold this monitor (give the daemon one of its own), or the storage service hangs"
        match cause:
            case FileNotFoundError():
                return "no such socket; start the storage service, or correct `qmp` of the zone"
            case ConnectionRefusedError():
                return "nobody listens on the socket; the storage service has ended, start it again"
            case PermissionError():
                return "permission denied; the daemon's user must be allowed to write to the socket"
            case OSError(errno=errno.EMFILE | errno.ENFILE):
                return "too many files are open in this process or on this machine"
            case BlockingIOError():
                return f"the queue of waiting clients is full; {other}"
            case TimeoutError() if doing == "connect":
                return f"no greeting within {self.timeout:g} s; {other}"
            case TimeoutError():
                return f"no answer to {doing} within {self.timeout:g} s; the storage service hangs"
            case EOFError() if doing == "connect":
                return f"it hung up during the greeting; {other}"
            case EOFError() | ConnectionError():
                return f"it hung up during {doing}"
        if doing == "connect":
            return f"what listens there does not speak QMP ({readable(cause)})"
        return f"the connection broke during {doing} ({readable(cause)})"


def _peer_of(sock: socket.socket) -> Peer:
    """Who listens at the other end. Its identity is pid, start time in clock ticks and boot: a pid used again is told apart.

    SO_PEERCRED names the process that called listen(), measured to be right with `--daemonize` too. Raises OSError when there
    is no descriptor left to read that with: a shorter identity would look like that of another process.
    """
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if pid <= 0:
        return Peer(None, uid, gid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = file.read().rpartition(b")")[2].split()[19].decode()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
    except (FileNotFoundError, PermissionError, ProcessLookupError, IndexError):  # /proc may be hidden from us, for good
        return Peer(str(pid), uid, gid)
    return Peer(f"{pid}.{started}.{boot}", uid, gid)
