"""The names of the service this one replaces, thin. Callers switch by changing an import; misspelt names stay as aliases.

Importing this module registers the scheme `http+unix` with httplib2, as the old one did.
"""

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from task_client.client import Client
from task_client.daemon import init_daemon_process, is_service_on, stop_daemon_process
from task_client.errors import ClientError, RequestRefused, ServerError
from task_client.over_httplib2 import HttpUnixConnection
from task_client.over_socket import SocketTransport
from task_client.paths import default_socket
from task_client.transport import Transport
from task_client.types import Task

__all__ = [
    "HttpUnixConnection",
    "HttpUnixDomainSocketClient",
    "get_client",
    "init_daemon_process",
    "init_deamon_process",
    "is_service_on",
    "register_daemon_task",
    "register_deamon_task",
    "register_task",
    "stop_daemon_process",
    "stop_deamon_process",
]

log = logging.getLogger("task_client.legacy")

server_error: type[Exception] = ServerError
"""What `register_task` raises; a caller may put its own class here. It is called with one text."""


class HttpUnixDomainSocketClient:
    """JSON in, JSON out, to any Unix socket. Connections are kept, one set for each socket."""

    def __init__(self, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._lock = threading.Lock()
        self._transports: dict[str, Transport] = {}
        self._clients: dict[str, Client] = {}

    def sync_request(
        self, socket_path: str, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send one request to `http+unix://<quoted socket_path><url>`; a missing / at the start of `url` is added.

        `body` is anything JSON can hold, or JSON text already. An answer that is not JSON comes back as text.
        Raises RequestRefused for an error status, DaemonUnreachable, AnswerUnknown.
        """
        target = url if url.startswith("/") else f"/{url}"
        data = body.encode() if isinstance(body, str) else body if body is None or isinstance(body, bytes) else _dump(body)
        sent = {
            "Accept": "application/json",
            **({"Content-Type": "application/json"} if data is not None else {}),
            **(headers or {}),
        }
        answer = self.transport(socket_path).request(method.upper(), target, sent, data, self.timeout)
        decoded = _load(answer.body)
        if answer.status >= 400:
            raise RequestRefused(answer.status, decoded if isinstance(decoded, dict) else {})
        return decoded

    def transport(self, socket_path: str) -> Transport:
        found = self._transports.get(socket_path)
        if found is None:
            with self._lock:
                found = self._transports.setdefault(socket_path, SocketTransport(socket_path))
        return found

    def client(self, socket_path: str) -> Client:
        """What `register_task` asks, over the same connections."""
        found = self._clients.get(socket_path)
        if found is None:
            found = self._clients[socket_path] = Client(transport=self.transport(socket_path))
        return found


_default: HttpUnixDomainSocketClient | None = None
_default_lock = threading.Lock()


def get_client() -> HttpUnixDomainSocketClient:
    """The one default client of this process, made on first use."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = HttpUnixDomainSocketClient()
    return _default


def register_task(
    id: str,  # noqa: A002 - the old name
    action: str,
    zone: str,
    region_task_id: str | int | None = None,
    *,
    unix_socket: str | None = None,
    **extras: Any,
) -> Task | str:
    """Have a running operation watched; the region is called back at its end.

    With these arguments alone, `POST /` with exactly `{id, action, zone}`, and `region_task_id` when given; answers what
    the old service did, "". With any keyword of `Client.register` (params, callback, job, timeout, labels, ...), the new
    surface is used and the Task is answered. Errors are logged and raised again as `server_error`.
    """
    client = get_client().client(unix_socket or default_socket())
    try:
        if extras:
            return client.register(id, action, zone, region_task_id=region_task_id, **extras)
        body = {"id": id, "action": action, "zone": zone}
        answer = client.post_legacy(body if region_task_id is None else {**body, "region_task_id": region_task_id})
    except ClientError as error:
        log.error("cannot register %s of %s in zone %s: %s", action, id, zone, error)
        raise server_error(f"cannot register {action} of {id} in zone {zone}: {error}") from error
    return answer if isinstance(answer, str) else ""


register_daemon_task = register_task
register_deamon_task = register_task
init_deamon_process = init_daemon_process
stop_deamon_process = stop_daemon_process


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode()


def _load(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")
