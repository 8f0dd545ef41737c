"""What TAB offers, in the real shells: verbs and options without a daemon, uids and zones with one; and what --help may load."""

import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.client.scripted import Reply, ScriptedServer, task
from tests.conftest import missing

PROGRAM = Path(sys.executable).parent / "taskctl"
WITHIN = 30.0  # seconds
HEAVY = {
    "rich", "requests", "urllib3", "httplib2", "http", "email", "ssl", "socket", "subprocess", "tempfile",
    "asyncio", "tornado", "logging", "json", "tomllib", "importlib.metadata", "task_client.client",
}  # fmt: skip


def environment(socket_path: str, **more: str) -> dict[str, str]:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    return {"PATH": path, "TASK_DAEMON_SOCKET": socket_path, "HOME": os.path.dirname(socket_path), "LC_ALL": "C.UTF-8", **more}


def offered(socket_path: str, line: str) -> list[str]:
    """What taskctl answers its shells for the end of a line."""
    words = line.split(" ")
    asked = {"_TASKCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [PROGRAM], env=environment(socket_path, **asked), capture_output=True, text=True, timeout=WITHIN, check=True
    )
    assert done.stderr == ""
    return [row.partition(",")[2] for row in done.stdout.splitlines() if row]


@pytest.fixture
def filled(server: ScriptedServer) -> ScriptedServer:
    tasks = [task(uid) for uid in ("0198-aa", "0198-ab", "0200")]
    zones = [{"zone": zone, "state": "ok"} for zone in ("vm-east", "vm-west")]
    server.on("GET", "/v1/tasks", Reply(body={"tasks": tasks, "next_page_token": None}))
    server.on("GET", "/v1/zones", Reply(body={"zones": zones}))
    server.on("GET", "/v1/actions", Reply(body={"actions": [{"action": "backup", "backend": "storage"}]}))
    server.on("GET", "/v1/callbacks", Reply(body={"callbacks": [{"id": "c-1", "type": "task.failed", "state": "dead"}]}))
    return server


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("taskctl show 0198", ["0198-aa", "0198-ab"]),
        ("taskctl zones pause ", ["vm-east", "vm-west"]),
        ("taskctl list --zone vm-east --action ", ["backup"]),
        ("taskctl register disk-1 backup v", ["vm-east", "vm-west"]),
        ("taskctl callbacks replay ", ["c-1"]),
        ("taskctl callbacks re", ["replay"]),
        ("taskctl wait --an", ["--any"]),
        ("taskctl list --state lo", ["lost"]),
    ],
)
def test_completion_offers_what_the_daemon_knows(filled: ScriptedServer, line: str, found: list[str]) -> None:
    assert offered(filled.path, line) == found


def test_open_tasks_are_offered_to_verbs_that_need_an_open_one(filled: ScriptedServer, socket_path: str) -> None:
    offered(socket_path, "taskctl cancel ")
    offered(socket_path, "taskctl resolve ")

    queries = [dict(asked.query) for asked in filled.asked]
    assert (queries[0]["done"], queries[1]["state"]) == ("false", "lost")


def test_completion_asks_the_socket_named_on_the_line(filled: ScriptedServer, short_path: Path) -> None:
    nobody = str(short_path / "nobody.sock")

    assert offered(nobody, f"taskctl --socket {filled.path} show 02") == ["0200"]


def test_completion_is_silent_when_no_daemon_answers(server: ScriptedServer, short_path: Path) -> None:
    """Nobody there; somebody who refuses; somebody who hangs up."""
    server.on("GET", "/v1/zones", Reply(drop=True))

    assert offered(str(short_path / "nobody.sock"), "taskctl show 0") == []
    assert offered(server.path, "taskctl show 0") == []
    assert offered(server.path, "taskctl zones pause ") == []


def script(shell: str, home: Path) -> Path:
    made = home / f"taskctl.{shell}"
    command, env = [str(PROGRAM), "completion", shell], environment(str(home / "s"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=True, env=env)
    made.write_text(done.stdout)
    return made


class Terminal:
    """A shell on a pseudo-terminal, typed at."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._screen = bytearray()
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, pattern: str) -> str:
        """What the screen shows, once it shows this; fails when it does not."""
        timer = threading.Timer(WITHIN, self._process.kill)
        timer.start()
        try:
            while not re.search(pattern, self.text()):
                try:
                    self._screen += os.read(self._ours, 4096)
                except OSError:
                    break  # the shell has ended
        finally:
            timer.cancel()
        assert re.search(pattern, self.text()), f"{pattern!r} is not on the screen: {self.text()!r}"
        return self.text()

    def text(self) -> str:
        return self._screen.decode(errors="replace")

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._ours)
        self._process.kill()
        self._process.wait(WITHIN)


@pytest.fixture
def typed_at() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}; PS1='rea''dy> '"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source {script}; PS1='rea''dy> '"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_the_real_shell(filled: ScriptedServer, short_path: Path, typed_at: list[Terminal], shell: str) -> None:
    """On a terminal, with nothing but the script of `taskctl completion`: the verb and the one zone that fits are written out."""
    if shutil.which(shell) is None:
        missing(shell)
    command, prepare = SHELLS[shell]
    terminal = Terminal(command, environment(filled.path, TERM="dumb"))
    typed_at.append(terminal)
    terminal.type(prepare.format(script=script(shell, short_path)) + "\n")
    terminal.until("ready> ")

    terminal.type("taskctl zo\tpause vm-w\t")

    terminal.until("zones [^\n]*pause vm-west")


def test_fish_completes(filled: ScriptedServer, short_path: Path) -> None:
    """fish tells what it would offer without a terminal."""
    if shutil.which("fish") is None:
        missing("fish")
    asked = f"source {script('fish', short_path)}; complete -C 'taskctl zones pause vm-w'"

    command, env = ["fish", "--no-config", "-c", asked], environment(filled.path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, env=env)

    assert (done.stdout, done.stderr) == ("vm-west\tok\n", "")


PROGRAM_THAT_TELLS = """
import sys
before = set(sys.modules)  # what every Python of this installation loads
from task_client.cli import main
try:
    main()
finally:
    print(*(set(sys.modules) - before), file=sys.stderr)
"""


def loaded_by(*words: str) -> tuple[set[str], str]:
    """The modules that `taskctl` loads, and what it prints."""
    command = [sys.executable, "-c", PROGRAM_THAT_TELLS, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=True)
    return set(done.stderr.split()), done.stdout


def test_help_loads_nothing_heavy() -> None:
    """`taskctl --help` takes less than 100 ms. What costs is what is imported, and that does not depend on the load."""
    loaded, printed = loaded_by("--help")

    assert "task_client.cli.watch" in loaded
    assert loaded & HEAVY == set()
    assert "..." not in printed.partition("Commands:")[2]  # the first sentence of each verb fits into the list


@pytest.mark.parametrize("words", [("ping",), ("register", "disk-1", "backup", "vm1"), ("show", "u1")])
def test_asking_the_daemon_loads_nothing_but_what_speaks_to_it(server: ScriptedServer, words: tuple[str, ...]) -> None:
    server.on("GET", "/ping", Reply(200, "pong"))
    server.on("POST", "/v1/tasks", Reply(202, task()))
    server.on("GET", "/v1/tasks/u1", Reply(200, task()))

    loaded, printed = loaded_by("--socket", server.path, *words)

    assert printed
    assert loaded & HEAVY == {"socket", "logging", "json", "task_client.client"}
