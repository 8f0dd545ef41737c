"""Image files: where they may lie, what is in them, making new ones without ever touching anybody's data.

A file made for a task has a second name beside it, `.task-<uid>`, until the end of the task is on disk. The two names are
one file (a hard link): that is the proof, whatever crashed in between, that the file is ours to remove. The link is made
with link(2), which never replaces a file that exists.
"""

import contextlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, ValidationError, convert, field

from task_daemon.backends.storage import rights
from task_daemon.backends.storage.qmp import Peer
from task_daemon.core.errors import BackendUnreachable, StartRefused
from task_daemon.core.model import Owner

log = logging.getLogger("task_daemon.backends")

FORMATS = ("qcow2", "raw")
CHAIN = 200  # images; QEMU itself gives up on longer ones
DAEMON = Owner(rights.ROOT, 0)  # what the daemon does for itself it does with the rights it has
NO_ROOTS = "no `roots` are configured for this zone, so it can only track work; set `roots` to the directories of its images"


class Link(Struct, frozen=True):
    """One image of a backing chain, as `qemu-img info --output=json` shows it. Sizes in bytes."""

    path: str = field(name="filename")
    format: str
    size: int = field(name="virtual-size")
    backing: str | None = field(default=None, name="backing-filename")  # as it stands in the header
    below: str | None = field(default=None, name="full-backing-filename")
    backing_format: str | None = field(default=None, name="backing-filename-format")
    specific: dict[str, Any] = field(default_factory=dict, name="format-specific")

    @property
    def data_file(self) -> str | None:
        """Where a qcow2 image keeps its data, if not in itself."""
        data = self.specific.get("data")
        named = data.get("data-file") if isinstance(data, dict) else None
        return named if isinstance(named, str) else None


