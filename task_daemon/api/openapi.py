"""`GET /v1/openapi.json`: the contract, made of the route table, the handlers' parameters, the structs that check the bodies and
those that describe the answers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from task_daemon.api import answers, bodies
from task_daemon.api.access import Level
from task_daemon.api.base import LONGEST_WAIT, Handler
from task_daemon.api.problems import STATUS
from task_daemon.core.model import DeliveryState, Draft, State

REF = "#/components/schemas/{name}"
JSON, PROBLEM = "application/json", "application/problem+json"
HTTP = {200: "Done", 202: "Accepted: on disk, and going on", 204: "Done", 304: "Unchanged since If-None-Match"}
PLACES = {"tasks": "uid", "callbacks": "id", "zones": "zone"}
ALWAYS = ("invalid-body", "internal", "starting")
WRITING = ("too-large", "draining", "degraded", "outcome-unknown", "store-full")
REGISTERING = ("unknown-action", "unknown-zone", "conflict", "quota-exceeded", "queue-full", "idempotency-key-reused")
FLAG = {"type": "string", "enum": ["true", "false"]}
NATURAL = {"type": "integer", "minimum": 0}

PARAMETERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "validate_only": (FLAG, "Make every check and store nothing."),
    "done": (FLAG, "Whether the task has ended."),
    "zone": ({"type": "string", "minLength": 1}, "Tasks of this zone."),
    "action": ({"type": "string", "minLength": 1}, "Tasks of this action."),
    "id": ({"type": "string", "minLength": 1}, "Tasks that work on this object."),
    "region_task_id": ({"type": "string", "minLength": 1}, "Tasks that belong to this task of the region."),
    "label": ({"type": "array", "items": {"type": "string", "pattern": "^[^:]+:"}}, "`name:value`; may be repeated."),
    "owner": (NATURAL | {"maximum": 2**32 - 1}, "Tasks registered by this user id."),
    "created_after": ({"type": "string", "format": "date-time"}, "Tasks registered later than this."),
    "page_size": ({"type": "integer", "minimum": 1, "maximum": 500}, "Entries of one page."),
    "page_token": ({"type": "string", "minLength": 1}, "`next_page_token` of the page before, with the same filters."),
    "after": (
        {"type": "string", "pattern": "^([0-9]{1,18}|latest)$"},
        "Events above this sequence; `latest`: only those to come.",
    ),
    "wait": ({"type": "number", "minimum": 0, "maximum": LONGEST_WAIT}, "Seconds to wait for it. Not with streams."),
    "until": ({"type": "string", "enum": ["change", "done"]}, "What is waited for."),
    "progress": (FLAG, "How far live tasks are, too. Streams only."),
}
STATES = {
    "/v1/tasks": {"type": "array", "items": {"type": "string", "enum": [state.value for state in State]}},
    "/v1/callbacks": {"type": "string", "enum": [state.value for state in DeliveryState]},
}
HEADERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "Idempotency-Key": ({"type": "string", "pattern": "^[!-~]{1,128}$"}, "Makes repeating safe: the same key, the same task."),
    "Prefer": ({"type": "string", "examples": ["wait=30"]}, "`wait=N`: hold the answer until the end, at most N seconds."),
    "If-None-Match": ({"type": "string", "examples": ['"7"']}, "The revision that you have, as in ETag."),
    "Last-Event-ID": ({"type": "string", "examples": ["17"]}, "Streams only: the `id` where to go on; beats `after`."),
}
ANSWERED: Mapping[str, tuple[dict[str, Any], str]] = {
    "Location": ({"type": "string"}, "The task."),
    "Retry-After": ({"type": "integer"}, "Seconds until asking again is worth it."),
    "ETag": ({"type": "string"}, "The revision, quoted."),
    "Idempotency-Replayed": ({"type": "string", "enum": ["true"]}, "It was there already."),
}
COMMON: Mapping[str, tuple[dict[str, Any], str]] = {
    "Task-Daemon-Version": ({"type": "string"}, "Version of the daemon."),
    "X-Request-Id": ({"type": "string"}, "Name of this request in the daemon's log."),
}


OldRegistration = msgspec.defstruct(
    "OldRegistration",
    [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(Draft)
        if field.name in bodies.OLD_MEMBERS
    ],
)


class Operation(Struct, frozen=True):
    """What the route table does not say about one method of one path. `body`: whether it may be left out follows from its
    members."""

    name: str
    summary: str
    answers: Mapping[int, Any]
    body: type[Struct] | None = None
    takes: tuple[str, ...] = ()  # headers
    gives: tuple[str, ...] = ()  # headers of success
    codes: tuple[str, ...] = ()  # problems besides those that follow from the path and the access level


# fmt: off
OPERATIONS = {
    "POST /": Operation("registerOld", "Register as with the old service", {200: str}, OldRegistration,
                        gives=("Location",), codes=REGISTERING),
    "GET /ping": Operation("ping", "Whether somebody listens", {200: str}),
    "POST /v1/tasks": Operation("register", "Register a task", {200: answers.Task, 202: answers.Task}, Draft,
                                takes=("Idempotency-Key", "Prefer"),
                                gives=("Location", "Retry-After", "Idempotency-Replayed"), codes=REGISTERING),
    "POST /v1/tasks:batch": Operation("registerMany", "Register up to 1000 tasks, all or none", {202: answers.Tasks},
                                      bodies.Batch, takes=("Idempotency-Key",), gives=("Retry-After", "Idempotency-Replayed"),
                                      codes=REGISTERING),
    "GET /v1/tasks": Operation("listTasks", "List tasks, newest first", {200: answers.TaskPage}),
    "GET /v1/tasks/{uid}": Operation("getTask", "Show a task, or wait for its end", {200: answers.Task, 304: None},
                                     takes=("If-None-Match",), gives=("ETag", "Retry-After")),
    "DELETE /v1/tasks/{uid}": Operation("deleteTask", "Forget a task that has ended", {204: None}, codes=("not-done",)),
    "POST /v1/tasks/{uid}/cancel": Operation("cancelTask", "Ask for the end of the work",
                                             {200: answers.Task, 202: answers.Task}, bodies.Cancel,
                                             gives=("Location", "Retry-After"), codes=("already-finished", "not-cancellable")),
    "POST /v1/tasks/{uid}/poll": Operation("pollTask", "Have the backend looked at now", {202: answers.Task}, bodies.Nothing,
                                           gives=("Retry-After",), codes=("already-finished",)),
    "POST /v1/tasks/{uid}/resolve": Operation("resolveTask", "Decide how a lost task ended", {200: answers.Task},
                                              bodies.Resolve, codes=("not-lost",)),
    "GET /v1/tasks/{uid}/explain": Operation("explainTask", "Why it is where it is", {200: answers.Explanation}),
    "GET /v1/tasks/{uid}/events": Operation("listEventsOfTask", "The history of a task, as a page or a stream",
                                            {200: answers.Events}, takes=("Last-Event-ID",),
                                            codes=("quota-exceeded", "queue-full")),
    "GET /v1/tasks/{uid}/callbacks": Operation("listCallbacksOfTask", "The callbacks of a task", {200: answers.Deliveries}),
    "GET /v1/events": Operation("listEvents", "All events, as a page or a stream", {200: answers.Events},
                                takes=("Last-Event-ID",), codes=("cursor-expired", "quota-exceeded", "queue-full")),
    "GET /v1/callbacks": Operation("listCallbacks", "All callbacks, newest first", {200: answers.DeliveryPage}),
    "GET /v1/callbacks/{id}": Operation("getCallback", "Show a callback", {200: answers.Delivery}),
    "POST /v1/callbacks/{id}/replay": Operation("replayCallback", "Make a callback again", {202: answers.Delivery},
                                                bodies.Nothing),
    "POST /v1/callbacks/{id}/ack": Operation("acknowledgeCallback", "Take a callback as read", {200: answers.Delivery},
                                             bodies.Nothing),
    "GET /v1/zones": Operation("listZones", "How each zone is doing", {200: answers.Zones}),
    "POST /v1/zones/{zone}/pause": Operation("pauseZone", "Stop polling a zone", {200: answers.Zone}, bodies.Nothing),
    "POST /v1/zones/{zone}/resume": Operation("resumeZone", "Poll a zone again", {200: answers.Zone}, bodies.Nothing),
    "GET /v1/actions": Operation("listActions", "What can be done where", {200: answers.Actions}),
    "GET /v1/info": Operation("getInfo", "The daemon itself", {200: answers.Info}),
    "GET /healthz": Operation("getHealth", "Whether the event loop turns", {200: answers.Status}),
    "GET /readyz": Operation("getReadiness", "Whether work can be taken", {200: answers.Status},
                             codes=("starting", "draining", "degraded")),
    "GET /metrics": Operation("getMetrics", "Numbers for Prometheus", {200: None}),
    "GET /v1/openapi.json": Operation("getOpenApi", "This document", {200: dict[str, Any]}),
    "GET /v1/config": Operation("getConfiguration", "The configuration in force", {200: answers.Configuration}),
    "GET /v1/log": Operation("getLog", "The latest lines of the log", {200: answers.Lines}),
    "GET /v1/check": Operation("checkStore", "Whether the store is sound", {200: answers.StoreCheck}),
}
# fmt: on

Route = tuple[str, Mapping[str, Level], type[Handler]]


def document(routes: tuple[Route, ...], version: str) -> dict[str, Any]:
    """OpenAPI 3.1. Raises KeyError for a route that OPERATIONS does not describe."""
    operations = list(_operations(routes))
    kinds = [kind for _, _, _, _, o in operations for kind in (*o.answers.values(), o.body) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, answers.Problem], ref_template=REF)
    found = dict(zip(map(id, kinds), schemas, strict=False))
    components["Draft"]["patternProperties"] = {"^x_": {}}
    paths: dict[str, dict[str, Any]] = {}
    for method, path, level, handler, operation in operations:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, level, handler, operation, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "task-daemon",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "HTTP/1.1 over a Unix socket; the host part of URLs is not looked at. docs/rest-api.md explains it.",
        },
        "servers": [{"url": "http://localhost", "description": "the daemon's Unix socket"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operations(routes: Iterable[Route]) -> Iterable[tuple[str, str, Level, type[Handler], Operation]]:
    for pattern, levels, handler in routes:
        path = path_of(pattern)
        for method, level in levels.items():
            yield method, path, level, handler, OPERATIONS[f"{method} {path}"]


def path_of(pattern: str) -> str:
    """`/v1/tasks/{uid}` of the route table's pattern."""
    return re.sub(r"/(\w+)/\(\[\^/\]\+\)", lambda found: f"/{found[1]}/{{{PLACES[found[1]]}}}", pattern)


