"""The Unix socket: bound without a moment of wrong mode, counted, and closed without cutting an answer off."""

import asyncio
import errno
import logging
import os
import secrets
import socket
import stat
import time
from collections import Counter

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.web import Application

from task_daemon.api.access import peer_of
from task_daemon.api.base import HARD_STOP
from task_daemon.api.connection import Connection, Stream
from task_daemon.api.context import Api
from task_daemon.api.hot import Hot
from task_daemon.core.errors import TaskDaemonError

log = logging.getLogger("task_daemon.api")

SUN_PATH = 107  # bytes of a socket's path on Linux, without the closing NUL
BACKLOG = 4096
ACCEPTS_PER_TURN = 64  # so that a crowd of new connections does not keep the accepted ones waiting
ACCEPT_PAUSE = 0.5  # seconds without accepting when descriptors have run out
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
CLOSING = 0.2  # seconds for connections to end that have been told to

IDLE_TIMEOUT = 120.0  # seconds, for the whole header block; also the life of an idle connection
BODY_TIMEOUT = 30.0  # seconds, for the whole body
ANSWER_TIMEOUT = 30.0  # seconds in which a client must have read an answer that the kernel's buffers do not hold
HEADER_BYTES = 32 * 1024
SWEEP = 1.0  # seconds between two looks at who is too slow

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
BUSY_BODY = (
    b'{"type":"urn:task-daemon:problem:queue-full","title":"Too many connections","status":503,"detail":"cannot accept the '
    b'connection: too many are open; use one for many requests","code":"queue-full","errors":[],"retryable":true}'
)
BUSY_ANSWER = BUSY % (len(BUSY_BODY), BUSY_BODY)


class ListenError(TaskDaemonError):
    """The socket cannot be made; the message says why and what to do."""


class _Connections(HTTPServer):
    """Tornado's server, which also knows how many connections each user has, and closes those that are too slow."""

    def initialize(self, *args: object, hot: Hot, **kwargs: object) -> None:  # type: ignore[override]
        super().initialize(*args, **kwargs)  # type: ignore[arg-type]
        self.users: dict[IOStream, int] = {}
        self.by_user: Counter[int] = Counter()
        self._hot = hot
        self._answer_timeout = ANSWER_TIMEOUT

    def take(self, connection: socket.socket, uid: int) -> None:
        timeout, after = self._answer_timeout, self._hot.body_after
        stream = Stream(connection, max_buffer_size=2 * HARD_STOP, answer_timeout=timeout, body_after=after)
        self.users[stream] = uid
        self.by_user[uid] += 1
        context = _HTTPRequestContext(stream, ("", 0), self.protocol)
        serving = Connection(stream, self.conn_params, context, self._hot)
        self._connections.add(serving)
        serving.start_serving(self)

    def sweep(self) -> None:
        """Close the connections whose next bytes have not come in time."""
        now = time.monotonic()
        for connection in list(self._connections):
            if isinstance(connection, Connection) and connection.deadline <= now:
                connection.stream.close()

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        assert isinstance(server_conn, HTTP1ServerConnection)
        uid = self.users.pop(server_conn.stream)
        self.by_user[uid] -= 1
        if not self.by_user[uid]:
            del self.by_user[uid]


