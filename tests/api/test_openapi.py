"""The contract as a document: complete, and held against a running daemon by schemathesis."""

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from msgspec.structs import fields
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from task_client import Client
from task_client.over_requests import SocketAdapter
from task_client.unix import socket_url
from task_daemon.api import answers
from task_daemon.api.app import ROUTES
from task_daemon.api.openapi import OPERATIONS, PARAMETERS, document, path_of
from task_daemon.api.problems import STATUS
from task_daemon.core.view import TaskView
from tests.api.conftest import READER, STRANGER, Caller
from tests.daemons import Daemon

DOCUMENT = document(ROUTES, "1")
EXAMPLES = 8  # requests for each operation with right data, and as many with wrong data where there is such
SHORT = 0.02  # seconds that a generated request waits at most

CONFIG = """
[zones.sim]
backend = "simulated"
poll_interval = 0.2
scenario = [{ id = "long*", finish_after = 1000 }, { id = "lost*", vanish_at = 50, finish_after = 1 }, { finish_after = 0.1 }]
"""


def test_each_route_is_in_the_document_and_no_other() -> None:
    routes = {f"{method} {path_of(pattern)}" for pattern, levels, _ in ROUTES for method in levels}
    described = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert described == routes == set(OPERATIONS)


def test_each_parameter_of_a_handler_is_in_the_document() -> None:
    for pattern, levels, handler in ROUTES:
        for method in levels:
            taken = handler.get_parameters if method == "GET" else handler.post_parameters
            parameters = DOCUMENT["paths"][path_of(pattern)][method.lower()]["parameters"]
            assert [p["name"] for p in parameters if p["in"] == "query"] == list(taken), pattern


def test_each_problem_code_is_in_the_document_under_its_status() -> None:
    operations = [o for methods in DOCUMENT["paths"].values() for o in methods.values()]
    shown = {(code, int(s)) for o in operations for s, r in o["responses"].items() for code in r.get("x-codes", ())}

    assert shown == {(code, status) for code, status in STATUS.items() if code != "method-not-allowed"}


def test_operations_are_named_once_and_each_parameter_is_in_the_page() -> None:
    names = [operation.name for operation in OPERATIONS.values()]
    page = (Path(__file__).parents[2] / "docs" / "rest-api.md").read_text()
    parameters = {p["name"] for ms in DOCUMENT["paths"].values() for o in ms.values() for p in o["parameters"]}

    assert len(set(names)) == len(names)
    assert [name for name in parameters if not re.search(rf"\b{name}\b", page)] == []


def test_the_shapes_are_those_of_the_views() -> None:
    assert {field.name for field in fields(answers.Task)} == set(TaskView.__struct_fields__)


async def test_the_document_is_served_to_whoever_has_a_role(ask: Caller) -> None:
    served = (await ask.get("/v1/openapi.json", by=READER)).json

    assert served["paths"].keys() == DOCUMENT["paths"].keys()
    assert (await ask.get("/v1/openapi.json", by=STRANGER)).status == 403


# --------------------------------------------------------------------------- schemathesis


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    import shutil
    import tempfile

    home = Path(tempfile.mkdtemp(prefix="td-"))
    with Daemon(home, CONFIG) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def names(daemon: Daemon) -> dict[str, list[str]]:
    """What is there, so that not every path leads to a 404: tasks of all sorts, callbacks, a zone."""
    with daemon.client() as client:
        return {"uid": tasks_of(client), "id": callbacks_of(client), "zone": ["sim"]}


class Rerouted(SocketAdapter):
    """Takes whatever goes to http://localhost to the daemon's socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        request = request.copy()
        request.url = socket_url(self._path, request.path_url)
        answer: requests.Response = super().send(request, **options)
        return answer


def tasks_of(client: Client) -> list[str]:
    dead = {"url": "http://127.0.0.1:9/nobody"}
    tasks = [client.register(name, "backup", "sim", callback=dead) for name in ("long-1", "quick-1", "quick-2", "lost-1")]
    tasks += [client.register(f"long-{n}", "backup", "sim", params={}) for n in (2, 3)]
    for task in tasks[1:4]:
        client.wait(task.uid, timeout=20)
    return [task.uid for task in tasks]


def callbacks_of(client: Client) -> list[str]:
    end = time.monotonic() + 20
    while not (found := client.callbacks()):
        assert time.monotonic() < end
    return [callback.id for callback in found]


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
ALL: list[Any] = [found.ok() for found in SCHEMA.get_all_operations()]  # type: ignore[union-attr]
LENIENT = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
LEFT_OUT = {
    "positive_data_acceptance",  # an unknown zone is right for the schema and a 400 all the same
}


RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
REQUESTS = [pytest.param(operation, RIGHT, id=f"{operation.label} right") for operation in ALL]
REQUESTS += [  # the others take anything
    pytest.param(operation, WRONG, id=f"{operation.label} wrong")
    for operation in ALL
    if operation.body or any(parameter.name in PARAMETERS for parameter in operation.query)
]


@pytest.mark.parametrize(("operation", "mode"), REQUESTS)
def test_the_daemon_keeps_to_the_document(daemon: Daemon, names: dict[str, list[str]], operation: Any, mode: Any) -> None:
    random.seed(0)  # the same requests each time
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", Rerouted(daemon.socket))

    @LENIENT
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), chosen=hypothesis.strategies.integers(0, 7))
    def hold(case: Any, chosen: int) -> None:
        for name in case.path_parameters or {}:
            known = names[name]
            if chosen < len(known):
                case.path_parameters[name] = known[chosen]
        hypothesis.assume(not any(isinstance(value, dict) for value in (case.query or {}).values()))  # comes out as other names
        shorten(case)
        answer = case.call(base_url="http://localhost", session=session, timeout=20)
        gone = {"negative_data_rejection"} if answer.status_code == 410 else set()  # deleted by another request of this test
        case.validate_response(answer, excluded_checks=CHECKS.get_by_names(sorted(LEFT_OUT | gone)))

    hold()
    session.close()


def shorten(case: Any) -> None:
    """Generated requests must not hold the test up."""
    if isinstance((case.query or {}).get("wait"), (int, float)):
        case.query["wait"] = min(case.query["wait"], SHORT)
    (case.headers or {}).pop("Prefer", None)