def _operation(
    method: str, path: str, level: Level, handler: type[Handler], operation: Operation, schemas: Mapping[int, Any]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs: {level.value}.",
        "tags": [path.split("/")[2].partition(":")[0] if path.startswith("/v1/") else "daemon"],
        "x-needs": level.value,
        "parameters": _parameters(method, path, handler, operation),
        "responses": _responses(method, path, level, handler, operation, schemas),
    }
    if operation.body is not None:
        required = any(field.required for field in msgspec.structs.fields(operation.body))
        made["requestBody"] = {"required": required, "content": {JSON: {"schema": schemas[id(operation.body)]}}}
    return made


def _parameters(method: str, path: str, handler: type[Handler], operation: Operation) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    for name in handler.get_parameters if method == "GET" else handler.post_parameters:
        schema, text = (STATES[path], "In one of these states.") if name == "state" else PARAMETERS[name]
        found.append({"name": name, "in": "query", "schema": schema, "description": text})
    for name in operation.takes:
        schema, text = HEADERS[name]
        found.append({"name": name, "in": "header", "schema": schema, "description": text})
    return found


def _responses(
    method: str, path: str, level: Level, handler: type[Handler], operation: Operation, schemas: Mapping[int, Any]
) -> dict[str, Any]:
    common = {name: {"schema": schema, "description": text} for name, (schema, text) in COMMON.items()}
    given = {name: {"schema": ANSWERED[name][0], "description": ANSWERED[name][1]} for name in operation.gives}
    made: dict[str, Any] = {}
    for status, kind in operation.answers.items():
        made[str(status)] = {"description": HTTP[status], "headers": common | given}
        content = {} if kind is None else {JSON: {"schema": schemas[id(kind)]}}
        if handler.also_accepts is not None and status == 200:
            content[handler.also_accepts] = {"schema": {"type": "string"}}
        if content:
            made[str(status)]["content"] = content
    for status, codes in _problems(method, path, level, handler, operation).items():
        made[str(status)] = {
            "description": "Problem: " + ", ".join(codes),
            "headers": common,
            "content": {PROBLEM: {"schema": {"$ref": REF.format(name="Problem")}}},
            "x-codes": codes,
        }
    return made


def _problems(method: str, path: str, level: Level, handler: type[Handler], operation: Operation) -> dict[int, list[str]]:
    codes = [*ALWAYS, *operation.codes]
    codes += ["forbidden"] if level is not Level.OPEN else []
    codes += ["not-acceptable"] if not handler.lenient else []
    codes += WRITING if method != "GET" else []
    codes += ["unsupported-media-type"] if operation.body is not None else []
    codes += ["not-found"] if "{" in path else []
    codes += ["gone"] if "{uid}" in path else []
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        found.setdefault(STATUS[code], []).append(code)
    return dict(sorted(found.items()))
