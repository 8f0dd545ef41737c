"""The README's console examples are run, and what they print is what it says (`...` stands for anything)."""

import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.daemons import Daemon

README = Path(__file__).parent.parent / "README.md"
SOCKET = "/tmp/td.sock"


def examples() -> list[tuple[str, str]]:
    """Commands with the output they show, in their order."""
    block = re.search(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    found = [(command, output) for command, _, output in (part.partition("\n") for part in re.split(r"(?m)^\$ ", block[1])[1:])]
    assert len(found) >= 9
    return found


def matches(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in pattern.split("...")))


def test_the_console_examples_print_what_the_readme_shows(short_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    with Daemon(short_path) as daemon:
        commands = [f"{command}; echo; echo =====" for command, _ in examples()]
        script = "\n".join(commands).replace(SOCKET, daemon.socket)
        run = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False)
    said = [part.strip() for part in run.stdout.split("=====")[:-1]]

    assert run.returncode == 0, run.stderr
    for (command, shown), output in zip(examples(), said, strict=True):
        assert matches(shown.strip(), output), f"{command}\nshows:  {shown}\nprints: {output}"


def test_a_readme_that_shows_something_else_would_be_noticed() -> None:
    assert matches('{"a":...}', '{"a":1}')
    assert not matches('{"b":...}', '{"a":1}')


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_named_and_exist(command: str) -> None:
    makefile = (README.parent / "Makefile").read_text()

    assert command in README.read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE)
