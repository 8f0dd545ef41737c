"""The route table: path, access level of each method, handler."""

from tornado.web import Application

from task_daemon.api import callbacks, events, hot, legacy, support, system, tasks, zones
from task_daemon.api.access import Access, Level
from task_daemon.api.access_log import log_request
from task_daemon.api.base import Unknown
from task_daemon.api.context import Api, Daemon
from task_daemon.api.stream import Streams
from task_daemon.tracking.manager import TaskManager

OPEN, READ, WRITE, ADMIN = Level.OPEN, Level.READ, Level.WRITE, Level.ADMIN

# fmt: off
ROUTES = (
    # The old surface, for ever.
    ("/",                               {"POST": WRITE},                legacy.Register),
    ("/ping",                           {"GET": OPEN},                  legacy.Ping),
    # Tasks.
    ("/v1/tasks",                       {"GET": READ, "POST": WRITE},   tasks.Tasks),
    ("/v1/tasks:batch",                 {"POST": WRITE},                tasks.Batch),
    ("/v1/tasks/([^/]+)",               {"GET": READ, "DELETE": WRITE}, tasks.One),
    ("/v1/tasks/([^/]+)/cancel",        {"POST": WRITE},                tasks.Cancel),
    ("/v1/tasks/([^/]+)/poll",          {"POST": WRITE},                tasks.Poll),
    ("/v1/tasks/([^/]+)/resolve",       {"POST": WRITE},                tasks.Resolve),
    ("/v1/tasks/([^/]+)/explain",       {"GET": READ},                  tasks.Explain),
    ("/v1/tasks/([^/]+)/events",        {"GET": READ},                  events.OfTask),
    ("/v1/tasks/([^/]+)/callbacks",     {"GET": READ},                  callbacks.OfTask),
    # History and mailbox.
    ("/v1/events",                      {"GET": READ},                  events.Feed),
    ("/v1/callbacks",                   {"GET": READ},                  callbacks.Callbacks),
    ("/v1/callbacks/([^/]+)",           {"GET": READ},                  callbacks.One),
    ("/v1/callbacks/([^/]+)/replay",    {"POST": WRITE},                callbacks.Replay),
    ("/v1/callbacks/([^/]+)/ack",       {"POST": WRITE},                callbacks.Acknowledge),
    # Zones, actions, the daemon.
    ("/v1/zones",                       {"GET": READ},                  zones.Zones),
    ("/v1/zones/([^/]+)/pause",         {"POST": ADMIN},                zones.Pause),
    ("/v1/zones/([^/]+)/resume",        {"POST": ADMIN},                zones.Resume),
    ("/v1/actions",                     {"GET": READ},                  zones.Actions),
    ("/v1/info",                        {"GET": READ},                  system.Info),
    ("/v1/openapi.json",                {"GET": READ},                  system.OpenApi),
    ("/healthz",                        {"GET": OPEN},                  system.Health),
    ("/readyz",                         {"GET": OPEN},                  system.Ready),
    ("/metrics",                        {"GET": OPEN},                  system.Metrics),
    # For whoever helps.
    ("/v1/config",                      {"GET": ADMIN},                 support.Configuration),
    ("/v1/log",                         {"GET": ADMIN},                 support.Log),
    ("/v1/check",                       {"GET": ADMIN},                 support.Check),
)

# Those of them that are answered without a request handler when there is nothing special about the request (hot.py).
HOT = {
    "POST /":               (WRITE, hot.register_old),
    "POST /v1/tasks":       (WRITE, hot.register),
    "POST /v1/tasks:batch": (WRITE, hot.register_batch),
    "GET /ping":            (OPEN,  hot.ping),
}
# fmt: on


def make_app(manager: TaskManager, daemon: Daemon, access: Access, streams: Streams | None = None) -> Application:
    """To be served by `ApiServer`, or in tests by any HTTPServer on a Unix socket."""
    api = Api(manager, daemon, access, streams)
    return Application(
        [(path, handler, {"levels": levels}) for path, levels, handler in ROUTES],
        default_handler_class=Unknown,
        default_handler_args={"levels": {}},
        log_function=log_request,
        api=api,
        routes=ROUTES,
        hot=hot.Hot(api, HOT),
    )
