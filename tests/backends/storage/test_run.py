"""What params are accepted, and names that QEMU takes."""

import re
from typing import Any

import msgspec
import pytest

from task_daemon.backends.storage import ACTIONS
from task_daemon.backends.storage.migrate_template import nbd_options
from task_daemon.backends.storage.run import ROLES, node_name
from tests.backends.storage.making import run

PARAMS = {action.name: action.params for action in ACTIONS}
COPY = {"source": "/i/a", "target": "/i/b"}


@pytest.mark.parametrize("action", sorted(PARAMS))
def test_unknown_member_is_refused_by_name(action: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `speeed`"):
        msgspec.convert({"speeed": 1}, PARAMS[action])


@pytest.mark.parametrize("action", sorted(PARAMS))
def test_members_are_described_for_people(action: str) -> None:
    schema = msgspec.json.schema(PARAMS[action])["$defs"][PARAMS[action].__name__]
    described = [str(member) for member in schema["properties"].values()]
    assert [member for member in described if "description" not in member] == []


@pytest.mark.parametrize(
    ("action", "params", "words"),
    [
        ("clone", {"target": "/i/b"}, "exactly one of `source`"),
        ("clone", {**COPY, "node": "vol"}, "exactly one of `source`"),
        ("clone", {**COPY, "size": 5}, "`size` belongs to `node`"),
        ("clone", {**COPY, "state": "middle"}, "state"),
        ("clone", {**COPY, "speed": -1}, "speed"),
        ("clone", {"source": "relative", "target": "/i/b"}, "source"),
        ("clone", {"node": "1vol", "target": "/i/b"}, "node"),
        ("backup", {**COPY, "bitmap": "b"}, "`bitmap` belongs to a live volume"),
        ("backup", {"node": "v", "target": "/i/b", "base": "/i/c"}, "needs `bitmap`"),
        ("backup", {**COPY, "format": "raw", "compress": True}, "needs `format` qcow2"),
        ("create_template", {**COPY, "format": "raw"}, "for raw set it to false"),
        ("restore_backup", {"source": "/i/a"}, "exactly one of `volume`"),
        ("delete_backup", {}, "backup"),
        ("commit_template", {"source": "/i/a"}, "template"),
        ("migrate_template", {"source": "/i/a", "target": "http://x/y"}, "nbd://HOST"),
    ],
)
def test_wrong_params_are_refused_saying_what_is_accepted(action: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(words)):
        msgspec.convert(params, PARAMS[action])


@pytest.mark.parametrize(
    ("url", "server", "export"),
    [
        ("nbd://host/a", {"type": "inet", "host": "host", "port": "10809"}, "a"),
        ("nbd://[::1]:99/a%20b", {"type": "inet", "host": "::1", "port": "99"}, "a b"),
        ("nbd+unix:///a?socket=/run/x", {"type": "unix", "path": "/run/x"}, "a"),
    ],
)
def test_nbd_url_becomes_server_and_export(url: str, server: dict[str, str], export: str) -> None:
    assert nbd_options(url) == {"server": server, "export": export}


@pytest.mark.parametrize(
    "url", ["nbd:///a", "nbd://h:x/a", "nbd+unix:///a", "nbd+unix:///a?socket=x", "nbd+unix://h/a?socket=/x", "x"]
)
def test_senseless_nbd_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        nbd_options(url)


def test_node_names_are_short_and_differ_by_task() -> None:
    one, other = run("clone", COPY), run("clone", COPY, uid="another")
    names = {node_name(task, role) for task in (one, other) for role in ROLES}
    assert len(names) == 2 * len(ROLES)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{1,30}", name) for name in names)
