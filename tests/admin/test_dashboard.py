"""The dashboard in a real Chromium, against the real server: what somebody does with it, from the first link on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.admin.browser import PASSWORD, Watched, follow_link, launched, sign_in
from tests.admin.dashboard import Dashboard, ask
from tests.trust.server import run_cli, wait_until

CATALOG = """
[[network]]
name = "Partner"
key = "gydvyc1mfycvvpt0h9sp38tdze"
[[source]]
name = "Letters"
preset = "propellerads"
[[offer]]
name = "Hats"
network = "Partner"
url = "https://shop.example/?sub1={click_id}"
[[campaign]]
name = "Winter push"
slug = "winter-push"
source = "Letters"
offers = ["Hats"]
"""

ROUTES = {
    "overview": "Overview", "campaigns": "Campaigns", "campaigns/winter-push": "Winter push", "networks": "Networks",
    "networks?add=1": "Networks", "networks/Partner": "Partner", "sources": "Sources", "sources/Letters": "Letters",
    **dict.fromkeys(("live", "live?kind=clicks", "live?kind=deliveries"), "Live log"),
    **dict.fromkeys(("settings", "settings/users", "settings/tokens", "settings/audit", "settings/system",
                     "settings/options"), "Settings"),
}  # fmt: skip
"""And the heading of each: a page that says that something was not found has another one, or a refusal in it."""


class Place(NamedTuple):
    server: Dashboard
    browser: Browser
    context: BrowserContext
    """Of the owner."""
    page: Page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("dashboard")
    catalog = directory / "catalog.toml"
    catalog.write_text(CATALOG, "utf-8")
    done = run_cli(directory / "data", "apply", "--yes", str(catalog))
    assert done.returncode == 0, done.stderr
    with launched() as browser, Dashboard(directory / "data") as server:
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(10_000)
        page = context.new_page()
        follow_link(page, server.link())
        yield Place(server, browser, context, page)


def test_a_network_an_offer_a_source_and_a_campaign_are_set_up_by_hand_and_their_conversion_shows_live(
    place: Place,
) -> None:
    server, page = place.server, place.page
    page.get_by_role("link", name="Networks", exact=True).first.click()
    page.get_by_role("button", name="New network").first.click()
    page.get_by_label("Name").fill("Adnet")
    page.get_by_role("button", name="Add the network").click()
    page.get_by_role("heading", name="Adnet", level=1).wait_for()
    postback_url = page.locator(".copy code").first.inner_text()
    assert postback_url.startswith(f"http://127.0.0.1:{server.port}/p/")

    page.get_by_role("button", name="Send a test postback").click()
    page.get_by_text("It arrived and was answered").wait_for()

    page.get_by_role("button", name="New offer").first.click()
    page.get_by_label("Name").fill("Shoes")
    page.get_by_label("Address").fill("https://shop.example/?sub1={click_id}")
    page.get_by_role("button", name="Add the offer").click()
    page.get_by_text("https://shop.example/?sub1={click_id}").wait_for()

    page.goto(f"{server.base}/#/sources?add=1")
    page.get_by_label("Search presets of sources").fill("propeller")
    page.get_by_role("radio", name=re.compile("PropellerAds")).check()
    page.get_by_role("button", name="Add the source").click()
    page.get_by_role("heading", name="PropellerAds", level=1).wait_for()

    page.goto(f"{server.base}/#/campaigns?add=1")
    page.get_by_label("Name").fill("Summer push")
    page.get_by_role("button", name="Add the campaign").click()
    page.get_by_role("heading", name="Summer push", level=1).wait_for()
    link = page.locator(".copy code").first.inner_text()
    assert "source_click_id=${SUBID}" in link

    page.goto(f"{server.base}/#/live")
    page.get_by_text("live", exact=True).wait_for()
    path = link.partition(str(server.port))[2].partition("?")[0]
    wait_until(lambda: ask(server, path)[0] == 302, 10, "the campaign in the front door")
    click_id = ask(server, path)[1].rpartition("=")[2]
    filled = postback_url.replace("{click_id}", click_id).replace("{value}", "12.50").replace("{txid}", "T-1")
    assert ask(server, filled.partition(str(server.port))[2])[0] == 200
    page.get_by_role("cell", name="accepted").wait_for()
    page.get_by_role("row", name=re.compile("accepted")).click()
    story = page.get_by_role("dialog")
    story.get_by_text("12.50 USD").first.wait_for()
    assert click_id in story.inner_text()
    page.keyboard.press("Escape")
    story.wait_for(state="detached")


def test_a_wrong_entry_is_explained_at_its_field(place: Place) -> None:
    page = place.page
    page.goto(f"{place.server.base}/#/networks?add=1")
    page.get_by_label("Currency").fill("XYQ")
    page.get_by_label("Name").fill("Other")
    page.get_by_role("button", name="Add the network").click()
    field = page.get_by_label("Currency")
    page.locator("[aria-invalid=true]").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    page.goto("about:blank")


def test_a_dialog_that_closes_late_takes_nobody_back(place: Place) -> None:
    page = place.page
    page.goto(f"{place.server.base}/#/live")
    page.get_by_role("heading", level=1).wait_for()
    shown = page.evaluate(
        """async () => {
          const main = document.querySelector("script[type=module]").src;
          const { ask } = await import(main.replace(/[^/]*$/, "router.js"));
          location.hash = "#/networks?add=1";
          ask({ why: null });
          return location.hash;
        }"""
    )
    assert shown == "#/networks?add=1"
    page.get_by_label("Currency").wait_for()
    page.goto("about:blank")


def test_every_page_passes_axe_in_both_themes_and_says_nothing_to_the_console(place: Place) -> None:
    found: list[str] = []
    context = place.browser.new_context(
        storage_state=place.context.storage_state(), color_scheme="light",
        viewport={"width": 1200, "height": 900}, reduced_motion="reduce",
    )  # fmt: skip
    watched = Watched(context)
    page = watched.open(place.server.base, "overview")
    for route, heading in ROUTES.items():
        page.evaluate(f"location.hash = '#/{route}'")
        is_shown(watched, heading)
        found += watched.barriers(route)
        page.keyboard.press("Escape")
    context.close()
    found += watched.errors
    assert not found, "\n".join(found)


def is_shown(watched: Watched, heading: str) -> None:
    """The page itself, not one that says that there is none."""
    watched.settle()
    watched.page.get_by_role("heading", name=heading, level=1, exact=True).wait_for()
    assert watched.page.get_by_role("alert").count() == 0


def test_no_page_scrolls_sideways_on_a_phone(place: Place) -> None:
    context = place.browser.new_context(
        storage_state=place.context.storage_state(), viewport={"width": 360, "height": 740}
    )
    watched = Watched(context)
    wide = []
    for route, heading in ROUTES.items():
        watched.open(place.server.base, route)
        is_shown(watched, heading)
        if watched.scrolls_sideways():
            wide.append(route)
    page = watched.page
    page.get_by_role("button", name="More").click()
    page.get_by_role("link", name="Sources", exact=True).click()
    page.get_by_role("heading", name="Sources", level=1).wait_for()
    assert "open" not in (page.locator("#side").get_attribute("class") or "").split()
    context.close()
    assert wide == []


def test_whoever_is_not_signed_in_comes_back_to_the_page_that_was_asked_for(place: Place) -> None:
    context = place.browser.new_context()
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.goto(f"{place.server.base}/#/campaigns/winter-push")
    page.get_by_role("heading", name="Sign in").wait_for()
    page.get_by_label("Name", exact=True).fill("olga")
    page.get_by_label("Password", exact=True).fill("not her password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Winter push", level=1).wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto(f"{place.server.base}/#/overview")
    page.get_by_role("heading", name="Sign in").wait_for()
    sign_in(page, place.server.base)
    context.close()
