"""Deliveries as receivers get them: webhooks that the Standard Webhooks library accepts, and calls of the region."""

import base64
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from task_daemon.callbacks.keystone import Access, FixedAccess
from task_daemon.callbacks.sender import HttpSender
from task_daemon.callbacks.signing import Key
from task_daemon.callbacks.target import AllowList
from task_daemon.core.model import Delivery
from task_daemon.core.ports import Sender, Unsendable
from tests.receivers import Answer, Receiver, RegionServer

NOW = 1_800_000_000.75
OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()


def delivery(url: str, **members: Any) -> Delivery:
    plain: dict[str, Any] = {
        "id": "msg_u1_3_0",
        "uid": "u1",
        "task_seq": 3,
        "part": 0,
        "type": "task.succeeded",
        "via": "webhook",
        "target": "lane",
        "method": "POST",
        "url": url,
        "body": b'{"task": {"uid":"u1", "id":"d\xc3\xa4"}}',
        "owner_uid": os.getuid(),
        "created_at": 1_799_999_999.1234,
        "next_at": 0.0,
        "seq": 42,
    }
    return Delivery(**plain | members)


def call(path: str = "/disks/d1", **members: Any) -> Delivery:
    return delivery(path, via="region", method="PUT", target="region", body=b'{"disk":{"status":"ready"}}', **members)


@asynccontextmanager
async def sender(**options: Any) -> AsyncIterator[Sender]:
    made = HttpSender("1.2.3", **options)
    try:
        yield made
    finally:
        await made.close()


async def test_webhook_carries_the_data_as_it_is_and_when_it_happened() -> None:
    with Receiver() as receiver:
        async with sender() as send:
            assert (await send.send(delivery(receiver.url), 1, NOW)).status == 200

    (request,) = receiver.requests
    assert request.json() == {
        "type": "task.succeeded",
        "timestamp": "2027-01-15T07:59:59.123Z",
        "data": {"task": {"uid": "u1", "id": "dä"}},
        "seq": 42,
        "task_seq": 3,
    }
    assert delivery("").body in request.body


async def test_webhook_has_the_headers_of_the_contract() -> None:
    with Receiver() as receiver:
        async with sender() as send:
            await send.send(delivery(receiver.url), 5, NOW)

    headers = receiver.requests[0].headers
    expected = {
        "content-type": "application/json",
        "user-agent": "task-daemon/1.2.3",
        "webhook-id": "msg_u1_3_0",
        "webhook-timestamp": "1800000000",
        "idempotency-key": "msg_u1_3_0",
        "task-daemon-attempt": "5",
    }
    assert {name: headers.get(name) for name in expected} == expected
    assert "webhook-signature" not in headers


async def test_id_and_body_stay_and_time_and_attempt_move_when_a_webhook_is_sent_again() -> None:
    with Receiver([503, 200]) as receiver:
        async with sender() as send:
            await send.send(delivery(receiver.url), 1, NOW)
            await send.send(delivery(receiver.url), 2, NOW + 60)

    first, second = receiver.requests
    changed = {name for name in first.headers if first.headers[name] != second.headers[name]}
    assert first.body == second.body
    assert changed == {"webhook-timestamp", "task-daemon-attempt"}


@pytest.mark.parametrize("secret", [OLD, NEW])
@pytest.mark.parametrize("name", [None, "default", "mine"])
async def test_referee_accepts_the_webhook_when_a_key_is_configured(secret: str, name: str | None) -> None:
    keys = {"default": (Key(NEW), Key(OLD)), "mine": (Key(NEW), Key(OLD))}
    with Receiver() as receiver:
        async with sender(keys=keys) as send:
            await send.send(delivery(receiver.url, secret=name), 1, time.time())

    (request,) = receiver.requests
    assert Webhook(secret).verify(request.body, request.headers) == request.json()


async def test_webhook_is_unsendable_when_its_key_is_not_configured() -> None:
    with Receiver() as receiver:
        async with sender(keys={"default": (Key(OLD),)}) as send:
            with pytest.raises(Unsendable, match=r"no key is named 'mine' \(configured: default\); add it under"):
                await send.send(delivery(receiver.url, secret="mine"), 1, NOW)

    assert receiver.requests == []


async def test_webhook_is_unsendable_when_its_address_is_not_allowed() -> None:
    with Receiver() as receiver:
        async with sender(allow=AllowList(["192.0.2.0/24", "hooks.example"])) as send:
            with pytest.raises(Unsendable, match=r"127.0.0.1 is not in \[callbacks\] allow \(192.0.2.0/24, hooks.example\); add"):
                await send.send(delivery(receiver.url), 1, NOW)

    assert receiver.connections == 0


async def test_webhook_reaches_a_name_when_all_its_addresses_are_allowed() -> None:
    with Receiver() as receiver:
        async with sender() as send:
            assert (await send.send(delivery(f"http://localhost:{receiver.port}/hook"), 1, NOW)).status == 200


async def test_webhook_is_unsendable_when_its_url_is_not_one() -> None:
    async with sender() as send:
        with pytest.raises(Unsendable, match="accepted is http://host"):
            await send.send(delivery("gopher://x/"), 1, NOW)


