"""The house keeps its shape: who may import whom, how long a file may be, what may be used where."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER, CLIENT = ROOT / "task_daemon", ROOT / "client" / "task_client"
HARD_CAP = 500  # lines of one module
ARCHITECTURE_CAP = 150

MAY_IMPORT = {
    "core": {"core"},
    "engine": {"engine", "core"},
    "callbacks": {"callbacks", "core"},
    "tracking": {"tracking", "core"},
    "backends": {"backends", "core"},
    "api": {"api", "core", "tracking"},
}
"""Rooms of ours that a room may import. `main` and the modules beside it wire everything."""

ONLY_IN = {
    "sqlite3": {"engine/local/"},
    "tornado.web": {"api/"},
    "tornado": {"api/", "main.py", "serve.py"},
    "subprocess": {"backends/"},
    "h11": {"callbacks/"},
    "prometheus_client": {"api/metrics.py"},
    "keystoneauth1": {"callbacks/keystone.py"},
    "qemu": {"backends/storage/"},
    "socket": {"api/", "backends/", "callbacks/", "logs.py", "main.py", "serve.py", "notify_systemd.py"},
}
"""Outside modules that only some places may use."""


def modules(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            yield node.module or ""


def place(path: Path) -> str:
    return str(path.relative_to(SERVER))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{place(path)} imports {name}"
        for path in modules(SERVER / room)
        for name in imports(path)
        if name.startswith("task_daemon.") and name.split(".")[1] not in MAY_IMPORT[room]
    ]

    assert wrong == []


def test_the_api_talks_to_the_manager_and_to_no_other_part_of_tracking() -> None:
    allowed = {"task_daemon.tracking.manager", "task_daemon.tracking.admit", "task_daemon.tracking.feed"}
    wrong = [
        f"{place(path)} imports {name}"
        for path in modules(SERVER / "api")
        for name in imports(path)
        if name.startswith("task_daemon.tracking") and name not in allowed
    ]

    assert wrong == []


def test_the_families_of_backends_do_not_know_each_other() -> None:
    families = {"storage", "process", "simulated"}
    for path in modules(SERVER / "backends"):
        own = path.relative_to(SERVER / "backends").parts[0].removesuffix(".py")
        if own not in families:
            continue
        known = {name.split(".")[2] for name in imports(path) if name.startswith("task_daemon.backends.")}
        assert known <= {own}, place(path)


def test_the_core_is_pure() -> None:
    allowed = {
        "asyncio",
        "bisect",
        "collections",
        "contextvars",
        "datetime",
        "enum",
        "functools",
        "hashlib",
        "msgspec",
        "os",
        "secrets",
        "task_daemon",
        "typing",
    }
    for path in modules(SERVER / "core"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, place(path)


@pytest.mark.parametrize("outside", ONLY_IN)
def test_an_outside_module_stays_in_its_room(outside: str) -> None:
    wrong = [
        place(path)
        for path in modules(SERVER)
        for name in imports(path)
        if (name == outside or name.startswith(outside + ".")) and not place(path).startswith(tuple(ONLY_IN[outside]))
    ]

    assert wrong == []


def test_the_client_never_imports_the_daemon_or_tornado() -> None:
    """But for what exists to bring a whole daemon into a test, and the transport of `AsyncClient`: each loaded when asked for."""
    allowed = {"testing/daemon.py": {"task_daemon"}, "over_tornado.py": {"tornado"}}
    for path in modules(CLIENT):
        place = str(path.relative_to(CLIENT))
        forbidden = {"task_daemon", "tornado", "msgspec"} - allowed.get(place, set())
        assert not {name.split(".")[0] for name in imports(path)} & forbidden, place


def test_no_module_outgrows_its_cap() -> None:
    long = {
        str(path.relative_to(ROOT)): lines for path in [*modules(SERVER), *modules(CLIENT)] if (lines := _lines(path)) > HARD_CAP
    }

    assert long == {}


def test_functions_stay_short() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in [*modules(SERVER), *modules(CLIENT)]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )

    assert lengths[int(len(lengths) * 0.9)] <= 30


def test_nothing_is_called_by_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "tools"}

    assert [path for path in [*modules(SERVER), *modules(CLIENT)] if set(path.with_suffix("").parts) & vague] == []


def test_the_architecture_page_is_short_and_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()

    assert len(text.splitlines()) <= ARCHITECTURE_CAP
    for room in MAY_IMPORT:
        assert f"{room}/" in text


def test_the_top_level_holds_what_was_ordered() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    ordered = {"pyproject.toml", "task_daemon", "client", "etc", "tests", "systemd"}
    usual = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "Makefile"}
    usual |= {"docs", "benchmarks", ".ci", ".gitignore", "requirements.lock"}

    assert {name.split("/")[0] for name in tracked} == ordered | usual


def test_the_lock_file_holds_no_address() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["docs"], *extras["keystone"]]
    lock = (ROOT / "requirements.lock").read_text()

    for dependency in wanted:
        name = re.split(r"[<>=;\[]", dependency)[0].strip().replace(".", "[-.]")
        assert re.search(rf"^{name}==\S+ .*\\\n +--hash=sha256:", lock, re.MULTILINE), dependency


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())
