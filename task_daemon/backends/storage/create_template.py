"""A volume becomes a template: a compressed, independent image."""

from typing import Annotated

from msgspec import Meta

from task_daemon.backends.storage.params import CopyParams
from task_daemon.backends.storage.run import Launch, StorageAction


class CreateTemplateParams(CopyParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The template has the volume's state of the start."""

    compress: Annotated[bool, Meta(description="compress the data (qcow2)")] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compress and self.format != "qcow2":
            raise ValueError("`compress` needs `format` qcow2; for raw set it to false")


class CreateTemplate(StorageAction[CreateTemplateParams]):
    name = "create_template"
    params = CreateTemplateParams
    summary = "Make a template out of a volume"
    makes = True

    def launch(self, work: Launch, params: CreateTemplateParams) -> None:
        source, target = work.source(params), work.target(params, work.size(params))
        work.job("blockdev-backup", params, device=source, target=target, sync="full", compress=params.compress)
