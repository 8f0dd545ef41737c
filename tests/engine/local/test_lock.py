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


def test_workspace_that_is_no_directory_is_refused(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use workspace"):
        take(short_path / "file")