async def test_socket_of_somebody_else_is_told_only_when_listed(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the task is not who listens. As root, whose sockets are always good, only the kernel's word is replaced."""
    if os.getuid() == 0:
        monkeypatch.setattr("task_daemon.callbacks.link.Link.peer_uid", lambda self: 4001)
    listener = os.getuid() or 4001
    with Receiver(path=socket_path) as receiver:
        async with sender() as send:
            with pytest.raises(Unsendable, match=rf"uid {listener} listens there; .* \(uids 0, 4002\)"):
                await send.send(delivery(receiver.url, owner_uid=4002), 1, NOW)
            assert receiver.requests == []
            assert (await send.send(delivery(receiver.url, owner_uid=listener), 1, NOW)).status == 200
        async with sender(socket_uids=[listener]) as send:
            assert (await send.send(delivery(receiver.url, owner_uid=4002), 1, NOW)).status == 200


async def test_region_is_called_with_token_below_its_service_url(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t1\n")
    with RegionServer("t1".__eq__) as region:
        async with sender(region=FixedAccess(region.service_url + "/", str(token))) as send:
            assert (await send.send(call(), 2, NOW)).status == 200

    (request,) = region.requests
    assert region.calls == [("PUT", "/disks/d1", {"disk": {"status": "ready"}})]
    assert request.headers["content-type"] == "application/json"
    assert request.headers["task-daemon-attempt"] == "2"
    assert request.headers["idempotency-key"] == "msg_u1_3_0"


async def test_region_is_called_without_token_when_none_is_configured() -> None:
    with Receiver([401]) as region:
        async with sender(region=FixedAccess(region.url)) as send:
            assert (await send.send(call(), 1, NOW)).status == 401

    assert len(region.requests) == 1
    assert "x-auth-token" not in region.requests[0].headers


async def test_token_is_read_again_and_the_call_repeated_once_when_the_region_says_401(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t1")
    good = {"t1"}
    with RegionServer(lambda t: t in good) as region:
        async with sender(region=FixedAccess(region.service_url, str(token))) as send:
            await send.send(call("/a"), 1, NOW)
            good.clear()
            good.add("t2")
            token.write_text("t2")
            assert (await send.send(call("/b"), 1, NOW)).status == 200
            assert (await send.send(call("/c"), 1, NOW)).status == 200

    assert [path for _, path, _ in region.calls] == ["/a", "/b", "/c"]
    assert len(region.refused) == 1


class NewTokenEachTime:
    """Access whose tokens are always new and never good."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.count = 0

    async def headers_and_url(self, refused: Mapping[str, str] | None = None) -> Access:
        self.count += 1
        return {"X-Auth-Token": f"t{self.count}"}, self.url


async def test_second_401_is_an_ordinary_answer() -> None:
    with Receiver(then=401) as region:
        access = NewTokenEachTime(region.url)
        async with sender(region=access) as send:
            assert (await send.send(call(), 1, NOW)).status == 401

    assert access.count == len(region.requests) == 2


async def test_region_call_can_be_tried_again_when_the_token_file_is_bad(tmp_path: Any) -> None:
    token = tmp_path / "token"
    with RegionServer("good".__eq__) as region:
        async with sender(region=FixedAccess(region.service_url, str(token))) as send:
            with pytest.raises(OSError, match=r"cannot read the region's token from .*: No such file"):
                await send.send(call(), 1, NOW)
            token.touch(0o600)
            token.write_bytes(b"s3cret\nsecond line")
            with pytest.raises(OSError, match="accepted is one line") as caught:
                await send.send(call(), 2, NOW)
            assert "s3cret" not in str(caught.value)
            token.write_text("good")
            assert (await send.send(call(), 3, NOW)).status == 200


class BadToken:
    async def headers_and_url(self, refused: Mapping[str, str] | None = None) -> Access:
        return {"X-Auth-Token": "s3\ncret"}, "http://127.0.0.1:9"


async def test_request_is_refused_without_its_secret_when_a_header_is_not_http() -> None:
    async with sender(region=BadToken()) as send:
        with pytest.raises(Unsendable, match="not valid HTTP") as caught:
            await send.send(call(), 1, NOW)

    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_webhook_is_refused_when_its_id_would_be_a_header_of_its_own() -> None:
    async with sender() as send:
        with pytest.raises(Unsendable, match="not valid HTTP"):
            await send.send(delivery("http://127.0.0.1:9/hook", id="msg_1\r\nEvil: b"), 1, NOW)


async def test_region_call_is_unsendable_when_no_region_is_configured() -> None:
    async with sender() as send:
        with pytest.raises(Unsendable, match=r"none is configured; set \[region\] auth_uri"):
            await send.send(call(), 1, NOW)


async def test_region_is_reached_wherever_it_is_but_a_webhook_may_not_use_its_connection(tmp_path: Any) -> None:
    with Receiver() as region:
        async with sender(allow=AllowList([]), region=FixedAccess(region.url)) as send:
            assert (await send.send(call(), 1, NOW)).status == 200
            with pytest.raises(Unsendable, match="not in"):
                await send.send(delivery(region.url), 1, NOW)

    assert len(region.requests) == 1


@pytest.mark.parametrize("answer", [Answer(500, body=b"oops"), Answer(410), Answer(404), Answer(302)])
async def test_every_status_is_handed_back_unjudged(answer: Answer) -> None:
    with Receiver([answer]) as receiver:
        async with sender() as send:
            got = await send.send(delivery(receiver.url), 1, NOW)

    assert (got.status, got.body) == (answer.status, answer.body.decode())


async def test_body_is_valid_json_in_one_piece_when_the_data_holds_anything() -> None:
    data = json.dumps({"task": {"labels": {"a": '"}],{'}, "n": None}}).encode()
    with Receiver() as receiver:
        async with sender() as send:
            await send.send(delivery(receiver.url, body=data), 1, NOW)

    assert receiver.requests[0].json()["data"] == json.loads(data)
