"""The documentation is complete against the code, its links lead somewhere, and its examples run."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from task_client import Callback, Client
from task_client.daemon import stop_daemon
from task_client.dashboard.bridge import page_files
from task_client.errors import DaemonUnreachable
from task_daemon import main
from task_daemon.api import bodies
from task_daemon.api.app import ROUTES
from task_daemon.api.problems import STATUS
from task_daemon.backends import process, storage
from task_daemon.callbacks.region import DEFAULT_ROUTES
from task_daemon.callbacks.signing import Key, sign
from task_daemon.clock import FakeClock
from task_daemon.config import OLD_OPTIONS
from task_daemon.core.backoff import CALLBACK_SCHEDULE
from task_daemon.core.model import CALLBACK_EVENTS, CallbackTarget, DeliveryState, Draft, ErrorKind, State
from task_daemon.core.ports import Family, ZoneContext
from task_daemon.core.view import TaskView
from task_daemon.tracking.notify import ASKED_BY
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.test_promises import NAMES, PROMISES
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
KEY = "whsec_" + "c2VjcmV0LWZvci10aGUtdGVzdHMtb2YtdGhlLWRvY3M="
WITHIN = 30.0


def rows(page: str) -> list[str]:
    return [line for line in PAGES[page].splitlines() if line.startswith("|")]


def row_of(page: str, first: str) -> str:
    """The table row whose first cell begins with some text."""
    found = [row for row in rows(page) if row.startswith(f"| {first}")]
    assert len(found) == 1, f"{page} has {len(found)} rows that begin with {first}"
    return found[0]


def section(page: str, title: str) -> str:
    """The text below a heading that begins with `title`, to the next one of the same or a higher level."""
    found = re.search(rf"(?ms)^(#+) {re.escape(title)}\b.*?\n(.*?)(?=^#{{1,3}} |\Z)", PAGES[page])
    assert found is not None, f"{page} has no heading {title}"
    return found[2]


# --------------------------------------------------------------------------- complete


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [(method, path.replace("([^/]+)", "{}"), level.value) for path, levels, _ in ROUTES for method, level in levels.items()],
)
def test_a_route_is_in_the_page_with_its_access_level(method: str, path: str, level: str) -> None:
    pattern = re.escape(f"| `{method} {path}` | {level} |").replace(r"\{\}", r"\{[a-z]+\}")

    assert [row for row in rows("rest-api.md") if re.match(pattern, row)], f"no row like {pattern}"


def test_no_route_is_in_the_page_that_is_not_in_the_code() -> None:
    known = {(method, path.replace("([^/]+)", "{}")) for path, levels, _ in ROUTES for method in levels}
    shown = re.findall(r"(?m)^\| `(GET|POST|DELETE|PUT) (/\S*)` \|", PAGES["rest-api.md"])

    assert {(method, re.sub(r"\{[a-z]+\}", "{}", path)) for method, path in shown} == known


def test_every_problem_code_is_in_the_page_with_its_status() -> None:
    shown = re.findall(r"(?m)^\| `([a-z-]+)` \| (\d{3}) \|", PAGES["rest-api.md"])

    assert {code: int(status) for code, status in shown} == dict(STATUS)


def test_every_state_and_error_kind_has_its_row() -> None:
    for word in [*State, *ErrorKind]:
        assert f"| `{word.value}` | " in section("rest-api.md", "States"), word


def test_every_member_of_a_registration_has_its_row() -> None:
    table = [row for row in section("rest-api.md", "Registering").splitlines() if row.startswith("| `")]
    shown = {row.split("`")[1]: row for row in table}

    assert set(Draft.__struct_fields__) | {"x_…"} == set(shown)
    assert all(f'"{name}"' in shown["callback"] for name in CallbackTarget.__struct_fields__)


def test_every_member_of_a_task_is_explained() -> None:
    text = section("rest-api.md", "A task")

    assert [name for name in TaskView.__struct_fields__ if f"`{name}`" not in text] == []


def test_limits_are_those_of_the_code() -> None:
    page = PAGES["rest-api.md"]

    assert f"1 to {bodies.BATCH}, all or none" in page
    assert f"at most {bodies.NESTING} levels" in page
    assert f"at most {bodies.EXTRA_MEMBERS} members and {bodies.EXTRA_BYTES // 1024} KiB" in page


def test_every_type_of_callback_is_in_the_page_with_what_asks_for_it() -> None:
    table = [row for row in rows("callbacks.md") if "`task." in row]
    for kind, asks in ASKED_BY.items():
        assert any(f"`{kind}`" in row and f"`{asks}`" in row for row in table), kind
    assert set(ASKED_BY.values()) == set(CALLBACK_EVENTS)
    assert all(state.value in row_of("rest-api.md", "`GET /v1/callbacks` |") for state in DeliveryState)


def test_the_schedule_is_that_of_the_code() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    cells = re.findall(r"(\d+) (s|min|h) ", row_of("callbacks.md", "waits for"))

    assert tuple(int(number) * units[unit] for number, unit in cells) == CALLBACK_SCHEDULE


def test_the_regions_table_is_that_of_the_code() -> None:
    table = rows("callbacks.md")
    for route in DEFAULT_ROUTES:
        action = route.action
        body = msgspec.json.format(msgspec.json.encode(route.body), indent=0).decode()
        assert f"| `{action}` | {route.outcome} | `{route.method} {route.path}` | `{body}` |" in table


def actions(family: Family, home: Path, **settings: Any) -> Iterator[tuple[str, list[str]]]:
    backend = family.make(msgspec.convert(settings, family.settings), ZoneContext("z", str(home), 5.0, FakeClock()))
    for name, action in backend.actions.items():
        yield name, [field.encode_name for field in msgspec.structs.fields(action.params)]
    backend.close()


def test_every_parameter_of_a_storage_action_is_in_its_section(tmp_path: Path) -> None:
    found = dict(actions(storage.FAMILY, tmp_path, qmp="/nowhere.sock"))
    assert len(found) == 8
    for name, members in found.items():
        text = section("storage.md", name)
        assert [member for member in members if f"`{member}`" not in text] == [], name
        assert set(re.findall(r"(?m)^\| `(\w+)` \|", text)) <= set(members), name


def test_every_parameter_of_a_process_action_is_in_its_section(tmp_path: Path) -> None:
    for name, members in actions(process.FAMILY, tmp_path):
        text = section("processes.md", name)
        assert [member for member in members if f"| `{member}` |" not in text] == [], name
    for name in process.ProcessSettings.__struct_fields__:
        assert f"\n{name} = " in PAGES["processes.md"], name


def test_every_exit_code_has_its_row() -> None:
    shown = {int(code) for code in re.findall(r"(?m)^\| (\d) \|", PAGES["operating.md"])}

    assert {main.STOPPED, main.MISCONFIGURED, main.TAKEN, main.STORE_FAILED} | {1} == shown


def test_every_option_of_the_old_service_is_named() -> None:
    named = section("replacing-the-old-service.md", "Options")

    assert [name for name in OLD_OPTIONS if f"`{name}`" not in named] == []


def test_every_guarantee_names_tests_that_exist() -> None:
    for promise in [name.upper() for name in PROMISES if name.startswith("i")]:
        row = row_of("reliability.md", f"{promise} |")
        tests = re.findall(r"`(test_\w+)`", row)
        assert tests, promise
        assert [test for test in tests if test not in NAMES] == [], promise


# --------------------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?s)```.*?```", "", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_project_lead_somewhere(name: str) -> None:
    text = re.sub(r"(?s)```.*?```", "", PAGES[name])
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / "docs" / path).resolve() if path else ROOT / "docs" / name
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{name}: {link}"


def test_the_size_of_the_dashboard_is_what_is_said() -> None:
    said = re.search(r"The page is (\d+) kB in (\d+) files", PAGES["dashboard.md"])
    served = [content for _, content in page_files().values()]

    assert said is not None
    assert len(served) == int(said[2])
    assert sum(map(len, served)) == pytest.approx(int(said[1]) * 1000, rel=0.05)


def test_every_page_is_in_the_index() -> None:
    assert [name for name in PAGES if name != "README.md" and f"({name}" not in PAGES["README.md"]] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "docs" / "mkdocs" / "mkdocs.yml").read_text().partition("\nnav:\n")[2]

    assert [name for name in PAGES if f": {name}\n" not in navigation] == [], "docs/mkdocs/mkdocs.yml, nav"


# --------------------------------------------------------------------------- examples


def snippets(how: str | None = None) -> list[Any]:
    """Python examples; those whose first line is `# run: <how>`."""
    found = []
    for name, text in PAGES.items():
        for number, code in enumerate(re.findall(r"(?ms)^```python\n(.*?)^```", text), 1):
            first = code.partition("\n")[0]
            if how is None or first == f"# run: {how}":
                found.append(pytest.param(code, id=f"{name.removesuffix('.md')}-{number}"))
    return found


@pytest.mark.parametrize("code", snippets())
def test_an_example_compiles_and_is_run_somewhere(code: str) -> None:
    compile(code, "example", "exec")
    first = code.partition("\n")[0]
    if first.startswith("# run:"):
        assert first.removeprefix("# run: ") in {"with a daemon", "receiver", "unix receiver", "verify"}


@pytest.mark.parametrize("code", snippets("with a daemon"))
def test_an_example_that_starts_a_daemon_runs(code: str, short_path: Path) -> None:
    environment = {**os.environ, "TASK_DAEMON_WORKSPACE_ROOT": str(short_path)}
    try:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False)
    finally:
        try:
            stop_daemon(short_path / "task_daemon" / "task_daemon.socket")
            left_behind = True
        except DaemonUnreachable:
            left_behind = False

    assert done.returncode == 0, done.stderr
    assert not left_behind


@pytest.fixture
def start(short_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: str) -> "subprocess.Popen[str]":
        receiver = subprocess.Popen([sys.executable, "-u", "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(receiver)
        return receiver

    yield run
    for receiver in started:
        receiver.kill()
        receiver.wait(10)
        assert receiver.stdout is not None
        receiver.stdout.close()


def callback_of(client: Client, uid: str, state: str) -> Callback:
    """The only callback of a task, once it is in a state."""
    found: list[Callback] = []

    def there() -> bool:
        found[:] = client.callbacks(uid, state=state)
        return bool(found)

    eventually(f"the callback of {uid} is {state}", there)
    (callback,) = found
    return callback


def register(client: Client, url: str) -> str:
    return client.register("disk-1", "command", "local", params={"argv": ["true"]}, callback=url).uid


@pytest.mark.parametrize("code", snippets("receiver"))
def test_the_receiver_does_its_work_once_when_a_callback_is_repeated(
    code: str, short_path: Path, start: Callable[..., "subprocess.Popen[str]"], unused_port: int
) -> None:
    disks = short_path / "disks.db"
    start(code, str(unused_port), str(disks))
    with Daemon(short_path, "[callbacks]\nschedule = [0, 0.2, 0.2, 0.5, 1, 1, 1]") as daemon, daemon.client() as client:
        uid = register(client, f"http://127.0.0.1:{unused_port}/hook")
        callback = callback_of(client, uid, "delivered")
        client.replay(callback.id)
        callback_of(client, uid, "delivered")
        again = client.callbacks(uid)[0]

    assert len(again.tries) > 1
    store = sqlite3.connect(disks)
    assert store.execute("SELECT id, state FROM disk").fetchall() == [("disk-1", "succeeded")]
    store.close()


@pytest.mark.parametrize("code", snippets("unix receiver"))
def test_the_receiver_on_a_unix_socket_is_told(
    code: str, short_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    path = short_path / "hook.sock"
    receiver = start(code, str(path))
    eventually("the receiver listens", path.exists)
    with Daemon(short_path, "[callbacks]\nschedule = [0, 0.2, 0.2, 0.5, 1, 1, 1]") as daemon, daemon.client() as client:
        callback_of(client, register(client, f"http+unix://{str(path).replace('/', '%2F')}/done"), "delivered")

    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "task.succeeded disk-1\n"


@pytest.mark.parametrize("code", snippets("verify"))
def test_the_signature_is_verified_and_a_forged_one_refused(code: str, short_path: Path) -> None:
    key = short_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    with Receiver() as receiver, Daemon(short_path, f'[callbacks.keys]\ndefault = "{key}"') as daemon, daemon.client() as client:
        register(client, receiver.url)
        (request,) = receiver.wait(1)
    names: dict[str, Any] = {}
    exec(code, names)
    verify = names["verify"]

    verify(KEY, request.headers, request.body)
    with pytest.raises(Exception, match=r"(?i)signature"):
        verify(KEY, request.headers, request.body.replace(b"succeeded", b"failed"))
    with pytest.raises(Exception, match=r"(?i)minutes|too old"):
        verify(KEY, request.headers | old(request.headers, request.body), request.body)


def old(headers: dict[str, str], body: bytes) -> dict[str, str]:
    """Headers of the same message, rightly signed, an hour before."""
    then = int(headers["webhook-timestamp"]) - 3600
    return {"webhook-timestamp": str(then), "webhook-signature": sign(Key(KEY), headers["webhook-id"], then, body)}


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
