"""A real Keystone for tests, in a virtual environment of its own and with a SQLite file: nothing of it outlives the test but
the environment. Only the standard library is used here, because this file is also what that environment runs:
`keystone_server.py serve PORT`.

gunicorn cannot serve Keystone 30: it parses the arguments of the process, and the workers die of it. A threaded wsgiref can.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PINNED = Path(__file__).with_name("keystone.txt")
INSTALL_SECONDS = 400.0  # 25 s measured, on a quick connection
COMMAND_SECONDS = 60.0  # 2 s measured
START_SECONDS = 60.0  # 2-4 s measured
REGION = "R1"
PASSWORD = "of the test's administrator"


class CannotInstall(Exception):
    """There is no environment with Keystone, and pip could not make one."""


def environment() -> Path:
    """The directory with the environment's programs; made when it is not there, or was made of other versions."""
    default = Path(__file__).parents[2] / ".keystone-venv"
    home = Path(os.environ.get("TASK_DAEMON_KEYSTONE_VENV") or default).absolute()
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitignore").write_text("*\n")
    stamp = home / "made-of.txt"
    with open(home / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes may run side by side
        if not stamp.exists() or stamp.read_text() != PINNED.read_text():
            stamp.unlink(missing_ok=True)
            _install(home)
            stamp.write_text(PINNED.read_text())
    return home / "bin"


def _install(home: Path) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--retries", "1"]
    for command in ([sys.executable, "-m", "venv", str(home)], [*pip, "install", "--quiet", "-r", str(PINNED)]):
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotInstall(f"cannot run {command[2]}: {error}") from None
        if done.returncode != 0:
            raise CannotInstall(f"{command[2]} failed: {done.stderr.strip()[-500:]}")


class Keystone:
    """One Keystone in `directory`, on a port that stays the same over `stop` and `start`."""

    def __init__(self, directory: Path) -> None:
        self._programs = environment()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.auth_uri = f"http://127.0.0.1:{self.port}/v3"
        self._configure()

    def start(self) -> None:
        command = [str(self._programs / "python"), __file__, "serve", str(self.port)]
        settings = {"OS_KEYSTONE_CONFIG_DIR": str(self._directory), "OS_KEYSTONE_CONFIG_FILES": "keystone.conf"}
        with open(self._directory / "keystone.log", "ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)  # between two looks; ends early when it has died
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Keystone does not answer: {(self._directory / 'keystone.log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def admin(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One call as the administrator, by JSON. Raises urllib.error.HTTPError."""
        if not self._token:
            self._token = self._log_in()
        return self._call(method, path, body, {"X-Auth-Token": self._token, **headers})[0]

    def accepts(self, token: str) -> bool:
        """Whether a token is good, as a service behind Keystone asks it."""
        try:
            self.admin("GET", "/auth/tokens", **{"X-Subject-Token": token})
        except urllib.error.HTTPError as error:
            with error:
                return False
        return True

    def revoke(self, token: str) -> None:
        self.admin("DELETE", "/auth/tokens", **{"X-Subject-Token": token})

    def add_user(self, name: str, password: str, project: str) -> None:
        """A user with the role `member` in a new project."""
        project_id = self.admin("POST", "/projects", {"project": {"name": project, "domain_id": "default"}})["project"]["id"]
        user = {"user": {"name": name, "password": password, "domain_id": "default"}}
        user_id = self.admin("POST", "/users", user)["user"]["id"]
        role_id = self.admin("GET", "/roles?name=member")["roles"][0]["id"]
        self.admin("PUT", f"/projects/{project_id}/users/{user_id}/roles/{role_id}")

    def add_service(self, kind: str, url: str) -> None:
        service_id = self.admin("POST", "/services", {"service": {"type": kind, "name": f"test {kind}"}})["service"]["id"]
        endpoint = {"service_id": service_id, "interface": "public", "url": url, "region_id": REGION}
        self.admin("POST", "/endpoints", {"endpoint": endpoint})

    def _configure(self) -> None:
        there = self._directory
        keys = {"fernet_tokens": "fernet", "fernet_receipts": "fernet", "credential": "credential"}
        tables = [f"[database]\nconnection = sqlite:///{there}/keystone.db\n[token]\nprovider = fernet\n"]
        tables += [f"[{table}]\nkey_repository = {there}/{name}\n" for table, name in keys.items()]
        (there / "keystone.conf").write_text("".join(tables))
        for name in set(keys.values()):
            (there / name).mkdir(mode=0o700)
        owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
        self._manage("db_sync")
        self._manage("fernet_setup", *owner)
        self._manage("credential_setup", *owner)
        self._manage("bootstrap", "--bootstrap-region-id", REGION, "--bootstrap-public-url", self.auth_uri)

    def _manage(self, *arguments: str) -> None:
        command = [str(self._programs / "keystone-manage"), "--config-file", str(self._directory / "keystone.conf"), *arguments]
        password = {"OS_BOOTSTRAP_PASSWORD": PASSWORD}
        done = subprocess.run(
            command, env=os.environ | password, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if done.returncode != 0:
            raise RuntimeError(f"keystone-manage {arguments[0]} failed: {done.stderr[-2000:]}")

    def _answers(self) -> bool:
        try:
            self._call("GET", "/", None, {})
        except OSError:
            return False
        return True

    def _log_in(self) -> str:
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        _, headers = self._call("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": scope}}, {})
        return str(headers["X-Subject-Token"])

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[Any, Any]:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.auth_uri + path, data, sent, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            text = answer.read()
            return json.loads(text) if text else None, answer.headers


def serve(port: int) -> None:
    sys.argv = ["keystone"]  # it reads the arguments of the process when it is imported
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from keystone.wsgi.api import application

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            """Keystone logs its requests itself."""

    make_server("127.0.0.1", port, application, Server, Silent).serve_forever()


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    serve(int(sys.argv[2]))
