"""taskctl support-bundle: everything a helper needs, no secret among it, also without the daemon."""

import base64
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from task_client import units
from task_client.cli import main
from task_client.support import without_secrets
from tests.client.scripted import Reply, ScriptedServer, problem
from tests.daemons import Daemon
from tests.waiting import eventually

SECRETS = {name: f"hush-{name}" for name in ("argv", "env", "label", "extra", "path", "query", "password", "output", "sql")}
KEY = "whsec_" + base64.b64encode(b"hush-key-hush-key-hush-key-hush-").decode()
CONFIG = """
mebs_sql_connection = "mysql://someone:{sql}@db/x"
[daemon]
log_level = "debug"
poll_interval = 0.2
[callbacks]
schedule = [0, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60]  # more than the requests of this test can wake
keys = {{ mine = "{key}" }}
[region]
service_url = "http://127.0.0.1:1/v2"
admin_password = "{password}"
[zones.sim]
backend = "simulated"
unreachable = [[0, 3600]]
"""
Bundle = dict[str, str]
Pack = Callable[..., tuple[Result, Bundle]]


@pytest.fixture
def pack(short_path: Path) -> Pack:
    """Runs the verb; its result, and the files of the archive by name."""

    def run(socket: str | None, *arguments: str) -> tuple[Result, Bundle]:
        output = short_path / "bundle.tar.gz"
        named = [] if socket is None else ["--socket", socket]
        done = CliRunner().invoke(main, [*named, "support-bundle", f"--output={output}", *arguments])
        assert done.exit_code == 0, done.output
        with tarfile.open(output) as archive:
            (folder,) = {member.name.partition("/")[0] for member in archive}
            assert folder.startswith("task-daemon-support-")
            read = ((member.name.partition("/")[2], archive.extractfile(member)) for member in archive)
            return done, {name: file.read().decode() for name, file in read if file is not None}

    return run


def config(directory: Path) -> str:
    key = directory / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    return CONFIG.format(key=key, **SECRETS)


def register_work(daemon: Daemon) -> None:
    command = {"argv": ["sh", "-c", f"echo {SECRETS['output']}; sleep 600 # {SECRETS['argv']}"], "env": {"TOKEN": SECRETS["env"]}}
    url = f"http://127.0.0.1:1/{SECRETS['path']}?token={SECRETS['query']}"
    with daemon.client() as client:
        live = client.register("live", "command", "local", params=command, labels={"a": SECRETS["label"]})
        client.post_legacy({"id": "old", "action": "backup", "zone": "sim", "x_more": SECRETS["extra"]})
        ended = client.register("ended", "command", "local", params={"argv": ["true"]}, callback={"url": url, "secret": "mine"})
        client.wait(ended.uid, 20)
        eventually("the callback was tried", lambda: client.callbacks(state="pending")[0].attempts)
        eventually("the output was seen", lambda: SECRETS["output"] in str(client.get(live.uid).progress.message))


def end_work(daemon: Daemon) -> None:
    with daemon.client() as client:
        for task in client.list(action="command", done=False):
            client.wait(client.cancel(task.uid).uid, 20)


