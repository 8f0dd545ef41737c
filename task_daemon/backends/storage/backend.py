"""The client of one storage zone: one question to QEMU for all its tasks."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from task_daemon.backends.storage.block_job import look, report
from task_daemon.backends.storage.images import NO_ROOTS, Images
from task_daemon.backends.storage.params import RunParams
from task_daemon.backends.storage.qmp import QmpConnection
from task_daemon.backends.storage.run import StorageAction
from task_daemon.core.errors import BackendUnreachable, InvalidBody
from task_daemon.core.model import Mode, Report, Task, Verdict
from task_daemon.core.ports import Action

log = logging.getLogger("task_daemon.backends")

SOCKET_PATH_MAX = 107  # bytes in sockaddr_un, without the closing zero
JOB_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,299}")  # measured: what QEMU accepts as a job name


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[zones.x]` of a storage zone.

    `qmp`: absolute path of a monitor's socket that nobody else uses; a monitor serves one client at a time.
    `roots`: directories below which the files of run tasks must lie; without any, the zone can only track work.
    """

    qmp: str
    roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.qmp.startswith("/"):
            raise ValueError(f"`qmp` must be an absolute path of a socket, not {self.qmp!r}")
        length = len(self.qmp.encode(errors="surrogateescape"))
        if length > SOCKET_PATH_MAX:
            raise ValueError(f"`qmp` has {length} bytes, and a socket's path has at most {SOCKET_PATH_MAX}: {self.qmp}")
        for root in self.roots:
            if not root.startswith("/"):
                raise ValueError(f"`roots` must be absolute paths of directories, not {root!r}")


class StorageBackend:
    """A zone whose work is QEMU's jobs. A restart of the storage is noticed by the process that answers."""

    def __init__(self, settings: Settings, timeout: float, actions: Sequence[type[StorageAction[Any]]]) -> None:
        """`timeout`: seconds for one command of the storage or of qemu-img."""
        self._connection = QmpConnection(settings.qmp, timeout)
        self._images = Images(settings.roots, timeout)
        made = [action(self._connection, self._images) for action in actions]
        self._actions: dict[str, StorageAction[Any]] = {action.name: action for action in made}
        self.actions: Mapping[str, Action] = self._actions

    def admit(self, task: Task) -> dict[str, Any] | None:
        if task.mode is Mode.TRACK:
            if task.job is not None and not JOB_NAME.fullmatch(task.job):
                sentence = f"{task.job!r} is no job of QEMU: a letter first, then letters, digits, '.', '_' and '-'"
                raise InvalidBody(f"cannot track job of {task.id}: {sentence}", members=[("/job", sentence)])
            return None
        params: RunParams = self._actions[task.action].decode(task)
        wrong = [] if self._images.roots else [("/params", NO_ROOTS)]
        wrong += [
            (f"/params/{member}", objection)
            for member in params.paths
            if (path := getattr(params, member)) is not None and (objection := self._images.objection(path))
        ]
        if wrong:
            raise InvalidBody(f"cannot run {task.action} of {task.id}: {wrong[0][1]}", members=wrong)
        return None

    def poll(self, tasks: Sequence[Task]) -> Mapping[str, Report]:
        seen = look(self._connection)
        reports: dict[str, Report] = {}
        for task in tasks:
            try:
                if task.mode is Mode.RUN:
                    reports[task.uid] = self._actions[task.action].judge(task, seen)
                else:
                    reports[task.uid] = report(task, seen)
            except BackendUnreachable:
                raise
            except Exception:
                log.exception("cannot judge task %s (%s of %s)", task.uid, task.action, task.id, extra={"uid": task.uid})
                reports[task.uid] = Report(Verdict.UNKNOWN)
        return reports

    def events(self, wake: Callable[[], None]) -> None:
        self._connection.on_change(wake)

    def close(self) -> None:
        self._connection.close()
