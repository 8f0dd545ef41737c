"""Files of run tasks: the owner's rights decide, exactly as the kernel would."""

import os
import random
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from task_daemon.backends.storage import rights
from task_daemon.backends.storage.images import Images
from task_daemon.backends.storage.qmp import Peer
from task_daemon.core.errors import StartRefused
from task_daemon.core.model import Owner
from tests.backends.storage.making import UID
from tests.daemons import Daemon
from tests.security.people import User, as_root
from tests.waiting import eventually

FILES = 400
SEED = int(os.environ.get("TASK_DAEMON_SEED", "20261121"))
USER = User(4301, 4301, (4001, 4002))
OWNER = Owner(USER.uid, USER.gid, 1, USER.groups)
SIZE = 1024 * 1024
WANTED = ((rights.READ, os.O_RDONLY), (rights.WRITE, os.O_WRONLY), (rights.READ | rights.WRITE, os.O_RDWR))


def may(path: Path, wanted: int) -> bool:
    try:
        rights.check(OWNER, str(path), wanted)
    except StartRefused:
        return False
    return True


def set_list(path: Path, rnd: random.Random) -> None:
    """A random access list with named users and groups."""

    def bits() -> int:
        return rnd.randrange(8)

    entries = [(rights.USER_OBJ, bits(), rights.NO_ID)]
    entries += [(rights.USER, bits(), uid) for uid in sorted(rnd.sample((4301, 4399), rnd.randrange(2)))]
    entries += [(rights.GROUP_OBJ, bits(), rights.NO_ID)]
    entries += [(rights.GROUP, bits(), gid) for gid in sorted(rnd.sample((4001, 4002, 4301, 4398), rnd.randrange(4)))]
    entries += [(rights.MASK, bits(), rights.NO_ID), (rights.OTHER, bits(), rights.NO_ID)]
    os.setxattr(path, rights.ACL, struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries))


@as_root
def test_f14_judgement_is_the_kernels_for_all_owners_modes_and_access_lists(short_path: Path) -> None:
    print(f"seed {SEED}")
    rnd = random.Random(SEED)
    short_path.chmod(0o755)
    files = []
    for number in range(FILES):
        folder = short_path / f"d{number}"
        folder.mkdir()
        file = folder / "f"
        file.touch()
        for path, modes in ((file, range(512)), (folder, (0o755, 0o711, 0o700, 0o750, 0o071, 0o107))):
            os.chown(path, rnd.choice((0, 4301, 4399)), rnd.choice((0, 4001, 4301, 4398)))
            os.chmod(path, rnd.choice(list(modes)))
            if rnd.random() < 0.4:
                set_list(path, rnd)
        files.append(file)
    asked = [(str(file), flags) for file in files for _, flags in WANTED]
    ours = [may(file, wanted) for file in files for wanted, _ in WANTED]
    kernels = USER.can_open(asked)
    assert [path for path, one, other in zip(asked, ours, kernels, strict=True) if one != other] == []
    assert 0.1 < sum(ours) / len(ours) < 0.9


@pytest.fixture
def root(short_path: Path) -> Path:
    short_path.chmod(0o755)
    path = short_path / "images"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    return path


@pytest.fixture
def images(root: Path, qemu: None) -> Images:
    return Images([str(root)], 10.0).of(OWNER)


def image(path: Path, *options: str, mode: int = 0o644) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(SIZE)], check=True, timeout=30)
    path.chmod(mode)
    return path


@as_root
def test_f14_image_or_what_it_rests_on_is_refused_when_the_owner_may_not_read_it(root: Path, images: Images) -> None:
    secret = image(root / "secret", mode=0o600)
    top = image(root / "top", "-b", str(secret), "-F", "qcow2")
    for path, named in ((secret, secret), (top, secret)):
        with pytest.raises(StartRefused, match=f"cannot use {named} for user 4301.*may not read it"):
            images.chain(str(path), "qcow2")
    secret.chmod(0o644)
    assert len(images.chain(str(top), "qcow2")) == 2
    with pytest.raises(StartRefused, match="may not read and write it"):
        images.writable(str(top), "qcow2")


