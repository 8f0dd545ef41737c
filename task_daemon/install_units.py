"""`task-daemon install-units`: the shipped systemd units, with the path of this installation's command, put in place."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

VERB = "install-units"
SHIPPED_COMMAND = "/usr/bin/task-daemon"
PLACES = {
    "task-daemon.service": "etc/systemd/system/task-daemon.service",
    "task-daemon.socket": "etc/systemd/system/task-daemon.socket",
    "task-daemon.sysusers": "etc/sysusers.d/task-daemon.conf",
    "task-daemon.tmpfiles": "etc/tmpfiles.d/task-daemon.conf",
}
"""Shipped file → its place below the root."""
USER_PLACES = {"user/task-daemon.service": "task-daemon.service", "user/task-daemon.socket": "task-daemon.socket"}
"""Shipped file → its place below the user's unit directory."""


def main(arguments: Sequence[str]) -> int:
    """0: everything is in place; 1: something is not, and was said."""
    parser = argparse.ArgumentParser(
        prog=f"task-daemon {VERB}", description="Put the systemd units in place.", allow_abbrev=False
    )
    parser.add_argument("--user", action="store_true", help="for the calling user's own systemd instead of the machine's")
    parser.add_argument("--root", type=Path, default=Path("/"), help="directory to install below, for packages and images (/)")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there and differ")
    options = parser.parse_args(arguments)
    wanted = _wanted(options.user, options.root)
    texts = {place: _text(name) for name, place in wanted.items()}
    differing = [place for place, text in texts.items() if place.exists() and place.read_text() != text]
    if differing and not options.force:
        for place in differing:
            sys.stderr.write(f"task-daemon: cannot install {place}: a different one is there; compare them, or use --force\n")
        sys.stderr.write("task-daemon: nothing was installed\n")
        return 1
    try:
        for place, text in texts.items():
            _put(place, text)
    except OSError as error:
        sys.stderr.write(f"task-daemon: cannot install {error.filename}: {error.strerror}; run it as root, or with --user\n")
        return 1
    _say_next(options.user, options.root)
    return 0


def _wanted(user: bool, root: Path) -> dict[str, Path]:
    if not user:
        return {name: root / place for name, place in PLACES.items()}
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = (root / home.relative_to("/")) / "systemd" / "user"
    return {name: folder / place for name, place in USER_PLACES.items()}


def _text(name: str) -> str:
    checkout = Path(__file__).parent.parent / "systemd"
    shipped = checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "task-daemon" / "systemd"
    command = Path(sys.executable).with_name("task-daemon")
    return (shipped / name).read_text().replace(SHIPPED_COMMAND, str(command))


def _put(place: Path, text: str) -> None:
    if place.exists() and place.read_text() == text:
        sys.stdout.write(f"as it should be: {place}\n")
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o644)
    sys.stdout.write(f"installed {place}\n")


def _say_next(user: bool, root: Path) -> None:
    if root != Path("/"):
        return
    prefix = "systemctl --user" if user else "systemctl"
    before = "" if user else "systemd-sysusers && systemd-tmpfiles --create && "
    sys.stdout.write(f"next: {before}{prefix} daemon-reload && {prefix} enable --now task-daemon.socket\n")
