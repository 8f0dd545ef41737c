"""Acting as the user who registered a task."""

import os
import pwd

from msgspec import Struct

from task_daemon.core.model import Owner

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account(Struct, frozen=True):
    uid: int
    gid: int
    groups: list[int]
    name: str
    home: str

    @property
    def other(self) -> bool:
        """Somebody else than who runs the daemon."""
        return self.uid != os.geteuid()

    def environment(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": self.home, "USER": self.name, "LOGNAME": self.name, "LANG": "C.UTF-8"}


def may_act_as(uid: int) -> bool:
    """Only root can become somebody else."""
    return os.geteuid() in (0, uid)


def account_of(owner: Owner) -> Account:
    """The owner with all its groups. May ask a directory service: not for the event loop.

    A uid without an entry in the user database has just the group the kernel told, and `/` as its home.
    """
    try:
        entry = pwd.getpwuid(owner.uid)
    except KeyError:
        return Account(uid=owner.uid, gid=owner.gid, groups=[owner.gid], name=str(owner.uid), home="/")
    groups = os.getgrouplist(entry.pw_name, owner.gid)
    return Account(uid=owner.uid, gid=owner.gid, groups=groups, name=entry.pw_name, home=entry.pw_dir)
