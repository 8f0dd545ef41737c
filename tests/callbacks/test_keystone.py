"""Tokens from something that answers like Keystone and can be made to misbehave; the real one is in tests/live."""

import asyncio
import json
import logging
import sys
from typing import Any

import pytest
from keystoneauth1 import identity, session  # noqa: F401 - slow to import: not in the time of the test that fetches first

from task_daemon.callbacks.keystone import FixedAccess, Granted, KeystoneAccess
from task_daemon.core.errors import ConfigError
from tests.receivers import Answer, Receiver

NOW = 1_800_000_000.0


def grant(token: str, url: str = "http://region/v2", interface: str = "public", region: str = "R1") -> Answer:
    """The answer of Keystone v3 to a good password, for an hour from NOW."""
    endpoint = {"id": "e", "interface": interface, "region": region, "region_id": region, "url": url}
    body = {
        "token": {
            "methods": ["password"],
            "expires_at": "2027-01-15T09:00:00.000000Z",
            "issued_at": "2027-01-15T08:00:00.000000Z",
            "user": {"id": "u", "name": "region", "domain": {"id": "default", "name": "Default"}},
            "catalog": [{"id": "s", "type": "compute", "name": "nova", "endpoints": [endpoint]}],
        }
    }
    return Answer(201, {"X-Subject-Token": token, "Content-Type": "application/json"}, json.dumps(body).encode())


def access(keystone: Receiver, **options: Any) -> KeystoneAccess:
    settings: dict[str, Any] = {"now": lambda: NOW, "timeout": 5.0} | options
    uri = keystone.url.replace("/hook", "/v3")
    return KeystoneAccess(uri, "region", "pa55word", "service", "R1", **settings)


async def test_token_and_service_url_are_fetched_once_when_many_ask() -> None:
    with Receiver([grant("t1")], then=500) as keystone:
        kept = access(keystone)
        got = await asyncio.gather(*(kept.headers_and_url() for _ in range(20)))
        got.append(await kept.headers_and_url())

    assert got == [({"X-Auth-Token": "t1"}, "http://region/v2")] * 21
    (request,) = keystone.requests
    auth = request.json()["auth"]
    assert request.path == "/v3/auth/tokens"
    assert auth["identity"]["password"]["user"]["password"] == "pa55word"
    assert auth["scope"]["project"]["name"] == "service"


async def test_token_is_renewed_once_when_several_calls_were_refused_with_it() -> None:
    with Receiver([grant("t1"), grant("t2", "http://moved/v2")], then=500) as keystone:
        kept = access(keystone)
        old, _ = await kept.headers_and_url()
        got = await asyncio.gather(*(kept.headers_and_url(refused=old) for _ in range(4)))
        got.append(await kept.headers_and_url(refused=old))

    assert got == [({"X-Auth-Token": "t2"}, "http://moved/v2")] * 5
    assert len(keystone.requests) == 2


async def test_token_is_renewed_when_it_is_about_to_end() -> None:
    now = [NOW]
    with Receiver([grant("t1"), grant("t2")]) as keystone:
        kept = access(keystone, now=lambda: now[0])
        await kept.headers_and_url()
        now[0] += 3500
        assert (await kept.headers_and_url())[0] == {"X-Auth-Token": "t1"}
        now[0] += 50
        assert (await kept.headers_and_url())[0] == {"X-Auth-Token": "t2"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (401, "refused user 'region' or its password; correct admin_user"),
        (503, "503"),
        (Answer(drop=True), "Unable to establish connection|Connection aborted|Remote end closed"),
        (grant("t1", region="R2"), "no service 'compute' in region 'R1'"),
        (Answer(201, {"X-Subject-Token": "t1"}, b"[]"), "cannot get a token"),
        (Answer(200, body=b"not json"), "cannot get a token"),
    ],
)
async def test_error_can_be_retried_and_hides_the_password_when_keystone_refuses(answer: Answer | int, said: str) -> None:
    with Receiver([answer], then=grant("t2")) as keystone:
        kept = access(keystone)
        with pytest.raises(OSError, match=said) as caught:
            await kept.headers_and_url()
        for error in (caught.value, caught.value.__cause__, caught.value.__context__ if caught.value.__cause__ else None):
            assert "pa55word" not in f"{error!r}"
            assert "t1" not in f"{error}"

        assert (await kept.headers_and_url())[0] == {"X-Auth-Token": "t2"}


async def test_fetch_is_given_up_and_tried_anew_when_keystone_says_nothing() -> None:
    with Receiver([Answer(never=True)], then=grant("t1")) as keystone:
        kept = access(keystone, timeout=0.4)
        with pytest.raises(OSError, match=r"timed out|no answer"):
            await kept.headers_and_url()

        assert (await kept.headers_and_url())[0] == {"X-Auth-Token": "t1"}


async def test_waiting_ends_with_its_time_when_keystone_never_comes_to_an_end() -> None:
    with Receiver([Answer(never=True)]) as keystone:
        waiting = asyncio.ensure_future(access(keystone, timeout=0.4).headers_and_url())
        await asyncio.to_thread(keystone.wait, 1)
        keystone.say(b"HTTP/1.1 201 Created\r\n")
        for number in range(60):
            keystone.say(b"X-%d: y\r\n" % number)
            if (await asyncio.wait({waiting}, timeout=0.02))[0]:
                break

        with pytest.raises(TimeoutError, match=r"no answer within 0\.4 s"):
            await waiting


@pytest.mark.parametrize(
    ("given", "used"),
    [("http://k:5000", "http://k:5000/v3"), ("http://k/identity/v3/", "http://k/identity/v3"), ("http://k/v2.0", "http://k/v3")],
)
def test_version_three_is_used_whatever_version_the_old_option_names(given: str, used: str) -> None:
    assert vars(KeystoneAccess(given, "u", "p", "t", "R1"))["_auth_url"] == used


def test_error_says_what_to_install_when_keystoneauth_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keystoneauth1", raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ConfigError, match=r"pip install 'task-daemon\[keystone\]'"):
        KeystoneAccess("http://k", "u", "p", "t", "R1")


async def test_no_secret_is_shown_when_things_are_printed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver([grant("gAAAtoken")]) as keystone:
        kept = access(keystone)
        await kept.headers_and_url()

    shown = f"{kept!r} {Granted('gAAAtoken', 'u', 1.0)!r} {caplog.text}"
    assert "http://region/v2" in caplog.text
    assert "pa55word" not in shown
    assert "gAAAtoken" not in shown


def test_fixed_access_is_refused_when_its_url_is_not_one() -> None:
    with pytest.raises(ConfigError, match=r"cannot use service_url of \[region\]: .*accepted is"):
        FixedAccess("region.example/v2")