@as_root
def test_header_is_not_followed_before_what_it_names_was_checked(root: Path, images: Images) -> None:
    """A fifo would hang, and `json:` or `nbd:` would make the daemon connect to somewhere."""
    for lure in ("json:{'driver': 'nbd', 'host': '10.0.0.1'}", "nbd://10.0.0.1/x", "/etc/shadow"):
        top = image(root / f"top{abs(hash(lure))}", "-u", "-b", lure, "-F", "raw")
        with pytest.raises(StartRefused, match="cannot use file"):
            images.chain(str(top), "qcow2")


def test_chain_that_rests_on_itself_comes_to_an_end(root: Path, qemu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("task_daemon.backends.storage.images.CHAIN", 3)
    image(root / "a", "-u", "-b", str(root / "b"), "-F", "qcow2")
    image(root / "b", "-u", "-b", str(root / "a"), "-F", "qcow2")
    with pytest.raises(StartRefused, match="more than 3 others, or on itself"):
        Images([str(root)], 10.0).chain(str(root / "a"), "qcow2")


@as_root
def test_f14_image_is_made_where_the_owner_may_and_it_may_use_it(root: Path, images: Images) -> None:
    made = images.create(str(root / "new"), UID, "qcow2", SIZE, Peer("v", 4777, 4777))
    assert os.stat(made).st_uid == 4777
    assert USER.can_open([(made, os.O_RDWR)]) == [True]
    assert User(4302, 4302).can_open([(made, os.O_RDONLY)]) == [False]
    root.chmod(0o755)
    with pytest.raises(StartRefused, match=f"cannot use {root} for user 4301.*may not change it"):
        images.create(str(root / "newer"), UID, "qcow2", SIZE, Peer("v", 4777, 4777))
    assert not (root / "newer").exists()


@as_root
def test_f14_file_of_somebody_else_is_not_removed_from_a_sticky_directory(root: Path, images: Images) -> None:
    (root / "theirs").touch()
    (root / "own").touch()
    os.chown(root / "own", USER.uid, USER.gid)
    root.chmod(0o1777)
    with pytest.raises(StartRefused, match="is sticky"):
        images.delete(str(root / "theirs"), UID)
    images.delete(str(root / "own"), UID)
    assert sorted(os.listdir(root)) == [f".task-{UID}", "theirs"]


@as_root
def test_link_that_appears_after_the_path_was_resolved_is_noticed(root: Path) -> None:
    (root / "real").touch()
    (root / "link").symlink_to(root / "real")
    with pytest.raises(StartRefused, match="became a symbolic link"):
        rights.check(OWNER, str(root / "link"), rights.READ)


@as_root
@pytest.mark.live
def test_f14_run_task_of_a_user_cannot_copy_what_the_user_cannot_read(root: Path, qemu: None, short_path: Path) -> None:
    secret = image(root / "secret", mode=0o600)
    monitor = short_path / "qmp"
    storage = subprocess.Popen(
        ["qemu-storage-daemon", "--chardev", f"socket,path={monitor},server=on,wait=off,id=c", "--monitor", "chardev=c"]
    )
    config = f"""
[daemon]
socket_mode = "0666"
[zones.vm1]
backend = "storage"
qmp = "{monitor}"
roots = ["{root}"]
[access]
operators = [4301]
"""
    try:
        eventually("the storage listens", monitor.exists)
        with Daemon(short_path, config) as daemon, daemon.client() as client:
            for name, mode, state in (("d1", 0o600, "failed"), ("d2", 0o644, "succeeded")):
                secret.chmod(mode)
                params = {"source": str(secret), "target": str(root / f"copy-{name}")}
                body = {"id": name, "action": "clone_snapshot", "zone": "vm1", "params": params}
                ((status, task),) = USER.ask(daemon.socket, ("POST", "/v1/tasks", body))
                assert status == 202, task
                done = client.wait(task["uid"], 20)
                assert done.state == state, done.error
                if state == "failed":
                    assert done.error is not None
                    assert done.error.kind == "start-refused"
                    assert f"cannot use {secret} for user 4301" in done.error.message
            names = ["copy-d2", "secret"]
            eventually("everything is tidied", lambda: sorted(path.name for path in root.iterdir()) == names)
        assert USER.can_open([(str(root / "copy-d2"), os.O_RDONLY)]) == [True]
    finally:
        storage.send_signal(signal.SIGTERM)
        storage.wait(20)
