"""The dashboard in a real Chromium, against the real server: what somebody does with it, from the first link on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.admin.browser import PASSWORD, Watched, follow_link, launched, sign_in
from tests.admin.dashboard import Dashboard, ask
from tests.trust.server import run_cli, wait_until

AXE = Path(__file__).parent / "vendor" / "axe.min.js"

ROUTES = (
    "overview", "live", "live?kind=clicks", "campaigns", "campaigns/summer-push", "networks", "networks?add=1",
    "networks/Adnet", "sources", "sources/PropellerAds", "settings", "settings/users", "settings/tokens",
    "settings/audit", "settings/system", "settings/options",
)  # fmt: skip


class Place(NamedTuple):
    server: Dashboard
    browser: Browser
    context: BrowserContext
    """Of the owner."""
    page: Page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with launched() as browser, Dashboard(tmp_path_factory.mktemp("dashboard") / "data") as server:
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


def test_every_page_passes_axe_in_both_themes_and_says_nothing_to_the_console(place: Place) -> None:
    script = AXE.read_text("utf-8")
    found: list[str] = []
    context = place.browser.new_context(
        storage_state=place.context.storage_state(), color_scheme="light",
        viewport={"width": 1200, "height": 900}, reduced_motion="reduce",
    )  # fmt: skip
    watched = Watched(context)
    page = watched.open(place.server.base, "overview")
    page.evaluate(script)
    for route in ROUTES:
        page.evaluate(f"location.hash = '#/{route}'")
        watched.settle()
        for theme, rules in (("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")):
            watched.wear(theme)
            result = page.evaluate(f"axe.run(document, {rules})")
            found += [
                f"{theme} {route}: {one['id']} {one['nodes'][0]['html'][:120]}"
                for one in result["violations"]
                if one["impact"] in ("serious", "critical")
            ]
        page.keyboard.press("Escape")
    context.close()
    found += watched.errors
    assert not found, "\n".join(found)


def test_no_page_scrolls_sideways_on_a_phone(place: Place) -> None:
    context = place.browser.new_context(
        storage_state=place.context.storage_state(), viewport={"width": 360, "height": 740}
    )
    watched = Watched(context)
    wide = []
    for route in ROUTES:
        watched.open(place.server.base, route)
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
    for made in (
        ("network", "add", "Back"),
        ("source", "add", "Back"),
        ("offer", "add", "Back", "--network", "Back", "--url", "https://shop.example/?s={click_id}"),
        ("campaign", "add", "Back again", "--source", "Back", "--offer", "Back"),
    ):
        done = run_cli(place.server.data_dir, *made)
        assert done.returncode == 0, done.stderr
    context = place.browser.new_context()
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.goto(f"{place.server.base}/#/campaigns/back-again")
    page.get_by_role("heading", name="Sign in").wait_for()
    page.get_by_label("Name", exact=True).fill("olga")
    page.get_by_label("Password", exact=True).fill("not her password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Back again", level=1).wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto(f"{place.server.base}/#/overview")
    page.get_by_role("heading", name="Sign in").wait_for()
    sign_in(page, place.server.base)
    context.close()
