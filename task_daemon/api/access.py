"""Who is calling, as the kernel says, and what they may do.

| role     | sees                                | changes    | zones        |
|----------|-------------------------------------|------------|--------------|
| admin    | every task                          | every task | pause/resume |
| reader   | every task, others' partly redacted | nothing    | looks        |
| operator | own tasks                           | own tasks  | looks        |

A caller has every role that one of its user and group ids has. Root and the daemon's own user are always admins; the members
of the socket's group should be operators (main puts that group into `operators`). Tasks of others do not exist for somebody
who may not see them.
"""

import os
import socket
import struct
from collections.abc import Callable
from enum import Enum
from weakref import WeakKeyDictionary

from msgspec import Struct
from tornado.iostream import IOStream

from task_daemon.core.errors import Forbidden
from task_daemon.core.model import Owner

PEER = struct.Struct("3i")  # pid, uid, gid
SO_PEERGROUPS = 59
GROUPS_BYTES = 1024  # the most that Python's getsockopt reads: 256 groups


class Level(Enum):
    """What a route asks of its caller."""

    OPEN = "open"  # anybody who can connect
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Peer(Struct, frozen=True):
    """The process at the other end. `groups` are its supplementary groups."""

    uid: int
    gid: int
    pid: int = 0
    groups: tuple[int, ...] = ()


class Members(Struct, frozen=True):
    """Users and groups that have a role."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def __contains__(self, peer: Peer) -> bool:
        return peer.uid in self.uids or peer.gid in self.gids or not self.gids.isdisjoint(peer.groups)


class Caller(Struct, frozen=True):
    """A peer and its rights. The one place where ownership is judged."""

    peer: Peer
    owner: Owner
    admin: bool
    reader: bool
    operator: bool

    @property
    def sees_all(self) -> bool:
        return self.admin or self.reader

    @property
    def roles(self) -> list[str]:
        named = (("admin", self.admin), ("operator", self.operator), ("reader", self.reader))
        return [name for name, has in named if has]

    def sees(self, owner_uid: int) -> bool:
        return self.sees_all or owner_uid == self.peer.uid

    def sees_all_of(self, owner_uid: int) -> bool:
        """Params and receivers, too."""
        return self.admin or owner_uid == self.peer.uid

    def check_change(self, owner_uid: int, what: str) -> None:
        """Raises Forbidden unless `what` is the caller's own, or the caller is an admin."""
        if not self.admin and owner_uid != self.peer.uid:
            raise Forbidden(
                f"cannot change {what}: it belongs to user {owner_uid}, and you are user {self.peer.uid}; "
                "its owner or an admin can ([access] admins of the configuration)"
            )

    def check(self, level: Level) -> None:
        """Raises Forbidden."""
        match level:
            case Level.OPEN:
                return
            case Level.READ:
                allowed, needed = self.admin or self.reader or self.operator, "readers or operators"
            case Level.WRITE:
                allowed, needed = self.admin or self.operator, "operators"
            case Level.ADMIN:
                allowed, needed = self.admin, "admins"
        if not allowed:
            raise Forbidden(
                f"cannot let user {self.peer.uid} do this: put the user, or one of its groups, into [access] {needed} "
                "of the configuration, or call as root"
            )


def peer_of(sock: socket.socket) -> Peer:
    """The other end of a Unix socket as it was when it connected. A user that nobody is (-1) if the kernel does not say."""
    try:
        pid, uid, gid = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    except OSError:
        return Peer(uid=-1, gid=-1)
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
        groups = struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:  # more than 256 groups, or a kernel before 4.13: the primary group has to do
        groups = ()
    return Peer(uid=uid, gid=gid, pid=pid, groups=groups)


class Access:
    """Gives every connection its caller; asks the kernel once for each."""

    def __init__(
        self,
        admins: Members | None = None,
        operators: Members | None = None,
        readers: Members | None = None,
        peer: Callable[[socket.socket], Peer] = peer_of,
    ) -> None:
        always = frozenset({0, os.geteuid()})
        given = admins or Members()
        self._admins = Members(given.uids | always, given.gids)
        self._operators = operators or Members()
        self._readers = readers or Members()
        self._peer = peer
        self._known: WeakKeyDictionary[IOStream, Caller] = WeakKeyDictionary()

    def caller(self, stream: IOStream) -> Caller:
        found = self._known.get(stream)
        if found is None:
            peer = Peer(uid=-1, gid=-1) if stream.socket is None else self._peer(stream.socket)
            found = self._known[stream] = self.judge(peer)
        return found

    def judge(self, peer: Peer) -> Caller:
        return Caller(
            peer=peer,
            owner=Owner(uid=peer.uid, gid=peer.gid, pid=peer.pid, groups=peer.groups),
            admin=peer in self._admins,
            reader=peer in self._readers,
            operator=peer in self._operators,
        )
