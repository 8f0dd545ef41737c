"""Whether the store that is in use is sound: a look through all of it, beside the work."""

import asyncio
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from task_daemon.core.ports import Check
from task_daemon.engine.local.workers import Aside

LOOKED_FOR = 20.0  # seconds; a client waits 30 for an answer
FINDINGS = 100
STEPS = 10_000  # of SQLite's machine, between two looks whether to stop


class Look:
    """One check under way, on a connection of its own: read-only and without checkpoints, which only the writer may make."""

    def __init__(self, path: Path) -> None:
        source = f"{path.absolute().as_uri()}?mode=ro"
        self.connection = sqlite3.connect(source, uri=True, isolation_level=None, check_same_thread=False)
        self._over = False
        self.connection.set_progress_handler(lambda: self._over, STEPS)

    def stop(self) -> None:
        """Any thread. An interrupt alone is not felt by a statement that begins a moment later."""
        self._over = True
        self.connection.interrupt()


class Checker:
    """Each check has a thread of its own, so that no reader of the API waits behind it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: set[Look] = set()

    async def check(self) -> Check:
        """Event loop. What could not be looked at within `LOOKED_FOR` or before `stop` is left out: not complete."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Check] = loop.create_future()
        look = Look(self._path)
        self._running.add(look)

        def work() -> None:
            found = _quick_check(look.connection)
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._done, look, answer, found)

        aside = Aside("store-check")
        aside.submit(work)
        aside.close(timeout=0)
        limit = loop.call_later(LOOKED_FOR, look.stop)
        try:
            return await answer
        finally:
            limit.cancel()
            if look in self._running:  # whoever asked has gone
                look.stop()

    def stop(self) -> None:
        """End what runs: its read transaction would keep the WAL from being taken into the store."""
        for look in self._running:
            look.stop()

    def _done(self, look: Look, answer: "asyncio.Future[Check]", found: Check) -> None:
        self._running.discard(look)
        look.connection.close()
        if not answer.done():
            answer.set_result(found)


def _quick_check(connection: sqlite3.Connection) -> Check:
    findings: list[str] = []
    try:
        with closing(connection.execute(f"PRAGMA quick_check({FINDINGS})")) as rows:
            findings += [text for (text,) in rows if text != "ok"]
    except (sqlite3.Error, UnicodeDecodeError) as error:  # what was found may be a name that is no text any more
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return Check(findings, complete=False)
        findings.append(f"it cannot be read to its end: {error}")
    return Check(findings)
