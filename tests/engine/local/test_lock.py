import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from task_daemon.core.errors import StoreError, WorkspaceTaken
from task_daemon.engine.local.lock import take

HOLDER = """
import sys; from pathlib import Path
from task_daemon.engine.local.lock import take
held = take(Path(sys.argv[1])); print("held", flush=True); sys.stdin.read()
"""


def test_i8_f8_workspace_is_refused_by_the_name_of_its_holder_when_it_is_taken(short_path: Path) -> None:
    workspace = short_path / "w"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, workspace], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkspaceTaken, match=f"process {holder.pid}") as refused:
            take(workspace)
        assert refused.value.pid == holder.pid
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdin.close()
        holder.stdout.close()
    lock = take(workspace)
    assert (workspace / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_i8_lock_can_be_taken_again_when_it_was_released(short_path: Path) -> None:
    first = take(short_path)
    with pytest.raises(WorkspaceTaken):
        take(short_path)
    first.release()
    first.release()
    take(short_path).release()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_f14_workspace_that_others_may_write_to_is_refused_with_what_to_do(mode: int, short_path: Path) -> None:
    workspace = short_path / "w"
    workspace.mkdir()
    workspace.chmod(mode)
    with pytest.raises(StoreError, match=f"its mode {mode:04o} lets others write to it; run chmod 700 {workspace}"):
        take(workspace)
    assert list(workspace.iterdir()) == [], "it was touched before it was looked at"
    workspace.chmod(0o755)
    take(workspace).release()


def test_f14_workspace_of_another_user_is_refused_with_both_names(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = short_path / "w"
    workspace.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(workspace, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
    owner, mine = workspace.stat().st_uid, os.geteuid()
    with pytest.raises(StoreError, match=rf"it belongs to user .*\b{owner}\b.* runs as user .*\b{mine}\b.*chown -R {mine}"):
        take(workspace)
    assert not (workspace / "lock").exists()


def test_i8_lock_is_taken_without_a_name_when_the_disk_is_full(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (short_path / "lock").write_text("77\n")
    monkeypatch.setattr(os, "pwrite", full)
    held = take(short_path)
    with pytest.raises(WorkspaceTaken, match="another daemon serves it") as refused:
        take(short_path)
    assert refused.value.pid == 0
    held.release()


def test_workspace_that_is_no_directory_is_refused(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use workspace"):
        take(short_path / "file")
