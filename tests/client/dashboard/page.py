"""The dashboard as a person has it before them; everything the browser complains about fails the test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from task_client.dashboard.bridge import Bridge

AXE = (Path(__file__).parents[2] / "data" / "axe" / "axe.min.js").read_text()
WITHIN = 20_000  # milliseconds; bounds every wait here
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

expect.set_options(timeout=WITHIN)


class Dashboard:
    """One open page. `close` fails with what the browser complained about, but for what has the word `expected` in it."""

    def __init__(self, browser: Browser, bridge: Bridge, **settings: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **settings})
        self._context.set_default_timeout(WITHIN)
        self.page: Page = self._context.new_page()
        self.expected: str | None = None
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(bridge.link)
        expect(self.page.locator("#count")).not_to_have_text("Loading…")
        self.address = self.page.url.partition("#")[0]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location})")

    def close(self) -> None:
        self._context.close()
        complaints = [text for text in self.complaints if self.expected is None or self.expected not in text]
        assert not complaints, "\n".join(complaints)

    def go(self, view: str) -> None:
        """To `tasks`, `tasks/<uid>`, `zones`, `callbacks/dead`, `activity`."""
        self.page.goto(f"{self.address}#/{view}")

    def find(self, text: str) -> None:
        self.page.get_by_label("Find").fill(text)

    def row(self, name: str) -> Locator:
        return self.page.locator("table.tasks tbody tr", has=self.page.get_by_role("link", name=name, exact=True))

    def state(self, name: str) -> Locator:
        return self.row(name).locator(".state")

    def names(self) -> list[str]:
        return self.page.locator("table.tasks tbody th a").all_inner_texts()

    def open(self, name: str) -> Locator:
        """Show one task; answers the part of the page that shows it."""
        self.row(name).get_by_role("link").click()
        shown = self.page.get_by_role("complementary", name=name)
        expect(shown.get_by_role("heading", name="History")).to_be_visible()
        return shown

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def focused(self) -> str:
        found: str = self.page.evaluate("document.activeElement.innerText || document.activeElement.id")
        return found

    def violations(self) -> list[str]:
        """What axe finds wrong for people who cannot see or point, or see little."""
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {AXE} }} }}")
        found = self.page.evaluate("tags => axe.run(document, { runOnly: tags })", TAGS)
        return [f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes']]}" for each in found["violations"]]


Opened = Callable[..., Dashboard]
