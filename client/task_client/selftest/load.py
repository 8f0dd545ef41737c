"""The load: threads that register tasks while the daemon comes and goes."""

import threading
import time

from task_client.client import Client
from task_client.errors import ClientError

GIVE_UP_AFTER = 180.0  # seconds one registration is tried
AGAIN_AFTER = 0.005
TIMEOUT = 5.0  # seconds of one request


class Load:
    """Registers what was `allow`ed. Every third task is only tracked, the others are run; every tenth fails."""

    def __init__(self, socket: str, hook: str, threads: int = 4) -> None:
        self.acknowledged: dict[str, str] = {}
        """By id: the uid that the daemon answered."""
        self.problems: list[str] = []
        self._socket = socket
        self._hook = hook
        self._names = 0
        self._allowed = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True, name="load") for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def allow(self, count: int) -> None:
        """So many more tasks."""
        with self._changed:
            self._allowed += count
            self._changed.notify_all()

    def finish(self) -> None:
        """Register the rest of what was allowed; bounded by `GIVE_UP_AFTER`. Repeatable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(GIVE_UP_AFTER + TIMEOUT)

    def abandon(self) -> None:
        """Register nothing more."""
        with self._changed:
            self._allowed = 0
        self.finish()

    @property
    def allowed(self) -> int:
        return self._allowed

    @property
    def names(self) -> list[str]:
        """Ids of all tasks that were registered or tried."""
        with self._changed:
            return [_name(number) for number in range(self._names)]

    def _work(self) -> None:
        with Client(self._socket, timeout=TIMEOUT) as client:
            while (number := self._next()) is not None:
                self._register(client, number)

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._names < self._allowed or self._closed)
            if self._names >= self._allowed:
                return None
            self._names += 1
            return self._names - 1

    def _register(self, client: Client, number: int) -> None:
        """Until it is acknowledged; always with the same key, so that an answer that got lost makes no second task."""
        name = _name(number)
        params: dict[str, object] | None = None if number % 3 == 0 else {}
        end = time.monotonic() + GIVE_UP_AFTER
        while not self._over(end):
            try:
                task = client.register(name, "backup", "sim", params=params, callback=self._hook, idempotency_key=name)
            except ClientError as error:
                last: ClientError = error
                time.sleep(AGAIN_AFTER)
                continue
            with self._changed:
                before = self.acknowledged.setdefault(name, task.uid)
                if before != task.uid:
                    self.problems.append(f"{name} was acknowledged as {before} and as {task.uid}")
            return
        with self._changed:
            self.problems.append(f"{name} was never acknowledged: {last}")

    def _over(self, end: float) -> bool:
        return time.monotonic() > end or (self._closed and self._allowed == 0)


def _name(number: int) -> str:
    return f"{'bad' if number % 10 == 0 else 'good'}-{number}"
