"""A real qemu-storage-daemon with one storage zone, and a driver that does with a task what the core does."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from task_daemon.backends.storage import FAMILY
from task_daemon.backends.storage.backend import Settings
from task_daemon.backends.storage.qmp import QmpConnection
from task_daemon.clock import FakeClock
from task_daemon.core import transitions
from task_daemon.core.errors import BackendError
from task_daemon.core.model import Report, State, Task
from task_daemon.core.ports import Backend, ZoneContext
from tests.waiting import eventually

MIB = 1024 * 1024


def qemu_img(*arguments: str) -> str:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"qemu-img {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def same(one: Path, other: Path, other_format: str = "qcow2") -> bool:
    command = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", other_format, str(one), str(other)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


class Storage:
    """One qemu-storage-daemon: monitor `qmp` for the zone, another one for the test itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.qmp = str(directory / "m0.sock")
        self.images = directory / "images"
        self.images.mkdir(exist_ok=True)
        self.process = self._spawn()
        self.control = QmpConnection(str(directory / "m1.sock"), 10.0)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        command = ["qemu-storage-daemon"]
        for number in (0, 1):
            path = self.directory / f"m{number}.sock"
            path.unlink(missing_ok=True)
            command += ["--chardev", f"socket,id=c{number},path={path},server=on,wait=off", "--monitor", f"chardev=c{number}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        eventually("the storage listens", (self.directory / "m1.sock").exists)
        return process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        self.kill()
        self.process = self._spawn()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.control.close()
        self.go_on()
        self.kill()

    def execute(self, command: str, **arguments: Any) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.control.execute(command, named or None, expect=object)

    def image(self, name: str, mebibytes: int = 16, data: int = 4, backing: str | None = None) -> Path:
        """A qcow2 image; without backing its first `data` MiB are random."""
        path = self.images / name
        if backing is not None:
            qemu_img("create", "-q", "-f", "qcow2", "-b", str(self.images / backing), "-F", "qcow2", str(path))
            return path
        raw = self.images / f"{name}.raw"
        with raw.open("wb") as file:
            file.write(os.urandom(data * MIB))
            file.truncate(mebibytes * MIB)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", str(raw), str(path))
        raw.unlink()
        return path

    def open(self, name: str, path: Path) -> str:
        """Have an image open, as a live volume is."""
        node = {"driver": "qcow2", "node_name": name, "file": {"driver": "file", "filename": str(path)}}
        self.execute("blockdev-add", **node)
        return name

    def nodes(self) -> set[str]:
        """Without query-named-block-nodes, which kills QEMU 7.2 while a concluded stream is listed."""
        nodes = self.execute("x-debug-query-block-graph")["nodes"]
        return {node["name"] for node in nodes if node["type"] == "block-driver" and not node["name"].startswith("#")}

    def jobs(self) -> list[str]:
        return [job["id"] for job in self.execute("query-jobs")]

    def files(self) -> set[str]:
        return {path.name for path in self.images.iterdir()}


def write(path: Path, pattern: int, offset: int = 0, mebibytes: int = 1) -> None:
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {offset}M {mebibytes}M", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


class Driver:
    """Does what the core does with one task at a time: intent, start, poll, forget."""

    def __init__(self, storage: Storage, poll_timeout: float = 5.0) -> None:
        self.storage = storage
        self.poll_timeout = poll_timeout
        self.backend = self._make()

    def _make(self) -> Backend:
        context = ZoneContext("vm1", str(self.storage.directory), self.poll_timeout, FakeClock())
        return FAMILY.make(Settings(qmp=self.storage.qmp, roots=(str(self.storage.images),)), context)

    def restart(self) -> None:
        """A new daemon: all it knows is what the task says."""
        self.backend.close()
        self.backend = self._make()

    def prepare(self, task: Task) -> Task:
        self.backend.admit(task)
        return transitions.launch(task, self.backend.actions[task.action].prepare(task), 1.0).task

    def start(self, task: Task) -> Task:
        prepared = self.prepare(task)
        return self.applied(prepared, self.start_report(prepared))

    def start_report(self, task: Task) -> Report:
        report = self.backend.actions[task.action].start(task)
        assert report is not None
        return report

    def poll(self, task: Task) -> Task:
        return self.applied(task, self.backend.poll([task])[task.uid])

    def applied(self, task: Task, report: Report) -> Task:
        change = transitions.apply(task, report, 2.0)
        return task if change is None else change.task

    def finish(self, task: Task) -> Task:
        """Poll until the task has ended."""
        latest = [task]

        def ended() -> bool:
            latest[0] = self.poll(latest[0])
            return latest[0].done

        eventually(f"{task.action} ends (last seen: {task})", ended)
        return latest[0]

    def cancel(self, task: Task) -> Task:
        change = transitions.cancel(task, 3.0)
        assert change is not None
        self.backend.actions[task.action].cancel(change.task)
        return self.finish(change.task)

    def forget(self, task: Task) -> None:
        """Repeat until it is done, and once more: that must be harmless."""

        def forgotten() -> bool:
            try:
                self.backend.actions[task.action].forget(task)
            except BackendError:
                return False
            return True

        eventually(f"{task.action} is forgotten", forgotten)
        self.backend.actions[task.action].forget(task)

    def timed_out(self, task: Task) -> Task:
        return replace(task, state=State.FAILED)
