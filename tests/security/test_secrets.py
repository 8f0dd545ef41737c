"""Secrets stay where they are: one daemon with all of them configured, and a search through everything it has produced."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from task_daemon import config
from task_daemon.api.app import ROUTES
from task_daemon.backends.registry import find_family
from task_daemon.callbacks.secret_file import read_secret
from task_daemon.callbacks.signing import read_keys
from task_daemon.core.errors import ConfigError
from tests.callbacks.test_keystone import grant
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.security.people import as_root
from tests.security.processes import answer, connected, request
from tests.waiting import eventually

OLD_KEY, NEW_KEY, OTHER_KEY = (bytes([n]) * 32 for n in (65, 66, 67))
PASSWORD, TOKEN = "Pa55word-of-Keystone", "gAAAAA-token-of-Keystone"


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def secret_file(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


SECRETS = {
    *(PASSWORD, TOKEN, *(whsec(key) for key in (OLD_KEY, NEW_KEY, OTHER_KEY))),
    *(key.decode() for key in (OLD_KEY, NEW_KEY, OTHER_KEY)),
    *(base64.b64encode(key).decode() for key in (OLD_KEY, NEW_KEY, OTHER_KEY)),
}


def configuration(home: Path, keystone: str, password: bool) -> str:
    default = secret_file(home / "default.key", f"{whsec(NEW_KEY)}\n{whsec(OLD_KEY)}\n")
    other = secret_file(home / "other.key", whsec(OTHER_KEY))
    inline = f'admin_password = "{PASSWORD}"'
    file = f'admin_password_file = "{secret_file(home / "pw", PASSWORD)}"'
    return f"""
