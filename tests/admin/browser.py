"""A real Chromium beside a test, and what it tells of a page: messages, violations of the policy, what scrolls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.deploy.tools import need

PROGRAM = shutil.which("chromium") or "/usr/bin/chromium"

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

AXE = Path(__file__).parent / "vendor" / "axe.min.js"

PASSWORD = "seven quiet harbours"


@contextmanager
def launched() -> Iterator[Browser]:
    """One browser; skips where there is none."""
    need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page whose messages are kept."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.errors.append(f"{message.type}: {message.text}")

    def open(self, base: str, route: str) -> Page:
        """Show a page of the dashboard and wait until nothing of it is on its way any more."""
        self.page.goto(f"{base}/#/{route}")
        self.settle()
        return self.page

    def settle(self) -> None:
        self._draw()  # the page that was left is still there for a frame
        self.page.wait_for_selector("h1", state="attached")
        bones = self.page.locator(".bone")
        while bones.count():
            bones.first.wait_for(state="detached")

    def _draw(self) -> None:
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wear(self, theme: str) -> None:
        """Show the page in the colours of a theme; whoever reduces motion gets them at once."""
        self.page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)

    def barriers(self, route: str) -> list[str]:
        """What axe calls serious in the page that is shown, in both themes; ``route`` is named beside it."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text("utf-8"))
        found: list[str] = []
        for theme, rules in (("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")):
            self.wear(theme)
            result = self.page.evaluate(f"axe.run(document, {rules})")
            found += [
                f"{theme} {route}: {one['id']} {one['nodes'][0]['html'][:160]}"
                for one in result["violations"]
                if one["impact"] in ("serious", "critical")
            ]
        return found

    def scrolls_sideways(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def follow_link(page: Page, link: str, name: str = "olga", password: str = PASSWORD) -> None:
    """Choose a name and a password, as the first owner does."""
    page.goto(link)
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_label("The same password again").fill(password)
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()


def sign_in(page: Page, base: str, name: str = "olga", password: str = PASSWORD) -> None:
    page.goto(f"{base}/#/sign-in")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
