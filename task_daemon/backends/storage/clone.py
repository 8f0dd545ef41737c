"""A volume is copied, while it is in use if need be."""

from typing import Annotated, Literal

from msgspec import Meta

from task_daemon.backends.storage.params import CopyParams
from task_daemon.backends.storage.run import Launch, StorageAction


class CloneParams(CopyParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For a live volume give `node`."""

    state: Annotated[
        Literal["start", "end"], Meta(description="which state of a live volume the clone has: that of its start or of its end")
    ] = "start"


class Clone(StorageAction[CloneParams]):
    name = "clone"
    params = CloneParams
    summary = "Copy a volume, live or at rest, into a new image"
    makes = True
    completion = ("block-job-cancel", "device")  # a ready mirror then stays a copy; job-complete would move the guest to it

    def launch(self, work: Launch, params: CloneParams) -> None:
        source, target = work.source(params), work.target(params, work.size(params))
        command = "blockdev-backup" if params.state == "start" else "blockdev-mirror"
        work.job(command, params, device=source, target=target, sync="full")
