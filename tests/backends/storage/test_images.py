"""Files of run tasks: below the roots whatever a name or a header says, and nobody's data is touched."""

import os
import subprocess
from pathlib import Path

import pytest

from task_daemon.backends.storage.images import Images
from task_daemon.backends.storage.qmp import Peer
from task_daemon.core.errors import StartRefused
from tests.backends.storage.making import UID

PEER = Peer("1.1.b", os.geteuid(), os.getegid())
SIZE = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def images(root: Path, qemu: None) -> Images:
    return Images([f"{root}/"], 10.0)


def qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize(
    "path", ["a", "/etc/passwd", "{root}/../x", "{root}/./x", "{root}//x", "//{root}/x", "{root}", "{root}x/a"]
)
def test_path_outside_the_roots_is_refused_by_its_text(path: str, root: Path, images: Images) -> None:
    assert images.objection(path.format(root=root)) is not None


def test_path_below_a_root_is_accepted(root: Path, images: Images) -> None:
    assert images.objection(f"{root}/a/b.qcow2") is None
    assert images.inside(f"{root}/a/b.qcow2") == f"{root}/a/b.qcow2"


def test_symbolic_link_out_of_the_roots_is_refused(root: Path, tmp_path: Path, images: Images) -> None:
    (root / "way").symlink_to(tmp_path)
    with pytest.raises(StartRefused, match="does not lie below one of"):
        images.inside(f"{root}/way/secret")


def test_backing_file_out_of_the_roots_is_refused(root: Path, tmp_path: Path, images: Images) -> None:
    """A header may name any file of the host; a copy would hand out its content."""
    qemu_img("create", "-f", "raw", str(tmp_path / "secret"), str(SIZE))
    qemu_img("create", "-f", "qcow2", "-b", str(tmp_path / "secret"), "-F", "raw", str(root / "a.qcow2"))
    with pytest.raises(StartRefused, match=r"cannot use file .*secret"):
        images.chain(str(root / "a.qcow2"), "qcow2")


def test_data_file_out_of_the_roots_is_refused(root: Path, tmp_path: Path, images: Images) -> None:
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", str(root / "a.qcow2"), str(SIZE))
    with pytest.raises(StartRefused, match=r"cannot use file .*data"):
        images.chain(str(root / "a.qcow2"), "qcow2")


def test_backing_file_of_unnamed_format_is_refused(root: Path, images: Images) -> None:
    """A guest can write a header into a raw image; guessing its format would follow that header."""
    qemu_img("create", "-f", "qcow2", str(root / "base"), str(SIZE))
    qemu_img("create", "-f", "qcow2", "-u", "-b", str(root / "base"), "-F", "qcow2", str(root / "a.qcow2"), str(SIZE))
    qemu_img("amend", "-f", "qcow2", "-o", "compat=1.1", str(root / "a.qcow2"))
    header = (root / "a.qcow2").read_bytes()
    (root / "a.qcow2").write_bytes(header.replace(b"\xe2\x79\x2a\xca\x00\x00\x00\x05", b"\x12\x34\x56\x78\x00\x00\x00\x05", 1))
    with pytest.raises(StartRefused, match="names no format for its backing file"):
        images.chain(str(root / "a.qcow2"), "qcow2")


def test_chain_is_told_top_first(root: Path, images: Images) -> None:
    qemu_img("create", "-f", "qcow2", str(root / "base"), str(SIZE))
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", str(root / "top"))
    chain = images.chain(str(root / "top"), "qcow2")
    assert [(link.path, link.size, link.backing) for link in chain] == [
        (str(root / "top"), SIZE, "base"),
        (str(root / "base"), SIZE, None),
    ]


def test_reason_is_told_when_an_image_cannot_be_read(root: Path, images: Images) -> None:
    with pytest.raises(StartRefused, match="no such file"):
        images.chain(str(root / "nothing"), "qcow2")
    (root / "text").write_text("no image")
    with pytest.raises(StartRefused, match="not in qcow2 format"):
        images.chain(str(root / "text"), "qcow2")


def test_made_file_goes_when_it_is_not_kept(root: Path, images: Images) -> None:
    images.create(str(root / "new"), UID, "qcow2", SIZE, PEER)
    assert images.is_ours(str(root / "new"), UID)
    for _ in range(2):
        images.settle(str(root / "new"), UID, keep=False)
        assert list(root.iterdir()) == []


def test_made_file_stays_when_it_is_kept(root: Path, images: Images) -> None:
    images.create(str(root / "new"), UID, "qcow2", SIZE, PEER)
    images.settle(str(root / "new"), UID, keep=True)
    images.settle(str(root / "new"), UID, keep=False)
    assert [path.name for path in root.iterdir()] == ["new"]


def test_file_that_took_the_place_of_ours_stays(root: Path, images: Images) -> None:
    images.create(str(root / "new"), UID, "qcow2", SIZE, PEER)
    (root / "other").write_text("precious")
    (root / "other").rename(root / "new")
    images.settle(str(root / "new"), UID, keep=False)
    assert (root / "new").read_text() == "precious"
    assert [path.name for path in root.iterdir()] == ["new"]


def test_link_to_nowhere_counts_as_taken_when_a_file_is_made(root: Path, images: Images) -> None:
    (root / "new").symlink_to(root / "nowhere")
    (root / "nowhere").write_text("precious")
    with pytest.raises(StartRefused, match="exists already"):
        images.create(str(root / "new"), UID, "qcow2", SIZE, PEER)
    assert (root / "nowhere").read_text() == "precious"
    assert {path.name for path in root.iterdir()} == {"new", "nowhere"}
