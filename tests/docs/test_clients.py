"""The page about clients: its shell recipe runs, its list of methods is the client's. Its Python runs in tests/test_docs.py."""

import inspect
import os
import re
import subprocess
from pathlib import Path

from task_client import Client, errors
from tests.client.scripted import Reply, ScriptedServer, problem, task
from tests.daemons import Daemon

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


def recipe() -> str:
    (found,) = re.findall(r"(?ms)^```sh\n(.*?)^```", PAGE)
    return f"set -eu\n{found}"


def test_the_shell_recipe_registers_and_waits(short_path: Path) -> None:
    with Daemon(short_path) as daemon:
        environment = {**os.environ, "TASK_DAEMON_SOCKET": daemon.socket}
        done = subprocess.run(["bash", "-c", recipe()], env=environment, capture_output=True, text=True, timeout=60, check=False)
        with daemon.client() as client:
            registered = [(task.id, task.state) for task in client.list()]

    assert (done.returncode, done.stdout, done.stderr) == (0, "succeeded\n", "")
    assert registered == [("nap", "succeeded")]


def told(path: str, last: str, tries: int = 5) -> "subprocess.CompletedProcess[str]":
    """What the functions of the recipe do with a line of our own after them."""
    functions = recipe().partition("\nuid=")[0].replace("--retry 5", f"--retry {tries}")
    environment = {**os.environ, "TASK_DAEMON_SOCKET": path, "TMPDIR": os.path.dirname(path)}
    command = ["bash", "-c", f"{functions}\n{last}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_shell_recipe_sends_a_registration_again_with_its_key(socket_path: str) -> None:
    refused = problem(503, "starting", "not yet")
    server = ScriptedServer(socket_path, {("POST", "/v1/tasks"): [Reply(drop=True), refused, Reply(202, task())]})
    try:
        done = told(socket_path, "register '{}' | member uid")
    finally:
        server.stop()

    assert done.stdout == "u1\n", done.stderr
    assert len(server.asked) == 3
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


def test_the_shell_recipe_shows_what_is_wrong_and_fails(socket_path: str) -> None:
    server = ScriptedServer(socket_path, {("GET", "/v1/tasks/u1"): [problem(404, "not-found", "there is no task u1")]})
    try:
        done = told(socket_path, "wait_for u1", tries=0)
    finally:
        server.stop()

    assert (done.returncode, done.stdout) == (22, "")
    assert "there is no task u1" in done.stderr


def test_every_method_of_the_client_is_named() -> None:
    methods = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")} - {"close"}
    named = re.findall(r"`(\w+)`", PAGE.partition("Its methods: ")[2].partition("\n\n")[0])

    assert set(named) == methods
    assert len(named) == len(methods)


def test_every_error_of_a_call_has_its_row() -> None:
    named = set(re.findall(r"(?m)^\| `([A-Z]\w+)` \|", PAGE))
    of_calls = {
        name for name in dir(errors) if isinstance(kind := getattr(errors, name), type) and issubclass(kind, errors.ClientError)
    }

    assert named == of_calls - {"ClientError", "ServerError", "DaemonNotStarted"}
