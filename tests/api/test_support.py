"""What only admins may see: configuration, log, check of the store; the levels are tested in test_app.py."""

import asyncio

from task_daemon.api.context import Api, Daemon
from task_daemon.core.ports import Check
from tests.api.conftest import OPERATOR, READER, Caller, World, turns_until


def told(world: World, **facts: object) -> None:
    """Let the application know what `main` would tell it."""
    api: Api = world.api
    names = Daemon.__struct_fields__
    api.daemon = Daemon(**({name: getattr(api.daemon, name) for name in names} | facts))


async def test_config_is_shown_as_the_daemon_tells_it(ask: Caller, world: World) -> None:
    told(world, config_file="/etc/x.toml", configuration="[daemon]\n")

    assert (await ask.get("/v1/config")).json == {"file": "/etc/x.toml", "toml": "[daemon]\n"}


async def test_log_is_shown_oldest_first(ask: Caller, world: World) -> None:
    told(world, recent_log=lambda: ["first", "second"])

    assert (await ask.get("/v1/log")).json == {"lines": ["first", "second"]}


async def test_nobody_but_admins_sees_them(ask: Caller) -> None:
    for path in ("/v1/config", "/v1/log", "/v1/check"):
        for caller in (OPERATOR, READER):
            assert (await ask.get(path, by=caller)).json["code"] == "forbidden"


async def test_check_is_ok_when_nothing_was_found(ask: Caller) -> None:
    answer = (await ask.get("/v1/check")).json

    assert (answer["ok"], answer["complete"], answer["findings"]) == (True, True, [])
    assert answer["seconds"] >= 0


async def test_check_is_not_ok_when_something_was_found_or_time_was_up(ask: Caller, world: World) -> None:
    checks = {"found": Check(["page 3 is odd"], complete=False), "slow": Check((), complete=False)}
    answers = []
    for check in checks.values():

        async def found(check: Check = check) -> Check:
            return check

        world.engine.check = found  # type: ignore[method-assign]
        answers.append((await ask.get("/v1/check")).json)

    assert [(answer["ok"], answer["complete"]) for answer in answers] == [(False, False), (None, False)]
    assert answers[0]["findings"] == ["page 3 is odd"]


async def test_others_are_answered_while_the_store_is_checked(ask: Caller, world: World) -> None:
    let_go = asyncio.Event()

    async def slow() -> Check:
        await let_go.wait()
        return Check()

    world.engine.check = slow  # type: ignore[method-assign]
    checking = asyncio.ensure_future(ask.get("/v1/check"))
    await turns_until(lambda: world.api.in_flight)

    assert (await ask.get("/v1/zones")).status == 200
    let_go.set()
    assert (await checking).json["ok"] is True


async def test_info_tells_the_versions(ask: Caller, world: World) -> None:
    told(world, versions={"python": "3"})

    assert (await ask.get("/v1/info", by=OPERATOR)).json["versions"] == {"python": "3"}
