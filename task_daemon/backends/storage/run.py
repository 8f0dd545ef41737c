"""What all actions share: preparing, starting once, completing, cancelling and tidying up a job of QEMU.

An action brings its params and `launch`. Names make everything findable after a crash: the job is `task-<uid>`, its nodes
begin with a short hash of the uid (node names have at most 31 bytes), and a file made for it has a second name.
"""

import contextlib
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar, cast

from msgspec import Struct, convert
from msgspec.structs import replace

from task_daemon.backends.storage.block_job import Job, Seen, look, own_name, report
from task_daemon.backends.storage.images import Images, Link
from task_daemon.backends.storage.params import CopyParams, RunParams, SourceParams
from task_daemon.backends.storage.qmp import CommandRefused, Peer, QmpConnection
from task_daemon.core.errors import BackendError, StartRefused, WorkGone
from task_daemon.core.model import Report, State, Task, Verdict

log = logging.getLogger("task_daemon.backends")

P = TypeVar("P", bound=RunParams)

ROLES = ("top", "src", "dst", "base")  # of the nodes that actions open; those that rest on others first
KEPT = frozenset({State.SUCCEEDED, State.LOST})  # ends that leave the result: how lost work ended is for a person to resolve
GONE_ALREADY = ("Failed to find node", "Cannot find device", "not owned by the monitor")  # the last: opened inline by its parent


