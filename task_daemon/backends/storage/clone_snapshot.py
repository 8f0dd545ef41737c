"""A snapshot becomes an independent image."""

from task_daemon.backends.storage.params import CopyParams
from task_daemon.backends.storage.run import Launch, StorageAction


class CloneSnapshotParams(CopyParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A snapshot does not change, so the clone is its content."""


class CloneSnapshot(StorageAction[CloneSnapshotParams]):
    name = "clone_snapshot"
    params = CloneSnapshotParams
    summary = "Make an independent image out of a snapshot"
    makes = True

    def launch(self, work: Launch, params: CloneSnapshotParams) -> None:
        source, target = work.source(params), work.target(params, work.size(params))
        work.job("blockdev-backup", params, device=source, target=target, sync="full")
