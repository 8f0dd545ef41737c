"""What was changed in an image derived from a template is written into the template."""

import os
from typing import Annotated, ClassVar

from msgspec import Meta

from task_daemon.backends.storage.params import Path, RunParams
from task_daemon.backends.storage.run import Launch, StorageAction, file_node, node_name
from task_daemon.core.errors import StartRefused


class CommitTemplateParams(RunParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Both files at rest. Other images derived from the template change with it. A commit that fails or is cancelled
    half-way leaves the derived image valid and the template changed in part: commit again."""

    paths: ClassVar[tuple[str, ...]] = ("source", "template")

    source: Annotated[Path, Meta(description="the derived image (qcow2)")]
    template: Annotated[Path, Meta(description="the template; must be what `source` rests on")]


class CommitTemplate(StorageAction[CommitTemplateParams]):
    name = "commit_template"
    params = CommitTemplateParams
    summary = "Write the changes of a derived image into its template"

    def launch(self, work: Launch, params: CommitTemplateParams) -> None:
        chain = work.images.chain(params.source, "qcow2")
        if len(chain) < 2 or os.path.realpath(chain[1].path) != work.images.inside(params.template):
            raise StartRefused(f"cannot commit {params.source}: it does not rest on {params.template}")
        derived, template = chain[:2]
        work.images.writable(template.path, template.format)
        below = file_node(template.path, template.format, node_name(work.task, "base"))
        device = work.add({**file_node(derived.path, derived.format, node_name(work.task, "top")), "backing": below})
        work.job("block-commit", params, device=device, base_node=node_name(work.task, "base"))
