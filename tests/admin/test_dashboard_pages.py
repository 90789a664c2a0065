"""The pages that say what went wrong and what came of it, in a real Chromium against the real server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import apsw
import pytest
from playwright.sync_api import Page

from tests.admin.browser import Watched, follow_link, launched
from tests.admin.dashboard import Dashboard, ask
from tests.commands import run_here
from tests.trust.server import wait_until

ROUTES = (
    "doctor", "doctor/installation", "reports", "reports?by=day,country&where=country%3DDE%0A&show=quality",
    "deliveries", "reconcile", "alarms",
)  # fmt: skip


KEY = "gydvyc1mfycvvpt0h9sp38tdze"

CATALOG = f"""
[[network]]
name = "Adnet"
key = "{KEY}"
currency = "USD"
[[source]]
name = "Ads"
[[offer]]
name = "Shoes"
network = "Adnet"
url = "https://shop.example/?sub={{click_id}}"
[[campaign]]
name = "Push"
slug = "push"
source = "Ads"
offers = ["Shoes"]
[[target]]
name = "Told"
url = "http://127.0.0.1:9/?c={{source_click_id}}"
"""


class Place(NamedTuple):
    server: Dashboard
    watched: Watched
    click_ids: list[str]
    """Of visitors of the campaign."""

    @property
    def page(self) -> Page:
        return self.watched.page

    def open(self, route: str) -> Page:
        return self.watched.open(self.server.base, route)

    def send(self, click_id: str, transaction: str, value: str = "10.00") -> None:
        assert ask(self.server, f"/p/{KEY}?click_id={click_id}&txid={transaction}&value={value}")[0] == 200


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("pages")
    catalog = directory / "catalog.toml"
    catalog.write_text(CATALOG, "utf-8")
    done = run_here(directory / "data", "apply", "--yes", str(catalog))
    assert done.returncode == 0, done.stderr
    with launched() as browser, Dashboard(directory / "data") as server:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
        context.set_default_timeout(10_000)
        watched = Watched(context)
        follow_link(watched.page, server.link())
        wait_until(lambda: ask(server, "/c/push")[0] == 302, 10, "the campaign in the front door")
        click_ids = [ask(server, "/c/push")[1].rpartition("=")[2] for _ in range(6)]
        yield Place(server, watched, click_ids)


def test_the_doctor_names_the_hop_of_a_broken_macro_and_counts_what_can_be_repaired(place: Place) -> None:
    hostile = "<img src=x onerror=document.title='taken'>"
    place.send(quote(hostile), "T-0")
    place.send("%7Bclick_id%7D", "T-1")
    place.send(f"aff_{place.click_ids[0]}", "T-2")
    page = place.open("doctor")
    finding = page.locator("details.finding", has_text="macro literal")
    finding.wait_for()
    if finding.get_attribute("open") is None:
        finding.locator("summary").press("Enter")
    broken = finding.locator(".chain .broken")
    assert "Adnet: broken here" in broken.inner_text()
    assert "{click_id}" in finding.locator(".arrived").inner_text()
    assert KEY in finding.locator(".copy code").first.inner_text()

    page.locator("details.finding summary", has_text="click id foreign").click()
    page.locator(".arrived", has_text=hostile).wait_for()
    assert page.locator("main img").count() == 0

    page.get_by_role("button", name="Repair and replay 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Repair and replay").click()
    page.get_by_text("1 postback repaired and replayed").wait_for()
    page.get_by_text("None of 2 postbacks can be counted safely").wait_for()
    page.get_by_text("2 of 3 postbacks in the last 7 days were not counted").wait_for()


def upload(place: Place, export: Path, *rows: str) -> None:
    """Compare an export of two amounts on the page that is open."""
    export.write_text("\n".join(["Order;Sub;Payout;Bonus", *rows]), "utf-8")
    place.page.get_by_label("File", exact=True).set_input_files(export)
    place.page.get_by_role("button", name="Compare").click()
    place.page.get_by_role("heading", name=f"Adnet: {export.name}").wait_for()


def test_an_export_is_reconciled_read_in_another_way_and_what_is_missing_is_taken_in(
    place: Place, tmp_path: Path
) -> None:
    place.send(place.click_ids[1], "T-3")
    page = place.open("reconcile")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Choose the file.").wait_for()
    upload(
        place, tmp_path / "november.csv", f"T-3;{place.click_ids[1]};10,00;9,00", f"T-4;{place.click_ids[2]};20,00;9,00"
    )  # fmt: skip

    page.get_by_role("button", name="Read it in another way").click()
    page.get_by_label("Value", exact=True).select_option("Bonus")
    page.get_by_role("button", name="Compare again").click()
    page.get_by_role("row", name=re.compile("Value differs.*9.00 USD")).wait_for()
    page.get_by_role("button", name="Read it in another way").click()
    page.get_by_label("Value", exact=True).select_option("Payout")
    page.get_by_role("button", name="Compare again").click()

    missing = page.get_by_role("row", name=re.compile("Missing here.*20.00 USD"))
    missing.wait_for()
    missing.get_by_role("link", name="Missing here", exact=True).click()
    page.get_by_role("row", name=re.compile("T-4")).wait_for()
    page.get_by_role("link", name="All buckets").click()
    page.get_by_role("button", name="Import").click()
    page.get_by_text("1 of 1 row would be counted").wait_for()
    page.get_by_role("button", name="Import 1").click()
    page.get_by_text("1 conversion is counted now").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Close").last.click()
    place.open("reconcile")
    page.get_by_role("row", name=re.compile("november.csv.*Adnet")).wait_for()


def test_a_row_of_a_report_opens_what_is_behind_it_and_back_leads_up_again(place: Place) -> None:
    page, url = place.page, f"{place.server.base}/api/v1/reports/explore"
    wait_until(lambda: page.request.get(url).json()["lines"], 20, "the roll-ups")
    place.open("reports")
    page.get_by_role("button", name="Push").click()
    page.locator(".chip", has_text="campaign Push").wait_for()
    page.get_by_role("heading", name="By country").wait_for()
    page.go_back()
    page.get_by_role("heading", name="By campaign").wait_for()


def test_a_question_stands_in_the_address_and_is_kept_as_a_view(place: Place) -> None:
    page = place.open("reports")
    page.get_by_label("Group by", exact=True).nth(1).select_option("country")
    page.get_by_label("Period").select_option("30d")
    page.get_by_role("button", name="By click").click()
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Value", exact=True).fill("Push")
    page.get_by_label("Dimension").select_option("campaign")
    page.get_by_role("button", name="Add").click()
    for part in ("by=country", "period=30d", "clock=click", "where=campaign%3DPush"):
        assert part in page.url
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Name", exact=True).fill("Countries")
    page.get_by_role("button", name="Save this question").click()
    page.get_by_text("View Countries is saved").wait_for()
    place.open("reports?by=offer")
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="Countries").click()
    page.wait_for_url(re.compile("by=country"))
    address = page.get_by_role("link", name="CSV").get_attribute("href")
    answer = page.request.get(f"{place.server.base}{address}")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/csv")


def test_a_target_is_paused_with_a_reason_and_resumed(place: Place) -> None:
    page = place.open("deliveries")
    page.get_by_role("button", name="Pause Told").click()
    page.get_by_label("Why").fill("their server is down")
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("row", name=re.compile("paused their server is down")).wait_for()
    page.get_by_role("button", name="Cancel what waits").click()
    page.get_by_text("No delivery is waiting.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Resume Told").click()
    page.get_by_role("row", name=re.compile("Told active")).wait_for()


def test_a_pasted_url_is_told_what_is_wrong_with_it_and_how_it_should_read(place: Place) -> None:
    page = place.open("networks/Adnet")
    box = page.get_by_label("URL to check")
    box.fill(f"https://track.example.com/p/{KEY}?click_id={{aff_sub&amp;ip=anna@example.com&x=💰[y")
    told = page.get_by_label("Check a URL").locator(".lint")
    told.get_by_text("Mended below.").first.wait_for()
    assert [mark.inner_text() for mark in told.locator("mark").all()] == [
        "{aff_sub",
        "&amp;",
        "ip=anna@example.com",
        "x=💰[y",
    ]
    assert told.locator(".copy code").inner_text().endswith(f"/p/{KEY}?click_id={{aff_sub&x=💰[y")
    assert place.watched.barriers("networks/Adnet") == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert not place.watched.scrolls_sideways()
    page.set_viewport_size({"width": 1200, "height": 900})
    box.fill(f"https://track.example.com/p/{KEY}?click_id=[any]&value=[sum]")
    told.get_by_text("Nothing is wrong with it, as a postback URL for Adnet.").wait_for()

    place.open("sources/Ads").get_by_label("URL to check").fill(
        "https://track.example.com/c/pusch?sub1={zone}"
    )
    page.get_by_text("There is no campaign 'pusch'.").wait_for()


def test_the_address_of_an_offer_is_looked_at_while_it_is_written(place: Place) -> None:
    page = place.open("networks/Adnet")
    page.get_by_role("button", name="New offer").first.click()
    page.get_by_label("Address").fill("https://shop.example.com/?sub={clickid}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("https://shop.example.com/?sub={click_id}", exact=True).wait_for()
    page.get_by_label("Address").fill("https://shop.example.com/?sub={click_id}")
    dialog.locator(".lint mark").first.wait_for(state="detached")
    page.keyboard.press("Escape")


def test_an_urgent_alarm_stands_in_the_overview_which_calls_nothing_healthy_meanwhile(place: Place) -> None:
    click_id = ask(place.server, "/c/push")[1].rpartition("=")[2]
    place.send(click_id, "T-alarm")
    db = apsw.Connection(str(place.server.data_dir / "postbackd.db"))
    db.set_busy_timeout(10_000)
    now = time.time_ns() // 1_000_000
    for id_, kind, urgent in ((1, "backup", 0), (2, "disk", 1)):
        db.execute(
            "INSERT INTO alarms VALUES (?, ?, 'server', 0, ?, 'seen', 'normal', 'todo', ?, ?, 0, 0, NULL)",
            (id_, kind, urgent, now, now),
        )
    try:
        place.open("overview")
        place.page.reload()
        place.watched.settle()
        health = place.page.get_by_label("Health", exact=True)
        health.get_by_role("link", name="See what to do").first.wait_for()
        assert re.match("Urgent alarm: .*", health.locator("li").first.inner_text())
        assert health.locator("li", has_text="Alarm: ").count() >= 1
        assert "healthy:" not in health.inner_text()
    finally:
        db.execute("DELETE FROM alarms")
        db.close()


def test_no_test_notice_is_offered_where_nobody_would_hear_and_it_says_what_to_set(place: Place) -> None:
    page = place.open("alarms")
    page.get_by_text("Nobody outside is told").wait_for()
    assert page.get_by_role("button", name="Test notice").count() == 0


def test_each_page_passes_axe_in_both_themes_fits_a_phone_and_says_nothing_to_the_console(
    place: Place, tmp_path: Path
) -> None:
    page = place.page
    found: list[str] = []
    place.send(place.click_ids[5], "T-8")
    place.open("reconcile")
    upload(place, tmp_path / "december.csv", f"T-8;{place.click_ids[5]};10,00;9,00")
    kept = page.request.get(f"{place.server.base}/api/v1/reconcile").json()["items"][0]["id"]
    for route in (*ROUTES, f"reconcile/{kept}", f"reconcile/{kept}/agrees"):
        page.set_viewport_size({"width": 1200, "height": 900})
        place.open(route)
        found += place.watched.barriers(route)
        page.set_viewport_size({"width": 360, "height": 740})
        if place.watched.scrolls_sideways():
            found.append(f"{route} scrolls sideways")
    found += place.watched.errors
    assert not found, "\n".join(found)
