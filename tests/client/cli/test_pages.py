"""The reference page and the manual page are what the commands say, and say something about everything."""

from pathlib import Path

import click

from docs import taskctl_pages
from task_client.cli import commands
from task_client.cli.frame import EXIT_CODES

DOCS = Path(__file__).parents[3] / "docs"
AGAIN = "run `python docs/taskctl_pages.py`"


def test_pages_are_in_step_with_the_commands() -> None:
    assert (DOCS / "taskctl.md").read_text() == taskctl_pages.markdown(), AGAIN
    assert (DOCS / "taskctl.1").read_text() == taskctl_pages.manual(), AGAIN


def test_pages_name_every_verb_option_and_exit_code() -> None:
    """From the commands, not through the writer of the pages."""
    page, manual = (DOCS / "taskctl.md").read_text(), (DOCS / "taskctl.1").read_text().replace("\\-", "-")

    for names, command in commands():
        section = page.partition(f"\n### {' '.join(names)}\n")[2].partition("\n### ")[0]
        assert section, names
        assert f".SS taskctl {' '.join(names)} " in manual
        for option in command.params:
            written = [name for name in option.opts if name.startswith("--")]
            assert all(f"`{name}" in section or name == "--json" for name in written), (names, written)
            assert all(name in manual for name in written)
    assert all(f"| {code} | {text} |" in page and f".B {code}\n{text}" in manual for code, text in EXIT_CODES.items())


def test_every_option_has_its_meaning() -> None:
    plain = {"--done", "--open", "--state", "--limit"}
    bare = [
        (names, option.opts)
        for names, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not set(option.opts) & plain
    ]

    assert bare == []
