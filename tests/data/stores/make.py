"""Makes the store of this version, to be opened by every later one: `python -m tests.data.stores.make`, before a release
whose migrations have changed. A store that was released is never made again."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

from task_daemon.engine.local.migrate import migrations
from tests.daemons import Daemon
from tests.waiting import eventually

CONFIG = """
[daemon]
poll_interval = 0.1
[zones.sim]
backend = "simulated"
scenario = [
    { id = "done", finish_after = 0.2, size = 7340032 },
    { id = "failed", finish_after = 0.2, fail_at = 50, message = "No space left on device" },
    { id = "gone", finish_after = 0.2, vanish_at = 50 },
    { id = "*", finish_after = 3e9 },
]
"""
UNREACHABLE = "http://127.0.0.1:9/hook"
ENDED = {"done": "succeeded", "failed": "failed", "gone": "lost"}


def fill(daemon: Daemon) -> None:
    """Tasks in several states, with labels, a key, members of their own, and callbacks that nobody takes."""
    with daemon.client() as client:
        for name in ENDED:
            client.register(name, "backup", "sim", callback={"url": UNREACHABLE, "events": ["size", "finished"]})
        client.register("tracked", "clone", "sim", labels={"team": "a"}, region_task_id="rt-1", timeout=3e7)
        client.register("run", "simulated", "sim", params={}, idempotency_key="a-key", timeout=3e7)
        eventually("three have ended", lambda: {t.id: t.state for t in client.list(done=True)} == ENDED)
        eventually("one is running", lambda: {t.id for t in client.list(state="running")} >= {"run"})


def main() -> None:
    target = Path(__file__).parent / f"{len(migrations())}.db"
    if target.exists():
        raise SystemExit(f"cannot make {target}: it exists, and a store that was released is never made again")
    home = Path(tempfile.mkdtemp(prefix="td-make-"))
    with Daemon(home, CONFIG) as daemon:
        fill(daemon)
        daemon.stop()
    with sqlite3.connect(home / "w" / "store.db") as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.close()
    shutil.copy(home / "w" / "store.db", target)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
