import ast
import subprocess
import sys
from pathlib import Path

import pytest

import task_client

PACKAGE = Path(task_client.__file__).parent
TRANSPORTS = {"requests", "requests_unixsocket", "urllib3", "httplib2", "click", "rich", "tornado"}


def test_the_package_imports_only_the_standard_library_and_its_transports() -> None:
    """But for the pytest plugin, which runs a daemon in the process of a test."""
    found: dict[str, set[str]] = {}
    for path in (path for path in PACKAGE.rglob("*.py") if path.parent.name != "testing"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(path.name)

    assert set(found) - TRANSPORTS - {"task_client"} - set(sys.stdlib_module_names) == set()


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_import_of_the_package_costs_next_to_nothing() -> None:
    assert (
        loaded("-c", "import task_client")
        & {"requests", "httplib2", "rich", "click", "json", "dataclasses", "subprocess", "tornado", "asyncio"}
        == set()
    )


def test_help_imports_nothing_heavy() -> None:
    for arguments in (["--help"], ["wait", "--help"]):
        modules = loaded("-c", f"import sys; sys.argv = ['taskctl', *{arguments}]; from task_client.cli import main; main()")

        assert "click" in modules
        assert modules & {"requests", "urllib3", "rich", "httplib2", "asyncio", "subprocess", "task_daemon", "tornado"} == set()


@pytest.mark.parametrize("name", dir(task_client))
def test_every_name_of_the_facade_is_there(name: str) -> None:
    assert getattr(task_client, name).__name__.lower().replace("_", "") != ""


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'regsiter'"):
        _ = task_client.regsiter
