"""5,000 tasks in the page: it stays quick, and the document small. (About 15 s.)"""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from playwright.sync_api import Browser, expect

from tests.client.dashboard.conftest import bridged
from tests.client.dashboard.page import Dashboard
from tests.daemons import Daemon

CONFIG = """
[zones.vm1]
backend = "simulated"
poll_interval = 1
[[zones.vm1.scenario]]
id = "brief-*"
finish_after = 0.1
[[zones.vm1.scenario]]
id = "*"
finish_after = 3000
"""
MANY = 5000
ROWS = 120  # more than are ever in view with what is kept beside
BOUND = 1000  # milliseconds; five times what a machine with nothing else to do needs, and far below what all rows would

WATCH = """() => {
    window.longest = 0;
    const note = list => { for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration); };
    new PerformanceObserver(note)
        .observe({ type: "longtask" });
}"""
SCROLL = """async () => {
    const box = document.querySelector(".box");
    let rows = 0;
    for (let step = 1; step <= 60; step += 1) {
        box.scrollTop = box.scrollHeight * step / 60;
        await new Promise(requestAnimationFrame);
        rows = Math.max(rows, document.querySelectorAll("table.tasks tbody tr").length);
    }
    return rows;
}"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[Daemon]:
    home = Path(mkdtemp(prefix="td-"))
    with Daemon(home, CONFIG) as daemon:
        with daemon.client() as client:
            for first in range(0, MANY, 1000):
                client.register_many([{"id": f"disk-{first + n}", "action": "clone", "zone": "vm1"} for n in range(1000)])
        yield daemon
    rmtree(home, ignore_errors=True)


def test_five_thousand_tasks_are_shown_without_a_jolt(crowded: Daemon, browser: Browser) -> None:
    with bridged(crowded.socket) as bridge, crowded.client() as client:
        dashboard = Dashboard(browser, bridge)
        page = dashboard.page
        expect(page.locator("#count")).to_have_text("5,000 tasks")
        page.evaluate(WATCH)

        rows = page.evaluate(SCROLL)
        expect(dashboard.row("disk-0")).to_be_visible()
        client.register_many([{"id": f"brief-{n}", "action": "clone", "zone": "vm1"} for n in range(500)])
        expect(page.locator("#count")).to_have_text("5,500 tasks")
        dashboard.find("brief-499")
        expect(dashboard.state("brief-499")).to_have_text("succeeded")
        dashboard.find("disk-2500")
        expect(dashboard.row("disk-2500")).to_be_visible()
        longest = page.evaluate("window.longest")
        dashboard.close()

    assert 10 < rows < ROWS
    assert longest < BOUND


def test_the_last_of_many_is_reached_by_keyboard(crowded: Daemon, browser: Browser) -> None:
    with bridged(crowded.socket) as bridge:
        dashboard = Dashboard(browser, bridge)
        dashboard.find("disk-")
        expect(dashboard.page.locator("#count")).to_have_text("5,000 tasks")
        dashboard.page.locator("table.tasks tbody a").first.focus()
        dashboard.page.keyboard.press("End")

        expect(dashboard.row("disk-0").get_by_role("link")).to_be_focused()
        assert dashboard.row("disk-0").get_attribute("aria-rowindex") == "5001"
        dashboard.close()
