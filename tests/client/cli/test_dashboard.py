"""taskctl dashboard: the command that serves the page, from its start to Ctrl-C."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.daemons import Daemon


def taskctl(unix_socket: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-c",
        "from task_client.cli import main; main()",
        "--socket",
        unix_socket,
        "dashboard",
        "--no-open",
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_prints_a_link_that_opens_once_and_ends_with_ctrl_c(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        running = taskctl(daemon.socket, "--json")
        try:
            assert running.stdout is not None
            link = json.loads(running.stdout.readline())["link"]
            with urllib.request.urlopen(link, timeout=20) as answer:  # nothing but this very link can be asked for
                assert b"To the dashboard" in answer.read()
            with pytest.raises(urllib.error.HTTPError, match="403") as refused:
                urllib.request.urlopen(link, timeout=20)
            refused.value.close()
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 0
        finally:
            running.kill()
            _, errors = running.communicate(timeout=20)
    assert errors == ""


def test_an_absent_daemon_is_told_before_anything_is_served(short_path: Path) -> None:
    done = taskctl(str(short_path / "nobody.sock"))
    printed, errors = done.communicate(timeout=20)

    assert (done.returncode, printed) == (3, "")
    assert "taskctl start" in errors


def test_a_port_that_is_taken_is_told(short_path: Path) -> None:
    with Daemon(short_path) as daemon, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = taskctl(daemon.socket, "--port", str(port))
        _, errors = done.communicate(timeout=20)

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; leave --port out" in errors
