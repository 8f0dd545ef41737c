"""What the registrant of a task may do with a file, judged as the kernel would judge if it opened the file itself.

The daemon and QEMU open files with rights of their own; without this a registrant could read and overwrite through them what
its user may not. Every step of a path is opened below the one before, without following links, so what is judged is one file
and not a name that changes meanwhile. QEMU opens it by name afterwards: SECURITY.md says what follows from that.
"""

import errno
import os
import stat
import struct

from msgspec import Struct

from task_daemon.core.errors import StartRefused
from task_daemon.core.model import Owner

READ, WRITE, SEARCH = 4, 2, 1
VERBS = {READ: "read", WRITE: "write", READ | WRITE: "read and write", SEARCH: "enter", WRITE | SEARCH: "change"}

ROOT = 0
ACL = "system.posix_acl_access"
ACL_VERSION = 2
HEADER, ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # linux/posix_acl_xattr.h: version; tag, rights, id
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID = 0xFFFFFFFF
NO_ACL = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


class Seen(Struct, frozen=True):
    """A file as it was found: whose it is, and its access list (tag, rights, id)."""

    mode: int
    uid: int
    gid: int
    entries: tuple[tuple[int, int, int], ...]

    def grants(self, owner: Owner, wanted: int) -> bool:
        """acl(5), "access check algorithm". Without a list the mode is one of three entries."""
        if owner.uid == self.uid:
            return self._of(USER_OBJ) & wanted == wanted
        mask = self._of(MASK) if any(tag == MASK for tag, _, _ in self.entries) else READ | WRITE | SEARCH
        for tag, rights, number in self.entries:
            if tag == USER and number == owner.uid:
                return rights & mask & wanted == wanted
        groups = {owner.gid, *owner.groups}
        matching = [
            rights & mask
            for tag, rights, number in self.entries
            if (tag == GROUP_OBJ and self.gid in groups) or (tag == GROUP and number in groups)
        ]
        if matching:
            return any(rights & wanted == wanted for rights in matching)
        return self._of(OTHER) & wanted == wanted

    def _of(self, tag: int) -> int:
        return next(rights for found, rights, _ in self.entries if found == tag)


def check(owner: Owner, path: str, wanted: int) -> None:
    """Raises StartRefused, naming the path, unless `owner` itself could open `path` (links resolved) for READ, WRITE or both.
    Root may do everything."""
    if owner.uid != ROOT:
        _demand(owner, path, _walk(owner, path), wanted)


def check_entry(owner: Owner, path: str, removed: bool = False) -> None:
    """Raises StartRefused unless `owner` itself could make, or remove, the name `path` in its directory."""
    if owner.uid == ROOT:
        return
    folder = os.path.dirname(path)
    directory = _walk(owner, folder)
    _demand(owner, folder, directory, WRITE | SEARCH)
    if removed and directory.mode & stat.S_ISVTX:
        found = _walk(owner, path)
        if owner.uid not in (found.uid, directory.uid):
            raise StartRefused(
                f"cannot remove {path} for user {owner.uid}: {folder} is sticky, so only the owners of the file and of the "
                "directory may"
            )


def admit(owner: Owner, path: str) -> None:
    """Let `owner` read and write a file that was made for it and belongs to somebody else. Raises OSError."""
    status = os.stat(path)
    if owner.uid in (ROOT, status.st_uid):
        return
    both = READ | WRITE
    entries = [(USER_OBJ, both, NO_ID), (USER, both, owner.uid), (GROUP_OBJ, 0, NO_ID), (MASK, both, NO_ID), (OTHER, 0, NO_ID)]
    os.setxattr(path, ACL, HEADER.pack(ACL_VERSION) + b"".join(ENTRY.pack(*entry) for entry in entries))


def _walk(owner: Owner, path: str) -> Seen:
    """The file at the end of an absolute path, once the owner was found to be let through every directory before it."""
    done, steps = "/", [step for step in path.split("/") if step]
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps:
            _demand(owner, done, _seen(descriptor), SEARCH)
            done = os.path.join(done, step)
            below = os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return _seen(descriptor)
    except OSError as error:
        raise StartRefused(f"cannot use {path}: {done}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _demand(owner: Owner, path: str, found: Seen, wanted: int) -> None:
    if stat.S_ISLNK(found.mode):
        raise StartRefused(f"cannot use {path}: it became a symbolic link while it was looked at")
    if not found.grants(owner, wanted):
        raise StartRefused(
            f"cannot use {path} for user {owner.uid}, who registered the task: that user may not {VERBS[wanted]} it; "
            "give it the right, or let somebody register who has it"
        )


def _seen(descriptor: int) -> Seen:
    status = os.fstat(descriptor)
    mode = status.st_mode
    entries: tuple[tuple[int, int, int], ...]
    try:
        raw = b"" if stat.S_ISLNK(mode) else os.getxattr(f"/proc/self/fd/{descriptor}", ACL)
    except OSError as error:
        if error.errno not in NO_ACL:
            raise
        raw = b""
    if raw and mode & stat.S_IRWXG:  # an empty mask: the kernel does not look at the list (measured with 6.18)
        entries = tuple(ENTRY.iter_unpack(raw[HEADER.size :]))
    else:
        entries = ((USER_OBJ, mode >> 6 & 7, NO_ID), (GROUP_OBJ, mode >> 3 & 7, NO_ID), (OTHER, mode & 7, NO_ID))
    return Seen(mode, status.st_uid, status.st_gid, entries)
