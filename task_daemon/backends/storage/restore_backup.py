"""A volume becomes again what it was at the time of a backup."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from task_daemon.backends.storage.params import Format, Name, Path, RunParams
from task_daemon.backends.storage.run import Launch, StorageAction, file_node, flushable, node_name
from task_daemon.core.errors import StartRefused
from task_daemon.core.model import Task


class RestoreBackupParams(RunParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of the volume is replaced. If the restoring fails half-way, the volume is a mixture: restore again."""

    paths: ClassVar[tuple[str, ...]] = ("source", "volume")

    source: Annotated[Path, Meta(description="the backup, read with those it rests on")]
    source_format: Annotated[Format, Meta(description="format of `source`")] = "qcow2"
    volume: Annotated[Path | None, Meta(description="image file of the volume, at rest; or give `node`")] = None
    format: Annotated[Format, Meta(description="format of `volume`")] = "qcow2"
    node: Annotated[Name | None, Meta(description="node name of the volume, if the storage has it open")] = None

    def __post_init__(self) -> None:
        if (self.volume is None) == (self.node is None):
            raise ValueError("exactly one of `volume` (a file) and `node` (a node name) must be given")


class RestoreBackup(StorageAction[RestoreBackupParams]):
    name = "restore_backup"
    params = RestoreBackupParams
    summary = "Write a backup back into its volume"

    def launch(self, work: Launch, params: RestoreBackupParams) -> None:
        wanted = work.images.chain(params.source, params.source_format)[0].size
        target = params.node  # QEMU itself refuses one of another size
        if params.volume is not None:
            volume, *below = work.images.chain(params.volume, params.format)
            work.images.writable(params.volume, params.format)
            if volume.size != wanted:
                raise StartRefused(
                    f"cannot restore {params.source}: it holds {wanted} bytes and the volume {volume.size}; make them equal first"
                )
            backing = {"backing": file_node(below[0].path, below[0].format, node_name(work.task, "base"))} if below else {}
            target = work.open("dst", params.volume, params.format, read_only=False, **backing)
        source = work.open("src", params.source, params.source_format)
        work.job("blockdev-backup", params, device=source, target=target, sync="full")

    def written(self, task: Task) -> dict[str, Any] | None:
        """A volume that the storage has open is flushed by whoever uses it."""
        params = self.decode(task)
        if params.volume is None:
            return None
        rests_on_another = len(self.images.chain(params.volume, params.format)) > 1
        return flushable(task, "dst", params.format, "base" if rests_on_another else None)
