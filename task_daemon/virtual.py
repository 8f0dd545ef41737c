"""A whole daemon in this process whose time moves only when it is told to: what `task_client.testing` gives to tests.

Everything is as in the command `task-daemon`: the socket, the store on disk, the worker threads, the callbacks. Only the clock
is moved by hand, and the zones have the simulated backend.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from task_daemon import config
from task_daemon.backends.registry import find_family
from task_daemon.backends.simulated import Job, SimulatedBackend
from task_daemon.clock import FakeClock
from task_daemon.daemon import Daemon

WITHIN = 60.0  # real seconds for one request to the loop; nothing here waits for time to pass
SMALLEST_STEP = 0.001  # seconds

T = TypeVar("T")


class VirtualDaemon:
    """Serves from the moment it is made until `stop`. `home` must have a short path: the socket lies in it.

    `zones`: their names; all have the simulated backend. `more`: TOML for other tables of the configuration.
    """

    def __init__(self, home: Path, zones: Iterable[str], poll_interval: float = 10.0, more: str = "") -> None:
        self.clock = FakeClock()
        self.socket = str(home / "task-daemon.sock")
        self._zones = list(zones)
        file = home / "task-daemon.toml"
        tables = "[zones.local]\nenabled = false\n" if "local" not in self._zones else ""
        tables += "".join(f'[zones.{zone}]\nbackend = "simulated"\npoll_interval = {poll_interval}\n' for zone in self._zones)
        file.write_text(f"{tables}{more}\n")
        flags = {"workspace": str(home / "workspace"), "unix_socket": self.socket}
        (home / "workspace").mkdir(mode=0o700)
        self._daemon = Daemon(config.load(str(file), flags, find_family), self.clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="task-daemon", daemon=True)
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self._end_loop()
            raise

    def script(self, **members: Any) -> None:
        """How jobs go from now on: the members of a `[[job]]` of a scenario. Raises ValueError naming a wrong one."""
        try:
            job = msgspec.convert(members, Job, strict=True)
        except msgspec.ValidationError as error:
            accepted = ", ".join(Job.__struct_fields__)
            raise ValueError(f"cannot follow the scenario {members}: {error}; its members are {accepted}") from None
        for zone in self._zones:
            backend = self._daemon.backend(zone)
            assert isinstance(backend, SimulatedBackend)
            backend.script(job)

    def advance(self, seconds: float) -> None:
        """Let so much time pass: polls, deadlines, retries happen in their order, each at its moment. At the end every zone is
        looked at once more, so that what has happened by then is known; returns when all that is done."""
        self._run(self._advance(seconds))

    def stop(self) -> None:
        self._run(self._daemon.stop())
        self._end_loop()

    async def _start(self) -> None:
        await self._daemon.start(asyncio.Event())
        await self._daemon.idle()

    async def _advance(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        await self._daemon.idle()
        while (left := end - self.clock.monotonic()) > 0:
            due = self._daemon.next_due()
            wanted = left if due is None else due - self.clock.monotonic()
            self.clock.advance(min(left, max(wanted, SMALLEST_STEP)))
            await self._daemon.idle()
            if self._daemon.failed:
                raise RuntimeError("the daemon under test cannot go on; its log says why")
        self._daemon.look_now()
        await self._daemon.idle()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        waiting: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return waiting.result(WITHIN)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN)
        self._loop.close()
