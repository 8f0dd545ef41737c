"""The registrant's side of task-daemon: register work, wait for it, start the daemon on demand.

    import task_client
    client = task_client.Client()
    task = client.register("disk-7", "backup", "vm1")
    task = client.wait(task.uid)

The names below are loaded on first use, so that `import task_client` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from task_client.aio import AsyncClient as AsyncClient
    from task_client.client import Client as Client
    from task_client.daemon import init_daemon_process as init_daemon_process
    from task_client.daemon import is_service_on as is_service_on
    from task_client.daemon import stop_daemon_process as stop_daemon_process
    from task_client.errors import AnswerUnknown as AnswerUnknown
    from task_client.errors import ClientError as ClientError
    from task_client.errors import DaemonNotStarted as DaemonNotStarted
    from task_client.errors import DaemonUnreachable as DaemonUnreachable
    from task_client.errors import RequestRefused as RequestRefused
    from task_client.errors import ServerError as ServerError
    from task_client.errors import TaskFailed as TaskFailed
    from task_client.errors import WaitTimeout as WaitTimeout
    from task_client.legacy import HttpUnixDomainSocketClient as HttpUnixDomainSocketClient
    from task_client.legacy import get_client as get_client
    from task_client.legacy import init_deamon_process as init_deamon_process
    from task_client.legacy import register_daemon_task as register_daemon_task
    from task_client.legacy import register_deamon_task as register_deamon_task
    from task_client.legacy import register_task as register_task
    from task_client.legacy import stop_deamon_process as stop_deamon_process
    from task_client.over_httplib2 import Httplib2Transport as Httplib2Transport
    from task_client.over_requests import RequestsTransport as RequestsTransport
    from task_client.over_socket import SocketTransport as SocketTransport
    from task_client.transport import Transport as Transport
    from task_client.types import Callback as Callback
    from task_client.types import Event as Event
    from task_client.types import Progress as Progress
    from task_client.types import Task as Task
    from task_client.types import TaskError as TaskError

_ROOMS = {
    "aio": ("AsyncClient",),
    "client": ("Client",),
    "daemon": ("init_daemon_process", "is_service_on", "stop_daemon_process"),
    "errors": (
        "AnswerUnknown",
        "ClientError",
        "DaemonNotStarted",
        "DaemonUnreachable",
        "RequestRefused",
        "ServerError",
        "TaskFailed",
        "WaitTimeout",
    ),
    "legacy": (
        "HttpUnixDomainSocketClient",
        "get_client",
        "init_deamon_process",
        "register_daemon_task",
        "register_deamon_task",
        "register_task",
        "stop_deamon_process",
    ),
    "over_httplib2": ("Httplib2Transport",),
    "over_requests": ("RequestsTransport",),
    "over_socket": ("SocketTransport",),
    "transport": ("Transport",),
    "types": ("Callback", "Event", "Progress", "Task", "TaskError"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