[daemon]
log_level = "debug"
[zones.play]
backend = "simulated"
scenario = [{{ id = "*", finish_after = 0.05 }}]
poll_interval = 0.1
[callbacks]
schedule = [0, 0.1]
[callbacks.keys]
default = "{default}"
other = "{other}"
[region]
region = "R1"
auth_uri = "{keystone}"
admin_user = "region"
admin_tenant_name = "service"
{inline if password else file}
"""


def everything_answered(daemon: Daemon, uid: str, callback: str) -> str:
    """The answers of every route to GET, and of some requests that are refused."""
    found = []
    paths = [path.replace("([^/]+)", callback if "callbacks/" in path else uid) for path, levels, _ in ROUTES if "GET" in levels]
    body = {"id": "x", "action": "backup", "zone": "play", "callback": {"url": "http://127.0.0.1:9/", "secret": "unknown"}}
    with connected(daemon.socket) as connection:
        for path in paths:
            connection.sendall(request("GET", path))
            status, _, raw = answer(connection)
            assert status == 200, (path, raw)
            found.append(raw.decode())
        for raw in (json.dumps(body).encode(), b"{", json.dumps(body | {"zone": "nowhere"}).encode()):
            connection.sendall(request("POST", "/v1/tasks", raw))
            found.append(answer(connection)[2].decode())
    return "\n".join(found)


@pytest.mark.parametrize("inline", [True, False], ids=["password in the configuration", "password in a file"])
def test_no_secret_is_in_anything_a_daemon_has_produced(short_path: Path, inline: bool) -> None:
    with Receiver() as receiver, Receiver() as region, Receiver(then=grant(TOKEN, "http://127.0.0.1:9")) as keystone:
        keystone.answer_with(grant(TOKEN, region.url.removesuffix("/hook")))
        text = configuration(short_path, keystone.url.replace("/hook", "/v3"), inline)
        with Daemon(short_path, text) as daemon, daemon.client() as client:
            hooked = client.register("hooked", "backup", "play", params={}, callback={"url": receiver.url, "secret": "other"})
            told = client.register("told", "delete_backup", "play", params={})
            failing = client.register("failing", "backup", "play", params={}, callback="http://127.0.0.1:9/")
            for task in (hooked, told, failing):
                client.wait(task.uid, 20)
            eventually("all are told", lambda: not client.callbacks(state="pending"))
            (sent,) = client.callbacks(hooked.uid)
            produced = {
                "answers": everything_answered(daemon, hooked.uid, sent.id),
                "process": "".join(Path(f"/proc/{daemon.pid}/{name}").read_text() for name in ("cmdline", "environ")),
            }
            assert receiver.wait(1)[0].headers["webhook-signature"].startswith("v1,")
            assert TOKEN in {each.headers.get("x-auth-token") for each in region.wait(1)}
            assert PASSWORD in keystone.wait(1)[0].body.decode()
            assert daemon.stop() == 0
        command = [sys.executable, "-m", "task_daemon", f"--config-file={short_path}/task-daemon.toml"]
        shown = subprocess.run([*command, "--show-config"], capture_output=True, text=True, timeout=30, check=True)
        checked = subprocess.run(
            [*command, "--check-config", "--workspace=x"], capture_output=True, text=True, timeout=30, check=False
        )
        produced |= {"--show-config": shown.stdout + shown.stderr, "--check-config": checked.stdout + checked.stderr}
        produced |= {"log": daemon.log.read_text()}
        files = [path for path in (short_path / "w").rglob("*") if path.is_file()]
        produced |= {path.name: path.read_bytes().decode("latin-1") for path in files}
    assert "(hidden)" in produced["--show-config"] or not inline
    assert "store.db" in produced
    assert [(where, secret) for where, text in produced.items() for secret in SECRETS if secret in text] == []


def test_both_keys_sign_while_they_are_being_changed(short_path: Path) -> None:
    with Receiver() as receiver:
        with Daemon(short_path, configuration(short_path, "http://127.0.0.1:9/v3", False)) as daemon, daemon.client() as client:
            task = client.register("d", "backup", "play", params={}, callback=receiver.url)
            client.wait(task.uid, 20)
            (came,) = receiver.wait(1)
            assert daemon.stop() == 0
        for key in (OLD_KEY, NEW_KEY):
            assert Webhook(whsec(key)).verify(came.body, came.headers)["type"] == "task.succeeded"


def test_key_is_changed_without_a_restart(short_path: Path) -> None:
    key = secret_file(short_path / "key", whsec(OLD_KEY))
    config = f'[zones.play]\nbackend = "simulated"\nscenario = [{{ finish_after = 0 }}]\n[callbacks.keys]\ndefault = "{key}"\n'
    with Receiver() as receiver, Daemon(short_path, config) as daemon, daemon.client() as client:
        client.register("d1", "backup", "play", params={}, callback=receiver.url)
        receiver.wait(1)
        new = secret_file(short_path / "new", whsec(NEW_KEY))
        new.replace(key)
        eventually("it is read", lambda: "read key default again" in daemon.said())
        client.register("d2", "backup", "play", params={}, callback=receiver.url)
        first, second = receiver.wait(2)
        assert Webhook(whsec(OLD_KEY)).verify(first.body, first.headers)["type"] == "task.succeeded"
        assert Webhook(whsec(NEW_KEY)).verify(second.body, second.headers)["type"] == "task.succeeded"
        with pytest.raises(WebhookVerificationError):
            Webhook(whsec(OLD_KEY)).verify(second.body, second.headers)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601])
def test_file_of_a_secret_is_refused_when_others_may_use_it(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path / "s", whsec(OLD_KEY))
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"its mode {mode:04o} lets others"):
        read_secret(str(path))
    with pytest.raises(ConfigError, match=f"its mode {mode:04o} lets others") as caught:
        read_keys({"default": str(path)})
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


@as_root
def test_file_of_a_secret_is_refused_when_it_belongs_to_somebody_else(tmp_path: Path) -> None:
    import os

    path = secret_file(tmp_path / "s", PASSWORD)
    os.chown(path, 4711, 4711)
    with pytest.raises(ValueError, match="belongs to user 4711"):
        read_secret(str(path))


def test_password_of_a_daemon_is_refused_from_a_file_that_others_may_read(short_path: Path) -> None:
    text = configuration(short_path, "http://127.0.0.1:9/v3", False)
    (short_path / "pw").chmod(0o644)
    daemon = Daemon(short_path, text).start(ready=False)
    assert daemon.wait() == 2
    assert "its mode 0644 lets others" in daemon.said()
    assert PASSWORD not in daemon.said()


def test_shown_configuration_hides_what_is_secret(short_path: Path) -> None:
    (short_path / "c.toml").write_text(
        configuration(short_path, "http://me:Url-Secret@127.0.0.1:9/v3", True)
        + 'mebs_sql_connection = "mysql://me:Url-Secret@h/"\n'
    )
    text = config.shown(config.load(str(short_path / "c.toml"), {}, find_family))
    assert PASSWORD not in text
    assert "Url-Secret" not in text
    assert 'admin_password = "(hidden)"' in text
