"""The main job, visibly: a long backup, a daemon killed in the middle, one callback.

A registrant (this program) starts a throttled backup of a disk image in `qemu-storage-daemon`, tells the daemon about it
with one call, and forgets it. The daemon is then killed with SIGKILL, started again, and still calls back when the backup
has ended. Without QEMU the long work is a slow copy of a file by an ordinary process.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from task_client import Client, init_daemon_process, is_service_on, register_task, stop_daemon_process

MIB = 1 << 20
SIZE = 64 * MIB
SECONDS = 12  # the work takes about so long
KILL_AT = 40.0  # percent
console = Console(highlight=False)


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="td-demo-") as name, receiver() as (url, received):
        home = Path(name)
        os.environ["TASK_DAEMON_WORKSPACE_ROOT"] = name
        with long_work(home) as (zone, start):
            config = home / "task-daemon.toml"
            config.write_text(zone)
            console.print("[bold]1.[/] start the daemon with init_daemon_process()")
            path = init_daemon_process(config_file=config)
            job = start()
            console.print(f"[bold]2.[/] the work has begun: {job['what']}")
            task = register_task(job["id"], job["action"], job["zone"], job=job["job"], callback=url)
            assert not isinstance(task, str)
            console.print(f"[bold]3.[/] registered with register_task(): task {task.uid}")
            follow(path, task.uid, config)
            (body,) = wait_for(received)
            console.print("[bold]6.[/] the registrant's own HTTP server received, once:")
            console.print_json(json.dumps(short(body)))
            stop_daemon_process()
    console.print(f"done in {time.monotonic() - began:.0f} s; callbacks received: {len(received)}")
    if len(received) != 1 or body["type"] != "task.succeeded":
        sys.exit("the demo did not go as it should")


def follow(path: str, uid: str, config: Path) -> None:
    """A progress bar until the task is done; the daemon is killed and started again in the middle."""
    columns = (TextColumn("   {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    killed = False
    with Client(path) as client, Progress(*columns, console=console) as bar:
        line = bar.add_task("progress", total=100)
        task = client.get(uid)
        while not task.done:
            task = client.get(uid, wait=5, until="change", etag=task.revision) or task
            percent = task.progress.percent or 0.0
            bar.update(line, completed=percent)
            if percent >= KILL_AT and not killed:
                killed = True
                pid = client.info()["pid"]
                os.kill(pid, signal.SIGKILL)
                while is_service_on(path):
                    time.sleep(0.01)
                bar.console.print(f"[bold]4.[/] SIGKILL to the daemon (pid {pid}) at {percent:.0f} %; the work goes on")
                init_daemon_process(config_file=config)
                again = client.info()["pid"]
                bar.console.print(f"[bold]5.[/] started again (pid {again}): it knows the task and goes on watching")
        bar.update(line, completed=100)


def short(body: dict[str, Any]) -> dict[str, Any]:
    """The members that people look at first."""
    members = ("uid", "id", "action", "zone", "state", "progress", "created_at", "finished_at")
    return {"type": body["type"], "seq": body["seq"], "data": {"task": {name: body["data"]["task"][name] for name in members}}}


# --------------------------------------------------------------------------- the registrant's HTTP server


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    received: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet: the demo prints what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


def wait_for(received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    end = time.monotonic() + 10
    while not received and time.monotonic() < end:
        time.sleep(0.05)
    return received


# --------------------------------------------------------------------------- the long work

Start = Callable[[], dict[str, str]]


def long_work(home: Path) -> contextlib.AbstractContextManager[tuple[str, Start]]:
    if not os.environ.get("TASK_DAEMON_NO_QEMU") and shutil.which("qemu-storage-daemon") and shutil.which("qemu-img"):
        return backup_in_qemu(home)
    console.print("no QEMU here: the long work is a slow copy by an ordinary process")
    return copy_by_process(home)


@contextlib.contextmanager
def backup_in_qemu(home: Path) -> Iterator[tuple[str, Start]]:
    """A storage with one disk and an empty place for its backup; two monitors, one for the daemon and one for us."""
    disk, target = home / "disk.qcow2", home / "backup.qcow2"
    raw = home / "disk.raw"
    with raw.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    for command in (["convert", "-O", "qcow2", raw, disk], ["create", "-q", "-f", "qcow2", target, str(SIZE)]):
        subprocess.run(["qemu-img", *map(str, command)], check=True)
    monitors = [home / "ours.sock", home / "daemon.sock"]
    options = [
        f"--chardev=socket,id=c{n},path={path},server=on,wait=off --monitor=chardev=c{n}".split()
        for n, path in enumerate(monitors)
    ]
    storage = subprocess.Popen(["qemu-storage-daemon", *(word for pair in options for word in pair)])

    def start() -> dict[str, str]:
        qmp = Qmp(monitors[0])
        for node, file in (("disk", disk), ("backup", target)):
            qmp("blockdev-add", {"driver": "qcow2", "node-name": node, "file": {"driver": "file", "filename": str(file)}})
        job = {"job-id": "backup-disk-1", "device": "disk", "target": "backup", "sync": "full"}
        qmp("blockdev-backup", job | {"speed": SIZE // SECONDS, "auto-dismiss": False})
        what = f"blockdev-backup of {SIZE // MIB} MiB, throttled to {SIZE // SECONDS // MIB} MiB/s"
        return {"id": "disk-1", "action": "backup", "zone": "vm1", "job": "backup-disk-1", "what": what}

    try:
        yield f'[zones.vm1]\nbackend = "storage"\nqmp = "{monitors[1]}"\npoll_interval = 0.5\n', start
    finally:
        storage.terminate()
        storage.wait(10)


class Qmp:
    """Just enough of QMP to start a job."""

    def __init__(self, path: Path) -> None:
        end = time.monotonic() + 10
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self("qmp_capabilities", {})

    def __call__(self, command: str, arguments: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return


COPY = """
import sys, time
source, target, seconds = open(sys.argv[1], "rb"), open(sys.argv[2], "wb"), float(sys.argv[3])
while block := source.read(1 << 20):
    target.write(block)
    target.flush()
    time.sleep(seconds / 64)
open(sys.argv[2] + ".status", "w").write("0")
"""


@contextlib.contextmanager
def copy_by_process(home: Path) -> Iterator[tuple[str, Start]]:
    source, target = home / "disk.raw", home / "copy.raw"
    source.write_bytes(os.urandom(MIB) * (SIZE // MIB))
    running: list[subprocess.Popen[bytes]] = []

    def start() -> dict[str, str]:
        process = subprocess.Popen([sys.executable, "-c", COPY, source, target, str(SECONDS)])
        running.append(process)
        threading.Thread(target=process.wait, daemon=True).start()  # its parent must take its exit status
        what = f"a copy of {SIZE // MIB} MiB by process {process.pid}"
        job = f"{process.pid}?status={target}.status"
        return {"id": "disk-1", "action": "process", "zone": "local", "job": job, "what": what}

    try:
        yield "[zones.local]\npoll_interval = 0.5\n", start
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()


if __name__ == "__main__":
    main()
