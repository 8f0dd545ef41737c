"""The feed as server-sent events."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Self

import pytest
from msgspec import Struct

from task_daemon.api.access import Peer
from task_daemon.api.server import ApiServer
from task_daemon.api.stream import HEARTBEAT, Streams
from task_daemon.core.errors import CursorExpired, Degraded, QueueFull, QuotaExceeded
from task_daemon.core.model import Event
from task_daemon.tracking.feed import PROGRESS_EVERY
from tests.api.conftest import OPERATOR, OTHER_OPERATOR, READER, ROOT, Caller, World, turns_until

Connect = Callable[[], Any]


class Block(Struct, frozen=True):
    """One block of a stream: its fields; comments are under ""."""

    fields: dict[str, str]

    @property
    def id(self) -> int:
        return int(self.fields["id"])

    @property
    def data(self) -> Any:
        return json.loads(self.fields["data"])


class Stream:
    """A reader of `path` as `by`. Time stands still unless a test moves it."""

    def __init__(self, connect: Connect, world: World, path: str, by: Peer = ROOT, **headers: str) -> None:
        self._connect = connect
        self._world = world
        self._by = by
        lines = [f"GET {path} HTTP/1.1", "Host: d", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self._request = "\r\n".join([*lines, "Accept: text/event-stream", "", ""]).encode()
        self._text = ""

    async def __aenter__(self) -> Self:
        before, self._world.peer = self._world.peer, self._by
        self._reader, self._writer = await self._connect()
        self._writer.write(self._request)
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        self._world.peer = before
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    async def block(self) -> Block:
        while "\n\n" not in self._text:
            size = int(await self._reader.readline(), 16)
            if not size:
                raise EOFError
            self._text += (await self._reader.readexactly(size + 2))[:-2].decode()
        block, _, self._text = self._text.partition("\n\n")
        fields = (line.partition(": ") for line in block.splitlines())
        return Block({name: value for name, _, value in fields})

    async def blocks(self, count: int) -> list[Block]:
        """The next ones that are no opening and no heartbeat."""
        found: list[Block] = []
        while len(found) < count:
            block = await self.block()
            if "data" in block.fields:
                found.append(block)
        return found

    async def problem(self) -> Any:
        return json.loads(await self._reader.read(2000))


async def test_f13_the_stream_has_every_event_with_its_sequence_as_id(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    first = await ask.register("before")
    async with Stream(connect, world, "/v1/events") as stream:
        second = await ask.register("after")
        blocks = await stream.blocks(2)

    assert "Content-Type: text/event-stream\r\n" in stream.head
    assert [(block.id, block.fields["event"], block.data["uid"]) for block in blocks] == [
        (1, "task.registered", first["uid"]),
        (2, "task.registered", second["uid"]),
    ]
    assert blocks[0].data == (await ask.get("/v1/events")).json["events"][0]


async def test_f13_a_reader_that_comes_again_goes_on_after_its_last_event(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    for number in range(4):
        await ask.register(f"d-{number}")
    async with Stream(connect, world, "/v1/events?after=1&page_size=1", Last_Event_ID="2") as stream:
        ids = [block.id for block in await stream.blocks(2)]

    assert ids == [3, 4]


async def test_after_latest_leaves_out_what_was_before(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    await ask.register("before")
    async with Stream(connect, world, "/v1/events?after=latest") as stream:
        await stream.block()
        await ask.register("after")
        (block,) = await stream.blocks(1)

    assert block.id == 2
    assert (await ask.get("/v1/events?after=latest")).json == {"events": [], "cursor": 2}


async def test_the_stream_of_a_task_has_its_events_only(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    mine = (await ask.register("mine"))["uid"]
    await ask.register("other")
    async with Stream(connect, world, f"/v1/tasks/{mine}/events") as stream:
        await ask.register("another")
        await ask.post(f"/v1/tasks/{mine}/cancel", {"stop_tracking": True})
        found = [(block.id, block.data["uid"], block.fields["event"]) for block in await stream.blocks(2)]

    assert found == [(1, mine, "task.registered"), (4, mine, "task.cancelled")]


async def test_a_silent_stream_has_heartbeats(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    async with Stream(connect, world, "/v1/events") as stream:
        assert (await stream.block()).fields == {"retry": "1000"}
        silent = asyncio.ensure_future(stream.block())
        world.clock.advance(HEARTBEAT - 0.1)
        await ask.get("/healthz")
        assert not silent.done()
        world.clock.advance(0.2)

        assert (await silent).fields == {"": "heartbeat"}


async def test_progress_is_streamed_when_it_is_asked_for_and_not_durable(ask: Caller, world: World, connect: Connect) -> None:
    task = await ask.register("long")
    async with (
        Stream(connect, world, "/v1/events?progress=true") as all_of_it,
        Stream(connect, world, f"/v1/tasks/{task['uid']}/events?progress=true") as of_one,
        Stream(connect, world, "/v1/events") as events,
    ):
        seen = []
        for stream in (all_of_it, of_one):
            reading = asyncio.ensure_future(stream.blocks(4))
            await turns(world, reading)
            seen.append(await reading)
        others = asyncio.ensure_future(events.blocks(3))
        await ask.register("another")
        await turns(world, others)
        kinds = {block.fields["event"] for block in await others}

    for blocks in seen:
        progress = [block for block in blocks if block.fields["event"] == "progress"]
        assert progress
        assert all("id" not in block.fields and block.data["uid"] == task["uid"] for block in progress)
        assert progress[-1].data["detail"]["state"] == "running"
        assert progress[-1].data["detail"]["progress"]["percent"] > 0
    assert "progress" not in kinds
    await turns_until(lambda: not world.engine.watched.everything and not world.engine.watched)


async def turns(world: World, reading: "asyncio.Future[Any]") -> None:
    """Let time pass until something was read."""

    def passed() -> bool:
        world.clock.advance(0.01)
        return reading.done()

    await turns_until(passed)


async def test_progress_is_coalesced(ask: Caller, world: World, connect: Connect) -> None:
    """The task is looked at ten times a second, and told of once."""
    task = await ask.register("long", poll_interval=0.1)
    async with Stream(connect, world, f"/v1/tasks/{task['uid']}/events?progress=true") as stream:
        began = world.clock.monotonic()
        reading = asyncio.ensure_future(stream.blocks(6))
        await turns(world, reading)

    revisions = [block.data["detail"]["revision"] for block in await reading if block.fields["event"] == "progress"]
    assert len(revisions) > 2
    assert world.clock.monotonic() - began > PROGRESS_EVERY * (len(revisions) - 1) - 0.1
    assert revisions == sorted(set(revisions))


async def test_a_reader_that_does_not_read_is_cut_off_and_holds_one_page(
    world: World, socket_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("task_daemon.api.server.ANSWER_TIMEOUT", 0.3)
    server = ApiServer(world.app(), socket_path)
    server.start()
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=1024)
    writer.write(b"GET /v1/events?page_size=1 HTTP/1.1\r\nHost: d\r\nAccept: text/event-stream\r\n\r\n")
    feed = world.manager._feed
    await reader.readuntil(b"retry")
    (follower,) = feed.followers
    for seq in range(1, 51):
        feed.add((), [Event("t", "task.running", 1.0, 1, detail={"text": "x" * 100_000}, seq=seq)])
    await turns_until(lambda: not len(world.api.streams))

    assert 0 < follower.cursor < 20
    assert not feed.followers
    writer.close()
    await server.stop(1.0)


@pytest.mark.parametrize(
    ("path", "headers", "named"),
    [
        ("/v1/events?after=x", {}, "?after"),
        ("/v1/events?wait=3", {}, "?wait"),
        ("/v1/events?progress=yes", {}, "?progress"),
        ("/v1/events", {"Last_Event_ID": "abc"}, "Last-Event-ID"),
        ("/v1/events", {"Last_Event_ID": "9" * 30}, "Last-Event-ID"),
    ],
)
async def test_a_wrong_request_is_told_before_the_stream_begins(
    world: World, connect: Connect, path: str, headers: dict[str, str], named: str
) -> None:
    async with Stream(connect, world, path, ROOT, **headers) as stream:
        assert stream.status == 400
        assert (await stream.problem())["errors"][0]["pointer"] == named


async def test_progress_is_for_streams_only(ask: Caller) -> None:
    answer = await ask.get("/v1/events?progress=true")

    assert (answer.status, answer.json["errors"][0]["pointer"]) == (400, "?progress")
    assert "text/event-stream" in answer.json["detail"]


async def test_a_cursor_older_than_the_history_is_gone(world: World, connect: Connect) -> None:
    async def expired(*_: Any) -> Any:
        raise CursorExpired("too old", extra={"oldest": 17})

    world.engine.events = expired  # type: ignore[method-assign, assignment]
    async with Stream(connect, world, "/v1/events", Last_Event_ID="3") as stream:
        problem = await stream.problem()

    assert (stream.status, problem["code"], problem["oldest"]) == (410, "cursor-expired", 17)


async def test_a_stream_whose_events_cannot_be_read_ends(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()

    async def broken(*_: Any) -> Any:
        raise Degraded("cannot read the store")

    async with Stream(connect, world, "/v1/events") as stream:
        await stream.block()
        world.engine.events = broken  # type: ignore[method-assign, assignment]
        world.manager._feed.recent = lambda *_: None  # type: ignore[method-assign]
        await ask.register("one")
        assert (await stream.block()).fields[""] == "degraded"
        with pytest.raises(EOFError):
            await stream.block()


async def test_f14_a_stream_shows_only_what_its_reader_may_see(ask: Caller, world: World, connect: Connect) -> None:
    mine = await ask.register("mine", by=OPERATOR)
    await ask.register("yours", by=OTHER_OPERATOR)
    async with (
        Stream(connect, world, "/v1/events?progress=true", by=OPERATOR) as own,
        Stream(connect, world, "/v1/events?progress=true", by=READER) as everything,
    ):
        for stream, owners in ((own, 1), (everything, 2)):
            reading = asyncio.ensure_future(stream.blocks(8))
            await turns(world, reading)
            blocks = await reading
            assert len({block.data["uid"] for block in blocks}) == owners
        assert {block.data["uid"] for block in blocks} > {mine["uid"]}


async def test_the_cursor_moves_past_events_of_others(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    await ask.register("yours", by=OTHER_OPERATOR)
    async with Stream(connect, world, "/v1/events", by=OPERATOR) as stream:
        assert (await stream.block()).fields == {"retry": "1000"}
        assert (await stream.block()).fields == {"id": "1"}


async def test_a_task_of_somebody_else_has_no_stream(ask: Caller, world: World, connect: Connect) -> None:
    uid = (await ask.register("yours", by=OTHER_OPERATOR))["uid"]
    async with Stream(connect, world, f"/v1/tasks/{uid}/events", by=OPERATOR) as stream:
        assert stream.status == 404


async def test_streams_end_when_the_daemon_stops(ask: Caller, world: World, connect: Connect) -> None:
    await ask.quiet()
    async with Stream(connect, world, "/v1/events") as stream:
        await stream.block()
        world.manager.stop_waiting()

        assert (await stream.block()).fields[""].startswith("the daemon is stopping")
        with pytest.raises(EOFError):
            await stream.block()
    await world.api.idle()


async def test_nothing_is_left_of_a_reader_that_hung_up(ask: Caller, world: World, connect: Connect) -> None:
    async with Stream(connect, world, "/v1/events?progress=true") as stream:
        await stream.block()
        assert len(world.api.streams) == 1
        assert world.api.in_flight == 1
    await turns_until(lambda: not len(world.api.streams) and not world.api.in_flight)

    assert not world.manager._feed.followers
    assert not world.engine.watched.everything


async def test_there_are_no_more_streams_than_allowed(world: World, connect: Connect) -> None:
    world.api.streams = Streams(at_once=2, per_uid=1)
    async with (
        Stream(connect, world, "/v1/events") as first,
        Stream(connect, world, "/v1/events") as too_many,
        Stream(connect, world, "/v1/events", by=OPERATOR) as second,
        Stream(connect, world, "/v1/events", by=READER) as too_many_in_all,
    ):
        assert (first.status, second.status) == (200, 200)
        assert (too_many.status, (await too_many.problem())["code"]) == (429, QuotaExceeded.code)
        assert (too_many_in_all.status, (await too_many_in_all.problem())["code"]) == (503, QueueFull.code)
