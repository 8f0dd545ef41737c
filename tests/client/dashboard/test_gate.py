"""Who is let in to a dashboard, and who is not."""

from http.cookies import SimpleCookie

import pytest

from task_client.dashboard.gate import COOKIE, Gate

PORT = 8765
HOME = {"Host": f"127.0.0.1:{PORT}"}


@pytest.fixture
def gate() -> Gate:
    return Gate(PORT)


def token(gate: Gate) -> str:
    return gate.link.partition("token=")[2]


def test_the_link_works_once(gate: Gate) -> None:
    assert gate.enter("wrong") is None
    assert gate.enter("") is None
    assert gate.enter("schlüssel") is None
    assert gate.enter(token(gate))
    assert gate.enter(token(gate)) is None


def test_the_cookie_is_for_this_page_only(gate: Gate) -> None:
    (cookie,) = SimpleCookie(gate.enter(token(gate))).values()

    assert cookie["httponly"] is True
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == gate.base
    assert len(gate.base) > 20, "cookies are not kept apart by port: only who knows the path may be sent it"
    assert cookie["domain"] == ""


def test_the_cookie_admits_and_nothing_else_does(gate: Gate) -> None:
    (cookie,) = SimpleCookie(gate.enter(token(gate))).values()

    assert gate.admits(f"other=1; {COOKIE}={cookie.value}")
    for wrong in (None, "", f"{COOKIE}=", f"{COOKIE}={cookie.value}x", f"{COOKIE}={token(gate)}", "\x00;;=", cookie.value):
        assert not gate.admits(wrong), wrong


def test_two_dashboards_do_not_know_each_others_cookies(gate: Gate) -> None:
    other = Gate(PORT)
    cookie = other.enter(token(other))

    assert cookie is not None
    assert not gate.admits(cookie.partition(";")[0])
    assert gate.base != other.base


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}"])
def test_its_own_page_is_let_in(gate: Gate, host: str) -> None:
    for more in ({}, {"Origin": f"http://{host}"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert gate.refusal("GET", {"Host": host, **more}) is None
    assert gate.refusal("POST", {"Host": host, "Origin": f"http://{host}"}) is None


@pytest.mark.parametrize(
    "host", ["", "127.0.0.1", "evil.example", f"evil.example:{PORT}", "127.0.0.1:1", f"127.0.0.1:{PORT}.evil.example"]
)
def test_a_foreign_name_that_points_here_is_refused(gate: Gate, host: str) -> None:
    assert "cannot answer for host" in (gate.refusal("GET", {"Host": host}) or "")
    assert gate.refusal("GET", {"Host": host}, entering=True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{PORT}", f"http://localhost:{PORT}"]
)
def test_requests_of_foreign_pages_are_refused(gate: Gate, origin: str) -> None:
    for method in ("GET", "POST"):
        assert "cannot take a request of a page from" in (gate.refusal(method, {**HOME, "Origin": origin}) or "")


def test_a_change_needs_an_origin(gate: Gate) -> None:
    assert "without an Origin" in (gate.refusal("POST", HOME) or "")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_and_other_ports_may_follow_the_link_and_do_nothing_else(gate: Gate, site: str) -> None:
    assert gate.refusal("GET", {**HOME, "Sec-Fetch-Site": site})
    assert gate.refusal("GET", {**HOME, "Sec-Fetch-Site": site}, entering=True) is None
