"""The page in a real Chromium before a real daemon. (About 25 s.)"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from task_client import Client
from task_client.dashboard.bridge import Bridge
from tests.client.dashboard.conftest import CONFIG, bridged
from tests.client.dashboard.page import Dashboard, Opened
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.waiting import eventually

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
DARK = {"color_scheme": "dark"}


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with daemon.client() as found:
        yield found


@pytest.fixture
def opened(browser: Browser, bridge: Bridge) -> Iterator[Opened]:
    pages: list[Dashboard] = []

    def one(**settings: object) -> Dashboard:
        pages.append(Dashboard(browser, bridge, **settings))
        return pages[-1]

    yield one
    for page in pages:
        page.close()


@pytest.fixture
def dashboard(opened: Opened) -> Dashboard:
    return opened()


def test_tasks_come_move_and_end_while_one_looks(dashboard: Dashboard, client: Client) -> None:
    client.register("live-1", "clone", "vm1", params={"finish_after": 3})

    expect(dashboard.state("live-1")).to_have_text("running")
    expect(dashboard.row("live-1").locator(".figure")).not_to_have_text("0.0 %")
    expect(dashboard.state("live-1")).to_have_text("succeeded")
    expect(dashboard.row("live-1").locator(".figure")).to_have_text("100 %")


def test_an_error_is_told_in_the_list_and_in_the_history(dashboard: Dashboard, client: Client) -> None:
    client.register("full-1", "clone", "vm1")

    expect(dashboard.row("full-1").locator(".note")).to_have_text("backend: No space left on device")
    shown = dashboard.open("full-1")
    expect(shown.locator(".timeline .what")).to_have_text(["registered", "running", "failed"])
    expect(shown.get_by_text("It waits for nothing: it has ended.")).to_be_visible()


def test_a_task_is_cancelled_only_after_a_yes(dashboard: Dashboard, client: Client) -> None:
    task = client.register("run-1", "clone", "vm1", params={})
    expect(dashboard.state("run-1")).to_have_text("running")
    shown = dashboard.open("run-1")
    shown.get_by_role("button", name="Cancel…").click()
    dialog = dashboard.page.get_by_role("dialog", name="Cancel run-1?")
    assert dashboard.focused() == "Keep it as it is"
    dashboard.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert dashboard.focused() == "Cancel…", "the focus goes back"
    assert client.get(task.uid).state == "running"

    shown.get_by_role("button", name="Cancel…").click()
    dialog.get_by_role("button", name="Cancel the task").click()

    expect(dashboard.state("run-1")).to_have_text("cancelled")
    expect(shown.locator(".timeline .cancelled")).to_be_visible()
    expect(shown.get_by_role("button", name="Cancel…")).to_have_count(0)


def test_of_a_tracked_task_only_the_watching_stops(dashboard: Dashboard, client: Client) -> None:
    client.register("track-1", "clone", "vm1")
    dashboard.open("track-1").get_by_role("button", name="Stop watching…").click()
    dialog = dashboard.page.get_by_role("dialog")
    expect(dialog).to_contain_text("The work itself goes on")
    dialog.get_by_role("button", name="Stop watching").click()

    expect(dashboard.state("track-1")).to_have_text("cancelled")


def test_a_dead_callback_is_replayed(dashboard: Dashboard, client: Client) -> None:
    with Receiver([500, 500, 500]) as receiver:
        client.register("quick-told", "clone", "vm1", callback=receiver.url)
        dashboard.go("callbacks/dead")
        expect(dashboard.page.get_by_text("the last answered 500").first).to_be_visible()
        dashboard.go("tasks")
        shown = dashboard.open("quick-told")
        delivery = shown.get_by_role("article")
        delivery.locator("summary").click()
        expect(delivery.get_by_role("row")).to_have_count(4)

        delivery.get_by_role("button", name="Replay the callback succeeded").click()

        expect(delivery.locator(".state")).to_have_text("delivered")
        assert len({request.headers["webhook-id"] for request in receiver.wait(4)}) == 1


def test_a_callback_is_acknowledged(dashboard: Dashboard, client: Client) -> None:
    with Receiver(then=500) as receiver:
        client.register("quick-acked", "clone", "vm1", callback=receiver.url)
        delivery = dashboard.open("quick-acked").get_by_role("article")
        delivery.get_by_role("button", name="Acknowledge").click()

        expect(delivery.locator(".state")).to_have_text("acked")
        dashboard.go("callbacks/acked")
        expect(dashboard.page.get_by_role("link", name="Show its task").first).to_be_visible()


def test_filters_show_what_matches_and_nothing_else(dashboard: Dashboard, client: Client) -> None:
    client.register("sieve-1", "clone", "vm1", labels={"team": "sieve"})
    client.register("sieve-2", "backup", "vm1", labels={"team": "sieve"})
    client.register("sieve-3", "backup", "vm2", labels={"team": "sieve"})
    client.register("quick-sieve", "backup", "vm1", labels={"team": "sieve"})
    client.register("quick-strainer", "backup", "vm1", labels={"team": "strainer"})
    page = dashboard.page

    def shows(*names: str) -> None:
        expect(page.locator("table.tasks tbody th a")).to_have_text(list(names))

    page.get_by_label("Label").fill("team:sieve")
    client.register("quick-sieve-2", "clone", "vm1")  # what is being typed outlives that the page moves
    expect(dashboard.row("quick-sieve-2")).to_be_visible()
    page.get_by_label("Label").press("Enter")
    shows("quick-sieve", "sieve-3", "sieve-2", "sieve-1")
    page.get_by_label("State").select_option("succeeded")
    shows("quick-sieve")
    page.get_by_label("State").select_option("live")
    shows("sieve-3", "sieve-2", "sieve-1")
    page.get_by_label("Action").select_option("backup")
    shows("sieve-3", "sieve-2")
    page.get_by_label("Zone").select_option("vm2")
    shows("sieve-3")
    client.register("sieve-4", "backup", "vm2", labels={"team": "sieve"})
    client.register("sieve-5", "backup", "vm1", labels={"team": "sieve"})
    shows("sieve-4", "sieve-3")
    dashboard.find("-4")
    shows("sieve-4")
    dashboard.find("nothing like this")
    expect(page.get_by_text("No task matches these filters.")).to_be_visible()
    dashboard.button("Clear").click()
    expect(dashboard.row("sieve-5")).to_be_visible()
    assert page.get_by_label("Label").input_value() == ""


def test_a_filter_is_left_and_entered_as_tasks_move(dashboard: Dashboard, client: Client) -> None:
    page = dashboard.page
    dashboard.find("moves-")
    page.get_by_label("State").select_option("running")
    client.register("moves-1", "clone", "vm1", params={"finish_after": 1})
    expect(dashboard.row("moves-1")).to_be_visible()
    expect(dashboard.row("moves-1")).to_have_count(0)
    page.get_by_label("State").select_option("succeeded")
    expect(dashboard.row("moves-1")).to_be_visible()
    client.register("moves-2", "clone", "vm1", params={"finish_after": 0.1})
    expect(dashboard.row("moves-2")).to_be_visible()


def test_zones_tell_their_trouble_and_can_be_paused(dashboard: Dashboard, client: Client) -> None:
    client.register("far-1", "clone", "vm2")
    dashboard.page.get_by_role("link", name="Zones in trouble").click()
    far = dashboard.page.get_by_role("article", name="vm2")
    expect(far.locator(".state")).to_have_text("unreachable")
    expect(far.locator(".trouble")).to_contain_text("does not answer")

    dashboard.button("Pause local").click()
    dashboard.page.get_by_role("dialog").get_by_role("button", name="Pause the zone").click()
    expect(dashboard.page.get_by_role("article", name="local").locator(".state")).to_have_text("paused")
    assert {zone["zone"]: zone["state"] for zone in client.zones()}["local"] == "paused"
    dashboard.button("Resume local").click()
    expect(dashboard.page.get_by_role("article", name="local").locator(".state")).to_have_text("idle")


def test_the_keyboard_alone_is_enough(dashboard: Dashboard, client: Client) -> None:
    for number in range(3):
        client.register(f"keys-{number}", "clone", "vm1", params={})
    page = dashboard.page
    page.keyboard.press("Tab")
    assert dashboard.focused() == "Skip to the content"
    page.keyboard.press("/")
    assert dashboard.focused() == "find"
    page.keyboard.type("keys-")
    expect(page.locator("table.tasks tbody th a")).to_have_text(["keys-2", "keys-1", "keys-0"])
    for _ in range(6):  # state, zone, action, label, clear, and into the list
        page.keyboard.press("Tab")
    assert dashboard.focused() == "keys-2"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    eventually("the middle row has the focus", lambda: dashboard.focused() == "keys-1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="keys-1")).to_be_focused()
    page.keyboard.press("Tab")  # close
    page.keyboard.press("Tab")
    assert dashboard.focused() == "Cancel…"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dashboard.state("keys-1")).to_have_text("cancelled")
    expect(page.locator("#said")).to_have_text("keys-1: asked to cancel")
    page.locator("#task-name").focus()
    page.keyboard.press("Escape")
    eventually("the focus is back in the list", lambda: dashboard.focused() == "keys-1")


def test_updates_take_neither_the_focus_nor_the_place(dashboard: Dashboard, client: Client) -> None:
    for number in range(40):
        client.register(f"place-{number:02}", "clone", "vm1", params={"finish_after": 60})
    dashboard.find("place-")
    expect(dashboard.page.locator("#count")).to_have_text("40 tasks")
    dashboard.row("place-20").scroll_into_view_if_needed()
    link = dashboard.row("place-20").get_by_role("link")
    link.focus()
    before = link.bounding_box()
    for number in range(5):
        client.register(f"place-new-{number}", "clone", "vm1")
    expect(dashboard.page.locator("#count")).to_have_text("45 tasks")

    assert dashboard.focused() == "place-20"
    after = link.bounding_box()
    assert before
    assert after
    assert abs(before["y"] - after["y"]) < 2


def test_activity_is_drawn_and_told_in_words(dashboard: Dashboard, client: Client) -> None:
    client.register("quick-counted", "clone", "vm1")
    dashboard.go("activity")
    chart = dashboard.page.get_by_role("img", name="Tasks a minute")

    expect(chart.locator("canvas")).to_have_count(1)
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte)"
    eventually("something is drawn", lambda: chart.locator("canvas").evaluate(drawn))
    eventually("the words tell it", lambda: " 0 registered" not in (chart.get_attribute("aria-label") or " 0 registered"))


@pytest.mark.parametrize("look", [{}, {**PHONE, **DARK}], ids=["light and wide", "dark and narrow"])
def test_nothing_shuts_anybody_out(opened: Opened, client: Client, look: dict[str, object]) -> None:
    with Receiver(then=500) as receiver:
        task = client.register(f"full-axe-{len(look)}", "clone", "vm1", callback=receiver.url, params={"fail_at": 10})
        client.register("far-axe", "clone", "vm2")
        dashboard = opened(**look)
        page = dashboard.page
        expect(dashboard.state(task.id)).to_have_text("failed")
        found = {"tasks": dashboard.violations()}
        for view, there in (
            (f"tasks/{task.uid}", page.locator(".delivery")),
            ("zones", page.locator(".card.unreachable")),
            ("callbacks/dead", page.locator(".delivery").first),
            ("activity", page.locator("canvas").first),
        ):
            dashboard.go(view)
            expect(there).to_be_visible()
            found[view] = dashboard.violations()
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{view} is {wide} pixels wider than the window"

    assert {view: each for view, each in found.items() if each} == {}


def test_a_dialog_shuts_nobody_out(dashboard: Dashboard, client: Client) -> None:
    client.register("run-asked", "clone", "vm1", params={})
    dashboard.open("run-asked").get_by_role("button", name="Cancel…").click()
    expect(dashboard.page.get_by_role("dialog")).to_be_visible()

    assert dashboard.violations() == []


def test_the_dark_is_dark(dashboard: Dashboard) -> None:
    def ground() -> int:
        color: str = dashboard.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")))

    assert ground() > 600
    dashboard.page.emulate_media(color_scheme="dark")
    assert ground() < 100


def test_on_a_phone_a_task_covers_the_list_and_gives_it_back(opened: Opened, client: Client) -> None:
    client.register("pocket", "clone", "vm1")
    dashboard = opened(**PHONE)
    shown = dashboard.open("pocket")
    expect(dashboard.page.locator("table.tasks")).not_to_be_visible()
    shown.get_by_role("button", name="Close the task").click()
    expect(dashboard.page.locator("table.tasks")).to_be_visible()


def test_a_task_that_is_not_there_is_told(dashboard: Dashboard) -> None:
    dashboard.expected = "404"
    dashboard.go("tasks/01a1feb0-0d14-7098-bf1c-b070c1de2b93")

    expect(dashboard.page.get_by_role("heading", name="Cannot show this task")).to_be_visible()


def test_the_page_says_when_the_daemon_is_away_and_goes_on_when_it_is_back(browser: Browser, short_path: Path) -> None:
    with Daemon(short_path, CONFIG) as daemon, bridged(daemon.socket) as bridge:
        dashboard = Dashboard(browser, bridge)
        with daemon.client() as client:
            client.register("before", "clone", "vm1")
            expect(dashboard.row("before")).to_be_visible()
        daemon.kill()
        expect(dashboard.page.get_by_role("alert")).to_contain_text("the page goes on trying")
        daemon.start()
        expect(dashboard.page.get_by_role("alert")).to_have_count(0)
        with daemon.client() as client:
            client.register("after", "clone", "vm1")
        expect(dashboard.row("after")).to_be_visible()
        expect(dashboard.row("before")).to_be_visible()
        dashboard.expected = "502"
        dashboard.close()