class Launch:
    """The steps of starting one task's job. Commands that QEMU refuses raise CommandRefused."""

    def __init__(self, connection: QmpConnection, images: Images, task: Task, peer: Peer) -> None:
        self.images = images
        self.task = task
        self._connection = connection
        self._peer = peer

    def open(self, role: str, path: str, image_format: str, read_only: bool = True, **more: Any) -> str:
        """Open an image file in the storage; answers its node name."""
        options = file_node(self.images.inside(path), image_format, node_name(self.task, role), **more)
        return self.add({**options, "read-only": read_only})

    def add(self, options: dict[str, Any]) -> str:
        self.execute("blockdev-add", options)
        return cast(str, options["node-name"])

    def source(self, params: SourceParams) -> str:
        """Node name of the source; a file is opened, after a look at what it rests on."""
        if params.source is None:
            assert params.node is not None
            return params.node
        self.images.chain(params.source, params.source_format)
        return self.open("src", params.source, params.source_format)

    def size(self, params: SourceParams) -> int:
        """Virtual size of the source in bytes."""
        if params.source is not None:
            return self.images.chain(params.source, params.source_format)[0].size
        assert params.node is not None
        return self._size_of(params.node) if params.size is None else params.size

    def _size_of(self, node: str) -> int:
        """Virtual size in bytes of an open node.

        Not asked while a stream is listed: QEMU 7.2.22 was measured to die of query-named-block-nodes (SIGSEGV) as long as
        a concluded stream is not dismissed, and a running one may conclude at any moment.
        """
        streams = [name for name, job in look(self._connection).jobs.items() if job is None or job.type == "stream"]
        if streams:
            raise StartRefused(
                f"cannot ask for the size of node {node} while stream job {streams[0]} is listed, QEMU may die of it; give `size`"
            )
        for entry in self._connection.execute("query-named-block-nodes", {"flat": True}, expect=list):
            if isinstance(entry, dict) and entry.get("node-name") == node:
                return int(entry["image"]["virtual-size"])
        raise StartRefused(f"cannot use node {node}: the storage has no node of this name open")

    def target(self, params: CopyParams, size: int, backing: Link | None = None) -> str:
        """Make the new image and open it; answers its node name."""
        self.images.create(params.target, self.task.uid, params.format, size, self._peer, backing)
        apart: dict[str, Any] = {} if backing is None else {"backing": None}
        return self.open("dst", params.target, params.format, read_only=False, **apart)

    def job(self, command: str, params: RunParams, **arguments: Any) -> None:
        self.execute(command, self.job_arguments(params, **arguments))

    def job_arguments(self, params: RunParams, **arguments: Any) -> dict[str, Any]:
        """With auto-dismiss, QEMU's default, the end of a job and its error would never be seen by a poller."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return {"job-id": own_name(self.task), "auto-dismiss": False, "speed": params.speed, **named}

    def execute(self, command: str, arguments: dict[str, Any]) -> None:
        self._connection.execute(command, arguments)


class StorageAction(ABC, Generic[P]):
    """One verb of the storage backend, bound to one zone."""

    name: str
    params: type[Struct]
    summary: str
    cancellable: bool = True
    makes: ClassVar[bool] = False
    """Whether `params.target` is a file that the action makes."""
    completion: ClassVar[tuple[str, str]] = ("job-complete", "id")
    """Command, and its member for the job's name, that ends a job in READY without an error."""

    def __init__(self, connection: QmpConnection, images: Images) -> None:
        self.connection = connection
        self.images = images

    @abstractmethod
    def launch(self, work: Launch, params: P) -> None:
        """Open what is needed and start the job. Nothing of an earlier attempt is left when it is called."""

    def undo(self, params: P) -> None:
        """Take back what a job that did not succeed has left in the storage. Its job is still listed: it did run."""

    def written(self, task: Task) -> dict[str, Any] | None:
        """The node whose content must be on disk before the success is told, as options of blockdev-reopen; None if the
        job flushes by itself (mirror and active commit do)."""
        if not self.makes:
            return None
        return flushable(task, "dst", cast(CopyParams, self.decode(task)).format)

    def ended(self, task: Task, good: Report) -> Report:
        """The last word on a job that succeeded; harmless when repeated.

        A backup or stream that concluded without an error still has metadata in QEMU's memory: measured with 7.2.22, kill -9
        after the end left the target without its data. Reopening a node as it is flushes it, and tells errors.
        """
        try:
            node = self.written(task)
            if node is not None:
                self.connection.execute("blockdev-reopen", {"options": [node]})
        except (CommandRefused, StartRefused) as error:
            return replace(good, verdict=Verdict.FAILED, message=f"the result cannot be flushed to disk: {error}")
        return good

    def without_job(self, task: Task) -> Report | None:  # noqa: ARG002 -- for those that override it
        """The verdict on work whose job is not listed, if that can be told by something else; None: it cannot."""
        return None

    def tidy_files(self, task: Task) -> None:
        made = (task.handle or {}).get("made")
        if isinstance(made, str):
            self.images.settle(made, task.uid, keep=task.state in KEPT)

    def decode(self, task: Task) -> P:
        return cast(P, convert(task.params, self.params))

    def prepare(self, task: Task) -> dict[str, Any] | None:
        """Which storage process will have the job, and which file is made for it. Raises BackendUnreachable."""
        handle: dict[str, Any] = {"peer": self.connection.ask("query-version").peer.identity}
        if self.makes:
            handle["made"] = cast(CopyParams, self.decode(task)).target
        return handle

    def start(self, task: Task) -> Report | None:
        params = self.decode(task)
        seen = look(self.connection)
        if own_name(task) in seen.jobs:
            found = self.judge(task, seen)
            return replace(found, adopted=True) if found.verdict is Verdict.GOING_ON else found
        known = self.without_job(task)
        if known is not None:
            return known
        before = (task.handle or {}).get("peer")
        if before is not None and seen.peer.identity is not None and before != seen.peer.identity:
            raise WorkGone(f"cannot start task {task.uid} again: it may have run in storage process {before}, which is gone")
        try:
            self._remove_nodes(task)
            self.tidy_files(task)
            self.launch(Launch(self.connection, self.images.of(task.owner), task, seen.peer), params)
        except (CommandRefused, OSError) as error:
            raise StartRefused(f"cannot start {self.name} of {task.id}: {error}") from error
        about = {"uid": task.uid, "zone": task.zone, "action": self.name}
        log.info("started job %s: %s of %s in zone %s", own_name(task), self.name, task.id, task.zone, extra=about)
        return Report(Verdict.GOING_ON)

    def judge(self, task: Task, seen: Seen) -> Report:
        """The report on a run task, with everything done that its state asks for."""
        if own_name(task) not in seen.jobs:
            known = self.without_job(task)
            if known is not None:
                return known
        result = report(task, seen)
        job = seen.jobs.get(own_name(task))
        if result.verdict is Verdict.SUCCEEDED:
            return self.ended(task, result)
        if job is not None and job.status == "ready" and task.state is not State.CANCELLING:
            self._complete(job)
        return result

    def cancel(self, task: Task) -> None:
        with _refusal_is_fine("cancel", task):
            self.connection.execute("job-cancel", {"id": own_name(task)})

    def forget(self, task: Task) -> None:
        seen = look(self.connection)
        name = own_name(task)
        job = seen.jobs.get(name)
        if job is not None and job.status != "concluded":
            self.cancel(task)
            raise BackendError(
                f"cannot clean up after task {task.uid}: its job is still {job.status}, cancelled now; to be repeated"
            )
        if job is not None and task.state is not State.SUCCEEDED:
            self.undo(self.decode(task))
        if name in seen.jobs:  # before the nodes: a concluded stream holds them until it is dismissed
            with _refusal_is_fine("dismiss", task):
                self.connection.execute("job-dismiss", {"id": name})
        self._remove_nodes(task)
        self.tidy_files(task)

    def _complete(self, job: Job) -> None:
        command, member = self.completion
        try:
            self.connection.execute(command, {member: job.id})
        except CommandRefused as error:
            log.debug("job %s is being completed already: %s", job.id, error)

    def _remove_nodes(self, task: Task) -> None:
        """Close what was opened for a task, by name: asking which nodes there are can kill QEMU (see `Launch._size_of`)."""
        for role in ROLES:
            name = node_name(task, role)
            try:
                self.connection.execute("blockdev-del", {"node-name": name})
            except CommandRefused as error:
                if not any(words in str(error) for words in GONE_ALREADY):
                    raise BackendError(f"cannot clean up after task {task.uid}: {error}") from error


def node_name(task: Task, role: str) -> str:
    """At most 31 bytes, beginning with a letter."""
    return f"t{hashlib.sha256(task.uid.encode()).hexdigest()[:16]}-{role}"


def file_node(path: str, image_format: str, name: str, **more: Any) -> dict[str, Any]:
    """Options of an image file as a node. Inline children get no read-only of their own: a commit into them would fail."""
    file = {"driver": "file", "node-name": f"{name}-file", "filename": path}
    return {"driver": image_format, "node-name": name, "file": file, **more}


def flushable(task: Task, role: str, image_format: str, backing: str | None = None) -> dict[str, Any]:
    """Options that leave a node of ours as it is; `backing` is the role of the node below it."""
    name = node_name(task, role)
    node: dict[str, Any] = {"driver": image_format, "node-name": name, "file": f"{name}-file"}
    if image_format == "qcow2":
        node["backing"] = None if backing is None else node_name(task, backing)
    return node


@contextlib.contextmanager
def _refusal_is_fine(verb: str, task: Task) -> Iterator[None]:
    """A job that has ended or is gone needs no more of this."""
    try:
        yield
    except CommandRefused as error:
        log.debug("nothing to %s for task %s: %s", verb, task.uid, error)
