"""A backup is deleted: at once if nothing rests on it, after what it holds was merged into the next one otherwise."""

import os
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from task_daemon.backends.storage.images import Link
from task_daemon.backends.storage.params import Path, RunParams
from task_daemon.backends.storage.run import Launch, StorageAction, file_node, flushable, node_name
from task_daemon.core.errors import StartRefused
from task_daemon.core.model import Report, Task, Verdict


class DeleteBackupParams(RunParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All restore points but the deleted one stay valid, also if the merging fails or is cancelled."""

    paths: ClassVar[tuple[str, ...]] = ("backup", "child")

    backup: Annotated[Path, Meta(description="the backup to delete")]
    child: Annotated[Path | None, Meta(description="the next backup (qcow2), which rests on it; absent: none does")] = None


class DeleteBackup(StorageAction[DeleteBackupParams]):
    name = "delete_backup"
    params = DeleteBackupParams
    summary = "Delete a backup, out of the middle of a chain too"

    def prepare(self, task: Task) -> dict[str, Any] | None:
        return None if self.decode(task).child is None else super().prepare(task)

    def start(self, task: Task) -> Report | None:
        params = self.decode(task)
        if params.child is not None:
            return super().start(task)
        try:
            self.images.of(task.owner).delete(params.backup, task.uid)
        except OSError as error:
            raise StartRefused(f"cannot delete {params.backup}: {error}") from error
        return Report(Verdict.SUCCEEDED)

    def launch(self, work: Launch, params: DeleteBackupParams) -> None:
        assert params.child is not None
        chain = work.images.chain(params.child, "qcow2")
        if len(chain) < 2 or os.path.realpath(chain[1].path) != work.images.inside(params.backup):
            raise StartRefused(f"cannot delete {params.backup}: {params.child} does not rest on it; name the backup that does")
        work.images.writable(params.child, "qcow2")
        work.images.removable(params.backup)
        child, doomed, *base = chain
        nodes = self._backing(work.task, doomed, base)
        device = work.add({**file_node(child.path, child.format, node_name(work.task, "top")), "backing": nodes})
        if not base:
            work.job("block-stream", params, device=device)
            return
        # As the deleted one named its base, so does the child, unless that was relative to another directory.
        same_place = os.path.dirname(os.path.realpath(child.path)) == os.path.dirname(os.path.realpath(doomed.path))
        recorded = doomed.backing if same_place and doomed.backing else base[0].path
        work.job("block-stream", params, device=device, base_node=node_name(work.task, "base"), backing_file=recorded)

    def written(self, task: Task) -> dict[str, Any] | None:
        rests_on_another = len(self.images.chain(self.decode(task).backup, "qcow2")) > 1
        return flushable(task, "top", "qcow2", "base" if rests_on_another else None)

    def ended(self, task: Task, good: Report) -> Report:
        """Nothing is taken away before what was merged is on disk."""
        backup = self.decode(task).backup
        if self.images.deleted(backup, task.uid):
            return good
        flushed = super().ended(task, good)
        if flushed.verdict is not Verdict.SUCCEEDED:
            return flushed
        try:
            self.images.delete(backup, task.uid)
        except (OSError, StartRefused) as error:
            return replace(good, verdict=Verdict.FAILED, message=f"nothing rests on {backup} any more, but it stays: {error}")
        return good

    def without_job(self, task: Task) -> Report | None:
        """The file is taken away only after the merging, so its absence by our hand is proof of success."""
        params = self.decode(task)
        if self.images.deleted(params.backup, task.uid):
            return Report(Verdict.SUCCEEDED)
        return None if params.child is not None else Report(Verdict.UNKNOWN)

    def forget(self, task: Task) -> None:
        if self.decode(task).child is not None:
            super().forget(task)
        else:
            self.tidy_files(task)

    def tidy_files(self, task: Task) -> None:
        if task.done:
            self.images.settle(self.decode(task).backup, task.uid, keep=True)

    @staticmethod
    def _backing(task: Task, doomed: Link, base: list[Link]) -> dict[str, Any]:
        below = {"backing": file_node(base[0].path, base[0].format, node_name(task, "base"))} if base else {}
        return file_node(doomed.path, doomed.format, node_name(task, "src"), **below)
