"""The storage backend: qcow2 and raw images in qemu-storage-daemon or a QEMU guest, through QMP.

A new action is one file and one line in `ACTIONS`.
"""

from typing import Any

from task_daemon.backends.storage.backend import Settings, StorageBackend
from task_daemon.backends.storage.backup import Backup
from task_daemon.backends.storage.clone import Clone
from task_daemon.backends.storage.clone_snapshot import CloneSnapshot
from task_daemon.backends.storage.commit_template import CommitTemplate
from task_daemon.backends.storage.create_template import CreateTemplate
from task_daemon.backends.storage.delete_backup import DeleteBackup
from task_daemon.backends.storage.migrate_template import MigrateTemplate
from task_daemon.backends.storage.restore_backup import RestoreBackup
from task_daemon.backends.storage.run import StorageAction
from task_daemon.core.ports import Backend, Family, ZoneContext

ACTIONS: tuple[type[StorageAction[Any]], ...] = (
    CloneSnapshot,
    Clone,
    Backup,
    RestoreBackup,
    DeleteBackup,
    CreateTemplate,
    CommitTemplate,
    MigrateTemplate,
)


def make(settings: Settings, context: ZoneContext) -> Backend:
    return StorageBackend(settings, context.poll_timeout, ACTIONS)


FAMILY = Family("storage", Settings, make)
