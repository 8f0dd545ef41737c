"""Writes taskctl.md and taskctl.1 from the commands themselves; a test keeps them in step. `python docs/taskctl_pages.py`"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from task_client.cli import commands, main
from task_client.cli.frame import EXIT_CODES, OF_SEVERAL

DOCS = Path(__file__).parent
ABOUT = """\
taskctl speaks to a running task-daemon over its Unix socket: the one of --socket, else of the environment variable \
TASK_DAEMON_SOCKET, else the one that `taskctl start` uses."""
OUTPUT = """\
On a terminal, lists are tables and `watch` and `wait` draw bars. Elsewhere rows come one a line, separated by tabs and without \
a heading; what holds nothing is `-`. --json prints the objects of the REST interface, one a line. --format prints what you \
name: columns (`uid,state,percent`) or a template (`'{uid} is {state}\\n'` with \\t, \\n and \\\\); members of members are named \
with a dot (`labels.rack`, `error.message`), those of `progress` also without it."""
ERRORS = """\
Errors go to standard error, say what was refused and why, and, where there is something to be done, `next:`."""
EXAMPLES = (
    ("register a running QEMU job and wait for its end", "taskctl register disk-1 backup vm1 --wait"),
    ("what is going on in one zone, live", "taskctl watch --zone vm1"),
    ("wait for the first end of three, at most an hour", "taskctl wait --any --timeout 3600 $UID1 $UID2 $UID3"),
    ("the failed ones of one rack with their reasons", "taskctl list --state failed --label rack=a7 --format 'id,error.message'"),
    ("make every dead callback again", "taskctl callbacks --state dead --format '{id}' | xargs -r taskctl callbacks replay"),
)


EVERYWHERE = ("-h, --help", "--json")


class Verb:
    """One command as its pages show it."""

    def __init__(self, names: tuple[str, ...], command: click.Command) -> None:
        context = click.Context(main, info_name="taskctl", **main.context_settings)
        for name in names:
            context = click.Context(command, info_name=name, parent=context)
        self.name = " ".join(names)
        self.usage = " ".join(["taskctl", self.name, *command.collect_usage_pieces(context)])
        self.text = [_unwrapped(part) for part in inspect.cleandoc(command.help or "").split("\n\n")]
        self.epilog = inspect.cleandoc(command.epilog or "").removeprefix("\b\n")
        records = (parameter.get_help_record(context) for parameter in command.get_params(context))
        self.options = [(tag, text) for tag, text in filter(None, records) if tag not in (*EVERYWHERE, *self.usage.split())]


def verbs() -> Iterator[Verb]:
    for names, command in commands():
        yield Verb(names, command)


def general() -> list[tuple[str, str]]:
    context = click.Context(main, info_name="taskctl", **main.context_settings)
    return [record for parameter in main.get_params(context) if (record := parameter.get_help_record(context)) is not None]


# --------------------------------------------------------------------------- Markdown


def markdown() -> str:
    return "\n".join(_markdown()) + "\n"


def _markdown() -> Iterator[str]:
    yield "# taskctl"
    yield "\n<!-- written by docs/taskctl_pages.py -->\n"
    yield f"{_marked(ABOUT)}\n"
    yield from _table("option", "meaning", [(f"`{names}`", _marked(text)) for names, text in general()])
    yield "\n## Exit codes\n"
    yield from _table("code", "meaning", [(str(code), text) for code, text in EXIT_CODES.items()])
    yield f"\n{OF_SEVERAL}\n\n{ERRORS}\n"
    yield "## Output\n"
    yield f"{_marked(OUTPUT)}\n"
    yield "## Examples\n"
    yield "```console"
    for what, line in EXAMPLES:
        yield f"# {what}"
        yield f"$ {line}"
    yield "```\n"
    yield "## Verbs\n"
    yield "Every verb takes `--help` and, but for `completion`, `--json`."
    for verb in verbs():
        yield f"\n### {verb.name}\n"
        yield f"```text\n{verb.usage}\n```\n"
        yield "\n\n".join(verb.text)
        if verb.epilog:
            yield f"\n```text\n{verb.epilog}\n```"
        if verb.options:
            yield ""
            yield from _table("option", "meaning", [(f"`{names}`", _marked(text)) for names, text in verb.options])


def _table(first: str, second: str, found: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| {first} | {second} |"
    yield "| --- | --- |"
    for one, other in found:
        yield f"| {one.replace('|', chr(92) + '|')} | {other.replace('|', chr(92) + '|')} |"


def _marked(text: str) -> str:
    """Options in prose as code."""
    return re.sub(r"(?<![`\w-])(--[a-z-]+)(?![`\w])", r"`\1`", text)


# --------------------------------------------------------------------------- the manual page


def manual() -> str:
    return "\n".join(_manual()) + "\n"


def _manual() -> Iterator[str]:
    yield '.\\" written by docs/taskctl_pages.py'
    yield '.TH TASKCTL 1 "" "task-daemon" "User Commands"'
    yield f".SH NAME\ntaskctl \\- {_roff('register long work with task-daemon, look at it, wait for it, cancel it')}"
    yield ".SH SYNOPSIS\n.B taskctl\n[\\fIoptions\\fR] \\fIverb\\fR [\\fIarguments\\fR]"
    yield f".SH DESCRIPTION\n{_roff(ABOUT)}"
    yield ".SH OPTIONS"
    yield from _tagged(general())
    yield ".SH VERBS\nEvery verb takes \\-\\-help and, but for completion, \\-\\-json."
    for verb in verbs():
        yield f".SS {_roff(verb.usage)}"
        yield "\n.PP\n".join(_roff(part) for part in verb.text)
        if verb.epilog:
            yield f".PP\n.nf\n{_roff(verb.epilog)}\n.fi"
        yield from _tagged(verb.options)
    yield f".SH OUTPUT\n{_roff(OUTPUT)}"
    yield ".SH EXIT STATUS"
    yield from _tagged([(str(code), text) for code, text in EXIT_CODES.items()])
    yield f".PP\n{_roff(OF_SEVERAL)}\n.PP\n{_roff(ERRORS)}"
    yield ".SH ENVIRONMENT"
    yield from _tagged([("TASK_DAEMON_SOCKET", "The daemon's socket, unless --socket names one.")])
    yield ".SH EXAMPLES"
    for what, line in EXAMPLES:
        yield f".TP\n{_roff(what)}\n.nf\n{_roff(line)}\n.fi"


def _tagged(found: list[tuple[str, str]]) -> Iterator[str]:
    for tag, text in found:
        yield f".TP\n.B {_roff(tag)}"
        yield _roff(text) or "\\&"


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def _unwrapped(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    (DOCS / "taskctl.md").write_text(markdown())
    (DOCS / "taskctl.1").write_text(manual())
