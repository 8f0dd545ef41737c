"""The seam between the client and the libraries that speak HTTP for it."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from task_client.errors import ClientError
from task_client.types import Task

_UID = re.compile(rb'\{"uid":"([0-9A-Za-z-]+)",').match


class Answer(NamedTuple):
    """A complete answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body decoded; None when it is empty. Raises ClientError when it is not JSON."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"cannot read the daemon's answer (HTTP status {self.status}): it is not JSON: {error}") from error

    def object(self) -> dict[str, Any]:
        """The body decoded. Raises ClientError when it is not a JSON object."""
        found = self.json()
        if not isinstance(found, dict):
            raise ClientError(f"cannot read the daemon's answer (HTTP status {self.status}): it is not a JSON object")
        return found

    def task(self) -> Task:
        """The task in the body. As the daemon writes it, with the uid first, the rest is decoded when somebody looks at it.

        Raises ClientError when the body is not a JSON object; looking at the task does if only its ends are those of one.
        """
        plain = _UID(self.body)
        if plain is None or self.body[-1:] != b"}":
            return Task.read(self.object())
        return Task.told_by(self.object, plain[1].decode())


class Transport(Protocol):
    """One Unix socket, spoken to over kept connections. Safe to use from several threads, and after a fork."""

    unix_socket: str

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 30.0
    ) -> Answer:
        """Send one request, once, and answer whatever status came back; redirects are not followed.

        `target` is path and query, encoded. `timeout` bounds each wait for the other side, in seconds.
        Raises DaemonUnreachable when nothing was sent (safe to repeat), AnswerUnknown when it was sent but no complete
        answer came. Never sends a request a second time by itself.
        """
        ...

    def close(self) -> None:
        """Close the idle connections; the next request opens a new one."""
        ...
