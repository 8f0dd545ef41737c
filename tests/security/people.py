"""Other users of this host, for tests that run as root: each acts in a process of its own that has really become that user."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

BECOME = """
import http.client, json, os, socket, sys  # first: the new user may not be allowed to read the library
uid, gid, *groups = json.loads(sys.argv[1])
os.setgroups(groups)
os.setgid(gid)
os.setuid(uid)
"""

ASK = """
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(sys.argv[2])
connection, answers = Connection("d"), []
for method, path, body in json.load(sys.stdin):
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    answers.append([answer.status, json.loads(text) if text else None])
print(json.dumps(answers))
"""

LISTEN = """
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
os.chmod(sys.argv[2], 0o777)
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    data = connection.recv(65536)
    print(len(data), flush=True)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    connection.close()
"""

OPEN = """
results = []
for path, flags in json.load(sys.stdin):
    try:
        os.close(os.open(path, flags))
        results.append(True)
    except OSError:
        results.append(False)
print(json.dumps(results))
"""


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def ask(self, socket: str, *requests: tuple[str, str, Any]) -> list[tuple[int, Any]]:
        """Status and JSON of each (method, path, body), all on one connection."""
        return [(status, body) for status, body in json.loads(self._run(ASK, list(requests), socket))]

    def can_open(self, files: list[tuple[str, int]]) -> list[bool]:
        """For each path and flags of open(2): what the kernel says."""
        found: list[bool] = json.loads(self._run(OPEN, files))
        return found

    def listen(self, path: str) -> "subprocess.Popen[str]":
        """A receiver on a Unix socket; prints how many bytes each connection brought. To be killed."""
        process = subprocess.Popen(self._command(LISTEN, path), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def _run(self, program: str, given: Any, *arguments: str) -> str:
        done = subprocess.run(
            self._command(program, *arguments), input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [sys.executable, "-S", "-c", BECOME + program, json.dumps([self.uid, self.gid, *self.groups]), *arguments]
