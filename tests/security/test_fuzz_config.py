"""Hostile configuration files: whatever they hold, the answer is a Config or a ConfigError, never anything else."""

import os
import random
from pathlib import Path

import pytest

from task_daemon import config
from task_daemon.backends.registry import find_family
from task_daemon.core.errors import ConfigError

FILES = 2000
SEED = int(os.environ.get("TASK_DAEMON_SEED", "20261121"))
ORIGINAL = (Path(__file__).parents[2] / "etc" / "task-daemon.toml").read_text()

NAMES = (
    *("daemon", "zones", "callbacks", "region", "access", "limits", "workspace", "unix_socket", "socket_mode", "socket_group"),
    *("workers", "timeout", "poll_interval", "backend", "allow", "schedule", "keys", "admins", "operators", "readers", "routes"),
    *("words", "admin_password", "auth_uri", "service_url", "token_file", "enable_mebs", "port", "live_tasks", "connections"),
    *("qmp", "roots", "labels", "scenario", "run", "enabled", "vm1", "local", "x", "", "ü", "a b", "\U0001f4a5"),
)
TEXTS = (
    *("", "a", "/", "/x", "/a\\u0000b", "@", "@²", "²", "@root", "root", "nobody?", "0660", "99999", "storage", "process"),
    *("simulated", "127.0.0.0/8", "::1", "*", "%", "http://x", "\\u0000", "\\uFFFF", "../..", "a" * 5000, "\U0001f4a5"),
)
NUMBERS = (
    *("0", "-1", "1", "4", "9223372036854775808", "1" * 400, "1" * 5000, "1e400", "-0.0", "nan", "inf", "-inf", "1.5"),
    *("0x" + "f" * 40, "1979-05-27T07:32:00Z", "1979-05-27", "07:32:00", "true", "false"),
)


def value(rnd: random.Random, depth: int = 0) -> str:
    kind = rnd.randrange(8 if depth < 4 else 6)
    if kind < 3:
        return f'"{rnd.choice(TEXTS)}"'
    if kind < 6:
        return rnd.choice(NUMBERS)
    inner = [value(rnd, depth + 1) for _ in range(rnd.randrange(4))]
    if kind == 6:
        return f"[{', '.join(inner)}]"
    return "{" + ", ".join(f'"{rnd.choice(NAMES)}{n}" = {each}' for n, each in enumerate(inner)) + "}"


def made_up(rnd: random.Random) -> str:
    lines = []
    for _ in range(rnd.randrange(12)):
        if rnd.random() < 0.3:
            path = ".".join(f'"{rnd.choice(NAMES)}"' for _ in range(rnd.randint(1, 3)))
            lines.append(f"[[{path}]]" if rnd.random() < 0.2 else f"[{path}]")
        lines.append(f'"{rnd.choice(NAMES)}" = {value(rnd)}')
    return "\n".join(lines)


def mutated(rnd: random.Random) -> str:
    lines = [line.removeprefix("# ") if rnd.random() < 0.2 else line for line in ORIGINAL.splitlines()]
    for _ in range(rnd.randint(1, 6)):
        at = rnd.randrange(len(lines))
        name, equals, _ = lines[at].partition("=")
        lines[at] = f"{name}= {value(rnd)}" if equals else rnd.choice((lines[at] * 2, made_up(rnd), ""))
    return "\n".join(lines)


def broken(rnd: random.Random) -> bytes:
    raw = bytearray(mutated(rnd).encode())
    for _ in range(rnd.randint(1, 20)):
        raw[rnd.randrange(len(raw))] = rnd.randrange(256)
    return bytes(raw[: rnd.randrange(len(raw))])


def deep(rnd: random.Random) -> bytes:
    depth = rnd.choice((10, 500, 20_000))
    return rnd.choice(
        (b"a = " + b"[" * depth, b"a" + b".a" * depth + b" = 1", b"a = " + b"{a=" * depth, b"[" + b"a." * depth + b"a]")
    )


def hostile(rnd: random.Random) -> bytes:
    kind = rnd.random()
    if kind < 0.45:
        return mutated(rnd).encode(errors="replace")
    if kind < 0.85:
        return made_up(rnd).encode(errors="replace")
    return broken(rnd) if kind < 0.99 else deep(rnd)


def test_hostile_files_give_a_configuration_or_its_mistakes_and_nothing_else(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rnd = random.Random(SEED)
    file = tmp_path / "hostile.toml"
    good = 0
    for number in range(FILES):
        file.write_bytes(raw := hostile(rnd))
        try:
            found = config.load(str(file), {}, find_family)
            config.shown(found)
            good += 1
        except ConfigError:
            continue
        except Exception as error:
            error.add_note(f"file {number} of seed {SEED}: {raw[:3000]!r}")
            raise
    assert 0 < good < FILES / 2


@pytest.mark.parametrize(
    "text",
    [
        "[daemon]\npoll_interval = nan",
        "[daemon]\ntimeout = nan",
        "[callbacks]\nschedule = [nan]",
        "[callbacks]\ntimeout = nan",
        "[zones.a]\nbackend = 'simulated'\nstall_after = inf",
        "[access]\nadmins = ['²']",
        "[access]\nadmins = ['@²']",
        "[access]\nadmins = [true]",
        "[access]\nadmins = [-1]",
        '[access]\nadmins = ["a\\u0000b"]',
        '[daemon]\nsocket_group = "a\\u0000b"',
        '[daemon]\nworkspace = "/a\\u0000b"',
        '[daemon]\nunix_socket = "/a\\u0000b"',
        "x = " + "1" * 5000,
    ],
)
def test_what_only_looks_right_is_a_mistake(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError):
        config.load(str(tmp_path / "c.toml"), {}, find_family)


@pytest.mark.parametrize(
    "text",
    [
        "region = 'S3CRET'",
        "[[region]]\nadmin_password = 'S3CRET'",
        "[region]\nadmin_password = ['S3CRET']",
        "admin_password = 5\nregion = ['S3CRET']",
        "[region]\nauth_uri = 'mysql://root:S3CRET@h'",
        "[region]\nservice_url = 'ftp://root:S3CRET@h'",
        "[region.mebs_sql_connection]\nurl = 'mysql://u:S3CRET@h'",
        "[region]\nauth_uri = ['http://u:S3CRET@h']",
        "[callbacks.keys]\ndefault = ['whsec_S3CRET']",
        "[callbacks]\nkeys = 'whsec_S3CRET'",
        "[region]\nadmin_password = 'S3CRET",
        "[callbacks.keys]\n'whsec_S3CRET' = 1",
    ],
)
def test_a_mistake_does_not_repeat_a_secret(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(str(tmp_path / "c.toml"), {}, find_family)
    assert "S3CRET" not in str(caught.value)
