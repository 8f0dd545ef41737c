"""The region's calls with tokens of a real Keystone, checked by the receiver against that same Keystone."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import json

from task_daemon.callbacks.keystone import KeystoneAccess
from task_daemon.callbacks.region import RouteTable
from task_daemon.callbacks.sender import HttpSender
from task_daemon.core.model import Delivery, Task
from task_daemon.core.ports import Call
from tests.callbacks.test_region import MIB, OWN, ROWS, task
from tests.conftest import missing
from tests.live.keystone_server import REGION, CannotInstall, Keystone
from tests.receivers import RegionServer

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]  # the first run installs Keystone; each worker starts its own

NOW = 1_800_000_000.0
USER, PASSWORD, TENANT = "region", "the region's pa55word", "service"


@pytest.fixture(scope="module")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    try:
        server = Keystone(tmp_path_factory.mktemp("keystone"))
    except CannotInstall as error:
        missing(f"a Keystone of tests/live/keystone.txt ({error})")
    try:
        server.start()
        server.add_user(USER, PASSWORD, TENANT)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def region_server(keystone: Keystone) -> Iterator[RegionServer]:
    with RegionServer(keystone.accepts) as server:
        keystone.add_service("compute", server.service_url)
        yield server


@pytest.fixture(scope="module")
def shared_access(keystone: Keystone) -> KeystoneAccess:
    return access_to(keystone)


@pytest.fixture
def region(region_server: RegionServer) -> RegionServer:
    """The receiver, with what earlier tests sent forgotten."""
    region_server.requests.clear()
    region_server.refused.clear()
    return region_server


def access_to(keystone: Keystone, password: str = PASSWORD) -> KeystoneAccess:
    return KeystoneAccess(keystone.auth_uri, USER, password, TENANT, REGION)


@asynccontextmanager
async def sender(access: KeystoneAccess) -> AsyncIterator[HttpSender]:
    made = HttpSender("1.2.3", region=access)
    try:
        yield made
    finally:
        await made.close()


def delivery(call: Call, part: int = 0) -> Delivery:
    return Delivery(
        id=f"msg_u1_2_{part}",
        uid="u1",
        task_seq=2,
        part=part,
        type="task.succeeded",
        via="region",
        target="region",
        method=call.method,
        url=call.path,
        body=json.encode(call.body),
        owner_uid=os.getuid(),
        created_at=NOW,
        next_at=NOW,
    )


async def statuses(send: HttpSender, which: Task, outcome: str) -> list[int]:
    made = RouteTable()(which, outcome, None)
    return [(await send.send(delivery(call, part), 1, NOW)).status for part, call in enumerate(made)]


@pytest.mark.parametrize(("action", "outcome", "expected"), ROWS)
async def test_region_accepts_each_row_of_the_old_table_when_the_token_is_keystones(
    action: str, outcome: str, expected: list[Any], region: RegionServer, shared_access: KeystoneAccess
) -> None:
    async with sender(shared_access) as send:
        answered = await statuses(send, task(action=action, region_task_id=17), outcome)

    assert region.calls == [*expected, OWN[outcome]]
    assert answered == [200] * len(region.calls)
    assert region.refused == []


async def test_region_accepts_the_size_of_a_backup_when_the_token_is_keystones(
    region: RegionServer, shared_access: KeystoneAccess
) -> None:
    async with sender(shared_access) as send:
        assert await statuses(send, task(size=7 * MIB, size_told=True), "size") == [200]

    assert region.calls == [("PUT", "/mebs_backups/d1", {"mebs_backup": {"size": 7}})]


async def test_token_is_renewed_once_and_the_call_repeated_when_the_token_was_revoked(
    keystone: Keystone, region: RegionServer
) -> None:
    access = access_to(keystone)
    old, _ = await access.headers_and_url()
    keystone.revoke(old["X-Auth-Token"])
    async with sender(access) as send:
        assert await statuses(send, task(region_task_id=17), "finished") == [200, 200]

    assert [request.headers["x-auth-token"] for request in region.refused] == [old["X-Auth-Token"]]
    assert len(region.calls) == 2


async def test_call_can_be_tried_again_and_says_why_when_the_password_is_wrong(keystone: Keystone, region: RegionServer) -> None:
    async with sender(access_to(keystone, "an0ther")) as send:
        with pytest.raises(OSError, match="refused user 'region' or its password; correct admin_user") as caught:
            await statuses(send, task(), "finished")

    assert "an0ther" not in str(caught.value)
    assert region.requests == []


async def test_call_is_made_later_when_keystone_was_down_at_first(keystone: Keystone, region: RegionServer) -> None:
    keystone.stop()
    async with sender(access_to(keystone)) as send:
        try:
            with pytest.raises(OSError, match="cannot get a token from"):
                await statuses(send, task(), "finished")
        finally:
            keystone.start()
        assert await statuses(send, task(), "finished") == [200]

    assert len(region.calls) == 1