class Images:
    """The files of one zone. Blocking; each call of qemu-img ends within `timeout` seconds.

    `owner`: what is read, written, made and removed must be open to this user, too.
    """

    def __init__(self, roots: Sequence[str], timeout: float, owner: Owner = DAEMON) -> None:
        self.roots = tuple(os.path.normpath(root) for root in roots)
        self.timeout = timeout
        self._owner = owner

    def of(self, owner: Owner) -> "Images":
        """The same files with the rights of `owner`."""
        return Images(self.roots, self.timeout, owner)

    def objection(self, path: str) -> str | None:
        """Why a path may not be used, judged by its text alone (no file is touched); None if it may."""
        if not self.roots:
            return (
                "no `roots` are configured for this zone, so it can only track work; set `roots` to the directories of its images"
            )
        if not os.path.isabs(path) or os.path.normpath(path) != path or path.startswith("//"):
            return f"{path!r} is not an absolute path without '.', '..' and doubled slashes"
        if not any(_below(path, root) for root in self.roots):
            return f"{path!r} does not lie below one of {', '.join(self.roots)}"
        return None

    def inside(self, path: str) -> str:
        """The path with all symbolic links resolved, if it really lies below a root. Raises StartRefused."""
        objection = self.objection(path)
        if objection:
            raise StartRefused(f"cannot use file {path}: {objection}")
        real = os.path.realpath(path)
        if not any(_below(real, os.path.realpath(root)) for root in self.roots):
            raise StartRefused(f"cannot use file {path}: it is {real}, which does not lie below one of {', '.join(self.roots)}")
        return real

    def chain(self, path: str, image_format: str) -> list[Link]:
        """An image and all it rests on, top first. A header may name any file of the host, so each of them is checked to lie
        below the roots and to be readable for the owner before it is opened. Raises StartRefused, BackendUnreachable."""
        links: list[Link] = []
        below: str | None = path
        while below is not None:
            if len(links) == CHAIN:
                raise StartRefused(f"cannot use image {path}: it rests on more than {CHAIN} others, or on itself")
            links.append(self._link(below, image_format))
            below, image_format = links[-1].below, links[-1].backing_format or image_format
        return links

    def writable(self, path: str, image_format: str) -> None:
        """Raises StartRefused unless the owner may write the image, and the file in which it keeps its data."""
        self._link(path, image_format, rights.READ | rights.WRITE)

    def removable(self, path: str) -> str:
        """The path as of `inside`; checked to be one that the owner may remove. Raises StartRefused."""
        real = self.inside(path)
        rights.check_entry(self._owner, real, removed=True)
        return real

    def create(self, target: str, uid: str, image_format: str, size: int, peer: Peer, backing: Link | None = None) -> str:
        """Make an empty image that did not exist before, writable for the storage's user; answers its real path.

        Raises StartRefused if the name is taken.
        """
        real = self.inside(target)
        rights.check_entry(self._owner, real)
        mark = self.mark(real, uid)
        base = () if backing is None else ("-b", backing.path, "-F", backing.format)
        self._qemu_img("create", "-q", "-f", image_format, *base, mark, str(size))
        if os.geteuid() == 0 and peer.uid != 0:
            os.chown(mark, peer.uid, peer.gid)
        try:
            rights.admit(self._owner, mark)
        except OSError as error:
            log.warning("user %d cannot read image %s, which is made for it: %s", self._owner.uid, target, error.strerror)
        try:
            os.link(mark, real)
        except FileExistsError:
            os.unlink(mark)
            raise StartRefused(f"cannot create image {target}: it exists already; name a file that does not exist") from None
        return real

    @staticmethod
    def mark(path: str, uid: str) -> str:
        """The second name of a file that belongs to a task."""
        return os.path.join(os.path.dirname(os.path.realpath(path)), f".task-{uid}")

    def is_ours(self, path: str, uid: str) -> bool:
        try:
            return os.path.samefile(path, self.mark(path, uid))
        except FileNotFoundError:
            return False

    def settle(self, path: str, uid: str, keep: bool) -> None:
        """Give up the second name; without `keep` remove the file too, if it is ours. Harmless when repeated."""
        if not keep and self.is_ours(path, uid):
            os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.mark(path, uid))

    def delete(self, path: str, uid: str) -> None:
        """Take a file away so that a repetition after a crash knows that it was done: until `settle` it has only its
        second name.

        Raises StartRefused if there is no such file and it was not we who took it away, OSError.
        """
        if self.deleted(path, uid):
            return
        try:
            os.rename(self.removable(path), self.mark(path, uid))
        except FileNotFoundError:
            raise StartRefused(f"cannot delete {path}: no such file") from None

    def deleted(self, path: str, uid: str) -> bool:
        """Whether `delete` has done its work."""
        return os.path.lexists(self.mark(path, uid))

    def _link(self, path: str, image_format: str, wanted: int = rights.READ) -> Link:
        real = self.inside(path)
        rights.check(self._owner, real, wanted)
        if not os.path.exists(real) or os.path.isdir(real):
            raise StartRefused(f"cannot use image {path}: no such file")
        text = self._qemu_img("info", "-U", "--output=json", "-f", image_format, real)
        try:
            link = convert(json.loads(text), Link)
        except (ValueError, ValidationError) as error:
            raise StartRefused(f"cannot read image {path}: qemu-img info answered nonsense ({error})") from None
        self._check(link, wanted)
        return link

    def _check(self, link: Link, wanted: int) -> None:
        if link.format not in FORMATS:
            raise StartRefused(f"cannot use image {link.path}: its format is {link.format}, not one of {', '.join(FORMATS)}")
        if link.backing is not None and link.backing_format is None:
            raise StartRefused(
                f"cannot use image {link.path}: its header names no format for its backing file, and a guessed one is not safe; "
                "set it with qemu-img rebase -u -b FILE -F FORMAT"
            )
        if link.data_file is not None:
            data = self.inside(os.path.join(os.path.dirname(link.path), link.data_file))
            rights.check(self._owner, data, wanted)

    def _qemu_img(self, verb: str, *arguments: str) -> str:
        program = shutil.which("qemu-img")
        if program is None:
            raise StartRefused("cannot run qemu-img: not found in PATH; install the QEMU tools")
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(  # noqa: S603 -- no shell, and every path is absolute and checked
                [program, verb, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=self.timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackendUnreachable(f"cannot run qemu-img {verb} on {arguments[-1]}: no end within {self.timeout:g} s") from None
        if done.returncode != 0:
            cause = done.stderr.strip().removeprefix("qemu-img: ") or f"exit status {done.returncode}"
            raise StartRefused(f"cannot {verb} image: {cause}")
        return done.stdout


def _below(path: str, root: str) -> bool:
    return path != root and os.path.commonpath((path, root)) == root
