"""A template is copied to the storage of another place, over NBD."""

import os
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Meta

from task_daemon.backends.storage import rights
from task_daemon.backends.storage.params import SourceParams
from task_daemon.backends.storage.run import Launch, StorageAction, node_name

NBD_PORT = 10809


class MigrateTemplateParams(SourceParams, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The other side exports the image that is to receive the template, writable and of the same size, before this is
    registered; its content is replaced."""

    target: Annotated[
        str,
        Meta(min_length=7, max_length=4096, description="nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH"),
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        nbd_options(self.target)


class MigrateTemplate(StorageAction[MigrateTemplateParams]):
    name = "migrate_template"
    params = MigrateTemplateParams
    summary = "Copy a template to another storage through an NBD export there"
    completion = ("block-job-cancel", "device")  # a ready mirror then stays a copy

    def launch(self, work: Launch, params: MigrateTemplateParams) -> None:
        source = work.source(params)
        options = nbd_options(params.target)
        if options["server"]["type"] == "unix":
            rights.check(work.task.owner, os.path.realpath(options["server"]["path"]), rights.WRITE)
        target = work.add({"driver": "nbd", "node-name": node_name(work.task, "dst"), **options})
        work.job("blockdev-mirror", params, device=source, target=target, sync="full")


def nbd_options(url: str) -> dict[str, Any]:
    """Server and export of an NBD URL as QEMU's options. Raises ValueError saying what would be accepted."""
    parts = urlsplit(url)
    export = unquote(parts.path.removeprefix("/"))
    query = parse_qs(parts.query)
    if parts.scheme == "nbd+unix" and not parts.netloc and list(query) == ["socket"] and query["socket"][0].startswith("/"):
        server = {"type": "unix", "path": query["socket"][0]}
    elif parts.scheme == "nbd" and parts.hostname and not query:
        server = {"type": "inet", "host": parts.hostname, "port": str(parts.port or NBD_PORT)}
    else:
        raise ValueError("`target` must be nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH")
    return {"server": server, "export": export}
