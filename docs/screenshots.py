"""The pictures of the dashboard in docs/images/, taken anew in a real Chromium before a real daemon: `make screenshots`."""

import shutil
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.sync_api import Page, sync_playwright

from task_client import Client
from task_client.dashboard.bridge import Bridge
from tests.client.dashboard.conftest import CHROMIUM
from tests.daemons import Daemon
from tests.receivers import Receiver
from tests.waiting import eventually

IMAGES = Path(__file__).parent / "images"
CONFIG = """
[callbacks]
schedule = [0, 0.2, 0.2]
[zones.vm1]
backend = "simulated"
poll_interval = 0.5
answer_after = 0.012
scenario = [
    { id = "disk-31", fail_at = 50, finish_after = 4, message = "No space left on device" },
    { id = "disk-35", vanish_at = 70, finish_after = 5 },
    { action = "backup", finish_after = 90 },
    { action = "clone", finish_after = 45 },
    { finish_after = 0.5 },
]
[zones.vm2]
backend = "simulated"
poll_interval = 0.5
answer_after = 0.031
scenario = [{ finish_after = 30 }]
[zones.vault]
backend = "simulated"
poll_interval = 0.5
unreachable = [[4.0, 100000.0]]
"""


def fill(client: Client, good: str, bad: str) -> str:
    """A morning's work; answers the uid of the task whose receiver refuses."""
    for number in range(12):
        client.register(f"disk-{number}", "create_template", "vm1", callback=good, labels={"team": "images"})
    for number in range(12, 20):
        client.register(f"disk-{number}", "clone", "vm2", params={}, callback=good)
    client.register("archive-7", "restore_backup", "vault")
    for number in range(20, 30):
        client.register(f"disk-{number}", "backup", "vm1", params={}, callback=good, labels={"team": "nightly"})
    failing = client.register("disk-31", "backup", "vm1", callback=bad, labels={"team": "nightly"}).uid
    for number in range(32, 40):
        client.register(f"disk-{number}", "clone", "vm1", callback=good)
    return failing


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="td-"))
    with Receiver() as good, Receiver(then=500) as bad, Daemon(home, CONFIG) as daemon, daemon.client() as client:
        failing = fill(client, good.url, bad.url)
        eventually("the callback is dead", lambda: client.callbacks(failing, "dead"), 60)
        eventually("one is lost", lambda: next(client.list(state="lost"), None), 60)
        eventually("a zone is ill", lambda: any(zone["failures"] for zone in client.zones()), 60)
        with Bridge(daemon.socket) as bridge, sync_playwright() as playwright:
            threading.Thread(target=bridge.serve_forever, daemon=True).start()
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
            context = chromium.new_context(viewport={"width": 1280, "height": 760}, locale="en-GB")
            page = context.new_page()
            page.goto(bridge.link)
            page.wait_for_selector("table.tasks tbody a")
            take(page, failing)
            chromium.close()
            bridge.shutdown()
    shutil.rmtree(home)


def take(page: Page, failing: str) -> None:
    address = page.url.partition("#")[0]

    def picture(name: str, view: str, there: str, pause: int = 1500) -> None:
        page.goto(f"{address}#/{view}")
        page.wait_for_selector(there)
        page.wait_for_timeout(pause)  # until what moves has settled
        page.screenshot(path=str(IMAGES / f"dashboard-{name}.png"))

    picture("tasks", "tasks", "table.tasks tbody a")
    picture("task", f"tasks/{failing}", ".delivery")
    picture("zones", "zones", ".card.unreachable")
    picture("activity", "activity", "canvas", 20_000)
    page.emulate_media(color_scheme="dark")
    picture("dark", f"tasks/{failing}", ".delivery")
    page.set_viewport_size({"width": 390, "height": 760})
    picture("phone", "tasks", "table.tasks tbody a")


if __name__ == "__main__":
    main()