def test_bundle_tells_everything_but_no_secret_when_the_daemon_is_up(short_path: Path, pack: Pack) -> None:
    with Daemon(short_path, config(short_path)) as daemon:
        register_work(daemon)
        done, found = pack(daemon.socket)
        end_work(daemon)

    assert done.stdout == f"{short_path}/bundle.tar.gz\n"
    assert (short_path / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600
    everything = {
        "README.txt",
        "actions.json",
        "callbacks.json",
        "check.json",
        "config.toml",
        "host.json",
        "info.json",
        "log.txt",
    }
    assert set(found) == everything | {"tasks.json", "zones.json"}
    text = "\n".join(found.values())
    assert [name for name, secret in SECRETS.items() if secret in text] == []
    assert KEY not in text
    assert KEY.removeprefix("whsec_") not in text
    assert json.loads(found["check.json"])["ok"] is True
    info, host = json.loads(found["info.json"]), json.loads(found["host.json"])
    assert {"task-daemon", "python", "sqlite", "tornado", "linux"} <= set(info["versions"])
    assert host["workspace"] == str(daemon.workspace)
    assert "store.db" in {file["name"] for file in host["workspace's files"]}
    assert {zone["zone"]: zone["state"] for zone in json.loads(found["zones.json"])}["sim"] == "unreachable"
    tasks = json.loads(found["tasks.json"])
    assert {task["id"]: task["state"] for task in tasks["tasks"]} == {"live": "running", "old": "queued", "ended": "succeeded"}
    assert all("params" not in task and "labels" not in task and "x_more" not in task for task in tasks["tasks"])
    (callback,) = json.loads(found["callbacks.json"])
    assert (callback["target"], callback["state"]) == ("http://127.0.0.1:1", "pending")
    assert callback["tries"][0]["error"]
    assert 'admin_password = "(hidden)"' in found["config.toml"]
    assert f"serves {daemon.workspace}" in found["log.txt"]
    assert "missing: task-daemon.log: " in found["README.txt"]


def test_bundle_says_what_is_missing_when_the_daemon_is_down(short_path: Path, pack: Pack) -> None:
    with Daemon(short_path, config(short_path)) as daemon:
        assert daemon.stop() == 0
    (daemon.workspace / "task-daemon.log").write_text("the last words, http://me:hush-password@host/?token=hush-query\n")
    before = (daemon.workspace / "store.db").read_bytes()
    config_file = str(short_path / "task-daemon.toml")
    done, found = pack(daemon.socket, f"--workspace={daemon.workspace}", f"--config-file={config_file}", "--json")

    answer = json.loads(done.stdout)
    assert (answer["daemon_up"], set(found)) == (False, {*answer["files"], "README.txt"})
    assert answer["files"] == ["check.json", "config.toml", "host.json", "task-daemon.log"]
    assert "zones.json" in next(iter(answer["missing"]))
    assert "could not be asked" in found["README.txt"]
    assert "nobody listens" in found["README.txt"] or "no such socket" in found["README.txt"]
    assert json.loads(found["check.json"])["ok"] is True
    assert '[zones.sim]\nbackend = "simulated"' in found["config.toml"]
    assert found["task-daemon.log"] == "the last words, http://(hidden)@host/?(hidden)\n"
    assert [name for name, secret in SECRETS.items() if secret in "\n".join(found.values())] == []
    assert (daemon.workspace / "store.db").read_bytes() == before
    with Daemon(short_path, config(short_path)) as daemon:
        assert daemon.client().info()["status"]["salvage"] is None


def test_damage_is_told_when_the_daemon_is_down(short_path: Path, pack: Pack) -> None:
    with Daemon(short_path) as daemon:
        assert daemon.stop() == 0
    store = daemon.workspace / "store.db"
    store.write_bytes(store.read_bytes()[:4096] + os.urandom(4096) * 3)
    _, found = pack(daemon.socket, f"--workspace={daemon.workspace}")

    check = json.loads(found["check.json"])
    assert (check["ok"], check["complete"]) == (False, True)
    assert check["findings"]


def test_nothing_of_a_daemon_that_never_was(short_path: Path, pack: Pack) -> None:
    _, found = pack(str(short_path / "no.sock"))

    assert set(found) == {"README.txt", "config.toml", "host.json"}
    assert "missing: check.json: there is no store at" in found["README.txt"]


@pytest.fixture
def unit(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace of a unit whose socket is `run/d.sock`, as systemd would tell of it; its journal is a file."""
    workspace, socket = short_path / "w", short_path / "run" / "d.sock"
    argv = f"/usr/bin/task-daemon --workspace={workspace} --unix-socket={socket} --config-file={short_path / 'task-daemon.toml'}"
    shown = f"LoadState=loaded\nExecStart={{ path=/usr/bin/task-daemon ; argv[]={argv} ; ignore_errors=no }}\n"
    for name, said in (("systemctl", shown), ("journalctl", "$@\nthe store is on http://me:hush-password@host/\n")):
        program = short_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<END\n{said}END\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(short_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(units, "unit_sockets", lambda: {"system": str(socket)})
    return workspace


@pytest.mark.parametrize("named", [True, False])
def test_workspace_configuration_and_journal_of_the_unit_are_taken_when_its_daemon_is_down(
    short_path: Path, unit: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setenv("TASK_DAEMON_WORKSPACE_ROOT", str(short_path / "nothing"))
    with Daemon(short_path, config(short_path)) as daemon:
        assert daemon.workspace == unit
        assert daemon.stop() == 0

    _, found = pack(str(short_path / "run" / "d.sock") if named else None)

    assert json.loads(found["check.json"])["ok"] is True
    assert json.loads(found["host.json"])["workspace"] == str(unit)
    assert '[zones.sim]\nbackend = "simulated"' in found["config.toml"]
    journal = found["journal.txt"]
    assert journal.startswith("--system --unit=task-daemon.service ")
    assert "the store is on http://(hidden)@host/" in journal


def test_no_unit_is_asked_about_another_socket(short_path: Path, unit: Path, pack: Pack) -> None:
    _, found = pack(str(short_path / "no.sock"))

    assert "journal.txt" not in found
    assert json.loads(found["host.json"])["workspace"] == str(short_path)


def answers(server: ScriptedServer, **others: Reply) -> None:
    plain: dict[str, Any] = {"info": {}, "zones": {"zones": []}, "actions": {"actions": []}, "tasks": {"tasks": []}}
    plain |= {"callbacks": {"callbacks": []}, "config": {"toml": ""}, "check": {"ok": True}, "log": {"lines": []}}
    for name, body in plain.items():
        server.on("GET", f"/v1/{name}", others.get(name, Reply(body=body)))


def test_what_only_admins_may_see_is_named_when_the_caller_is_none(server: ScriptedServer, pack: Pack) -> None:
    refused = problem(403, "forbidden", "cannot let user 1001 do this")
    hidden = {"id": "c", "state": "dead", "url": None, "tries": [{"status": None, "answer": None}], "redacted": True}
    answers(server, config=refused, log=refused, check=refused, callbacks=Reply(body={"callbacks": [hidden]}))
    done, found = pack(server.path)

    assert set(found) == {"README.txt", "info.json", "zones.json", "actions.json", "tasks.json", "callbacks.json", "host.json"}
    assert json.loads(found["callbacks.json"])[0]["target"] is None
    for name in ("config.toml", "log.txt", "check.json"):
        assert f"taskctl: left out {name}: cannot let user 1001 do this (forbidden)\n" in done.stderr
        assert f"missing: {name}: cannot let user 1001 do this" in found["README.txt"]


def test_nobody_who_may_not_ask_gets_more_than_the_host(server: ScriptedServer, pack: Pack) -> None:
    answers(server, info=problem(403, "forbidden", "cannot let user 1001 do this"))
    _, found = pack(server.path)

    assert set(found) == {"README.txt", "host.json"}


def test_file_that_is_there_is_not_overwritten(server: ScriptedServer, short_path: Path) -> None:
    answers(server)
    output = short_path / "mine"
    output.write_text("mine")
    done = CliRunner().invoke(main, ["--socket", server.path, "support-bundle", f"--output={output}"])

    assert (done.exit_code, output.read_text()) == (1, "mine")
    assert f"cannot write {output}: it is there already" in done.stderr


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://a:b@h/x", "http://(hidden)@h/x"),
        ('"mysql://a:b/c@d@h/x"', '"mysql://(hidden)@h/x"'),
        ("POST http://h/p?token=1 and more", "POST http://h/p?(hidden) and more"),
        ("a@b and http://h/", "a@b and http://h/"),
    ],
)
def test_credentials_and_queries_of_urls_are_hidden(text: str, hidden: str) -> None:
    assert without_secrets(text) == hidden