class ApiServer:
    """Serves `app` on the Unix socket `path`, or on one that was inherited.

    The caller owns the workspace (it holds the lock), so a socket that is there already is a dead one's. `mode` and `group`
    (a gid) are those of the socket file: who may connect at all. `connections` limits all of them, `connections_per_uid`
    those of one user; both keep well below the limit of descriptors, because running out of them stops everything else.
    """

    def __init__(
        self,
        app: Application,
        path: str,
        mode: int = 0o660,
        group: int | None = None,
        connections: int = 1024,
        connections_per_uid: int = 256,
    ) -> None:
        self._api: Api = app.settings["api"]
        self._path = path
        self._mode = mode
        self._group = group
        self._limit = connections
        self._limit_per_uid = connections_per_uid
        self._http = _Connections(
            app,
            hot=app.settings["hot"],
            max_body_size=HARD_STOP,
            max_header_size=HEADER_BYTES,
            idle_connection_timeout=IDLE_TIMEOUT,
            body_timeout=BODY_TIMEOUT,
        )
        self.accepted = 0
        self._listening: list[socket.socket] = []
        self._inode: tuple[int, int] | None = None
        self._loop = IOLoop.current()
        self._sweep_every = min(SWEEP, IDLE_TIMEOUT / 4, BODY_TIMEOUT / 4)
        self._sweeping: object = None

    def start(self) -> None:
        """Bind, and accept connections from now on. Raises ListenError."""
        sock, self._inode = listen(self._path, self._mode, self._group)
        self._listen(sock)

    def adopt(self, fd: int) -> None:
        """Accept connections on a listening socket that somebody else bound (and will remove). Raises ListenError."""
        try:
            sock = socket.socket(fileno=fd)
            if sock.family != socket.AF_UNIX or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.detach()
                raise ListenError(f"cannot serve on descriptor {fd}: a listening Unix stream socket is expected")
        except OSError as error:
            raise ListenError(f"cannot serve on descriptor {fd}: {error.strerror}") from None
        sock.setblocking(False)
        sock.set_inheritable(False)
        self._listen(sock)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._http.users)

    def close_door(self) -> None:
        """Accept nothing more; connections that are open are served on."""
        for sock in self._listening:
            self._loop.remove_handler(sock)
            sock.close()
        self._listening.clear()

    async def stop(self, deadline: float) -> None:
        """Accept nothing more, end all waiting, let answers in flight go out for at most `deadline` seconds, close.

        `Daemon.phase` should say "draining" before, so that kept connections get 503 and `Connection: close`.
        """
        self.close_door()
        self._unlink()
        self._api.manager.stop_waiting()
        try:
            async with asyncio.timeout(deadline):
                await self._api.idle()
                while any(stream.writing() for stream in self._http.users):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("%d requests were not answered within %.1f s and are cut off", self._api.in_flight, deadline)
        if self._sweeping is not None:
            self._loop.remove_timeout(self._sweeping)
        try:
            async with asyncio.timeout(CLOSING):
                await self._http.close_all_connections()
        except TimeoutError:
            log.warning("%d connections did not end within %.1f s", len(self._http.users), CLOSING)

    def _listen(self, sock: socket.socket) -> None:
        self._listening.append(sock)
        self._loop.add_handler(sock, self._accept, IOLoop.READ)
        if self._sweeping is None:
            self._sweep()

    def _sweep(self) -> None:
        self._http.sweep()
        self._sweeping = self._loop.call_later(self._sweep_every, self._sweep)

    def _accept(self, sock: socket.socket, _: int) -> None:
        for _turn in range(ACCEPTS_PER_TURN):
            try:
                connection, _address = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._pause(sock, error)
                    return
                continue  # this client has gone before it was served
            self.accepted += 1
            self._take(connection)

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        """Without a pause the loop would spin: the waiting connection stays readable (measured: a whole core, 10 MB of log
        a second)."""
        log.error("cannot accept connections for %.1f s: %s", ACCEPT_PAUSE, error.strerror)
        self._loop.remove_handler(sock)
        self._loop.call_later(ACCEPT_PAUSE, self._resume, sock)

    def _resume(self, sock: socket.socket) -> None:
        if sock in self._listening:
            self._loop.add_handler(sock, self._accept, IOLoop.READ)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        uid = peer_of(connection).uid
        if len(self._http.users) < self._limit and self._http.by_user[uid] < self._limit_per_uid:
            self._http.take(connection, uid)
            return
        log.warning("refused a connection of user %d: %d are open, %d of them this user's", uid, *self._counts(uid))
        with connection:
            try:
                connection.send(BUSY_ANSWER)
            except OSError:
                return  # gone already

    def _counts(self, uid: int) -> tuple[int, int]:
        return len(self._http.users), self._http.by_user[uid]

    def _unlink(self) -> None:
        """Remove the socket, unless the path is somebody else's by now."""
        if self._inode is None:
            return
        try:
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self._path)
        except FileNotFoundError:
            return
        finally:
            self._inode = None


def listen(path: str, mode: int, group: int | None) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at `path`, and its device and inode.

    It is made under another name and moved into place when owner, mode and backlog are right: nobody can connect too early,
    with too many rights, or in vain. Raises ListenError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        directory = os.open(folder, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: directory {folder}: {error.strerror}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        return sock, _place(sock, directory, folder, name, mode, group)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.close(directory)


def _place(sock: socket.socket, directory: int, folder: str, name: str, mode: int, group: int | None) -> tuple[int, int]:
    try:
        if not stat.S_ISSOCK(os.lstat(name, dir_fd=directory).st_mode):
            raise OSError(errno.EEXIST, "there is something that is no socket; move it away")
    except FileNotFoundError:
        pass
    temporary = f".{secrets.token_hex(4)}.socket"
    address = os.path.join(folder, temporary)
    if len(os.fsencode(address)) > SUN_PATH:
        address = f"/proc/self/fd/{directory}/{temporary}"
    old = os.umask(0o177)
    try:
        sock.bind(address)
    finally:
        os.umask(old)
    try:
        if group is not None:
            _give_to(group, temporary, directory)
        os.chmod(temporary, mode, dir_fd=directory)
        sock.listen(BACKLOG)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise
    found = os.lstat(name, dir_fd=directory)
    return found.st_dev, found.st_ino


def _give_to(group: int, name: str, directory: int) -> None:
    try:
        os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
    except PermissionError:
        raise PermissionError(errno.EPERM, f"the daemon's user must be a member of group {group} to give it the socket") from None
