"""A volume is backed up, in full or what has changed since the last backup."""

import contextlib
from typing import Annotated, ClassVar

from msgspec import Meta

from task_daemon.backends.storage.params import CopyParams, Name, Path
from task_daemon.backends.storage.qmp import CommandRefused
from task_daemon.backends.storage.run import Launch, StorageAction


class BackupParams(CopyParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """In full; with `base`, what has changed since that backup."""

    paths: ClassVar[tuple[str, ...]] = ("source", "target", "base")

    bitmap: Annotated[
        Name | None,
        Meta(description="dirty bitmap of `node`: made together with a full backup, read and cleared by an incremental one"),
    ] = None
    base: Annotated[Path | None, Meta(description="the last backup (qcow2); the new one holds only what `bitmap` says")] = None
    compress: Annotated[bool, Meta(description="compress the data (qcow2)")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bitmap is not None and self.node is None:
            raise ValueError("`bitmap` belongs to a live volume: give `node` instead of `source`")
        if self.base is not None and (self.bitmap is None or self.format != "qcow2"):
            raise ValueError("an incremental backup (`base`) needs `bitmap` and `format` qcow2")
        if self.compress and self.format != "qcow2":
            raise ValueError("`compress` needs `format` qcow2")


class Backup(StorageAction[BackupParams]):
    name = "backup"
    params = BackupParams
    summary = "Back up a volume into a new image, in full or incrementally"
    makes = True

    def launch(self, work: Launch, params: BackupParams) -> None:
        base = None
        if params.base is not None:
            base = work.images.chain(params.base, "qcow2")[0]
        source, target = work.source(params), work.target(params, work.size(params), base)
        if base is not None:
            work.job("blockdev-backup", params, device=source, target=target, sync="incremental", bitmap=params.bitmap)
            return
        backup = work.job_arguments(params, device=source, target=target, sync="full", compress=params.compress)
        if params.bitmap is None:
            work.execute("blockdev-backup", backup)
            return
        bitmap = {"node": source, "name": params.bitmap, "persistent": True}
        steps = [{"type": "block-dirty-bitmap-add", "data": bitmap}, {"type": "blockdev-backup", "data": backup}]
        work.execute("transaction", {"actions": steps})  # both or none, so what the bitmap misses is in the backup

    def undo(self, params: BackupParams) -> None:
        """The bitmap of a full backup that does not exist would make the next full one fail: it came with the job."""
        if params.bitmap is not None and params.base is None:
            with contextlib.suppress(CommandRefused):
                self.connection.execute("block-dirty-bitmap-remove", {"node": params.node, "name": params.bitmap})
