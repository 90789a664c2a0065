"""The simulated market by itself: in order, repeatable, and as wrong as it says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise, takewhile

import pytest

from postbackd.core.click_id import KeyRing, stamp_ms
from postbackd.core.deliveries import Message
from postbackd.core.macros import compile_url
from postbackd.core.model import Channel, Network, Offer, SigningKey, Target
from postbackd.core.outgoing import compile_form
from postbackd.market.cast import CAMPAIGNS, NETWORKS, OFFERS
from postbackd.market.catalog import make_catalog
from postbackd.market.records import Call, Event, Sale, Spelling, Visit, write_query
from postbackd.market.simulation import Market

NOW_MS = 1_795_686_000_000
SEED, CLICKS = 3, 30_000
DAY_MS = 86_400_000


def month(seed: int = SEED, clicks: int = CLICKS) -> list[Event]:
    market = Market(seed, NOW_MS, clicks)
    return list(takewhile(lambda event: event.at_ms < NOW_MS, market.events()))


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return month()


def calls(events: list[Event], network: str, days: float = 30) -> list[Call]:
    """Server-to-server postbacks of the last so many days that are about a sale."""
    since_ms = NOW_MS - days * DAY_MS
    return [
        event
        for event in events
        if isinstance(event, Call)
        and (event.network, event.channel) == (network, Channel.S2S)
        and event.sale
        and event.at_ms >= since_ms
    ]


def test_everything_happens_in_order_within_thirty_days(events: list[Event]) -> None:
    assert all(before.at_ms <= after.at_ms for before, after in pairwise(events))
    assert NOW_MS - 31 * DAY_MS < events[0].at_ms < NOW_MS - 29.9 * DAY_MS
    assert NOW_MS - events[-1].at_ms < 600_000


def test_the_same_seed_tells_the_same_story_and_another_seed_another() -> None:
    assert month(clicks=2000) == month(clicks=2000)
    assert month(clicks=2000) != month(seed=SEED + 1, clicks=2000)


def test_there_are_about_as_many_visits_as_were_asked_for(events: list[Event]) -> None:
    visits = [event for event in events if isinstance(event, Visit)]
    assert len(visits) == pytest.approx(CLICKS, rel=0.03)
    assert [visit.number for visit in visits] == list(range(len(visits)))
    assert {visit.campaign for visit in visits} == {role.name for role in CAMPAIGNS}


def test_visitors_sleep_and_weekends_are_theirs(events: list[Event]) -> None:
    german = [e for e in events if isinstance(e, Visit) and e.campaign == "Insurance DE"]
    hours = Counter(datetime.fromtimestamp(visit.at_ms / 1000, UTC).hour for visit in german)
    assert hours[19] > 3 * hours[2]


def test_a_postback_comes_after_its_sale_and_a_sale_after_its_visit(events: list[Event]) -> None:
    visits = {event.number: event for event in events if isinstance(event, Visit)}
    sales = {event.number: event for event in events if isinstance(event, Sale)}
    assert len(sales) > 500
    for sale in sales.values():
        assert visits[sale.visit].converts
        assert sale.at_ms > visits[sale.visit].at_ms
    for event in events:
        if isinstance(event, Call) and event.sale:
            assert event.at_ms > sales[event.sale].at_ms


def test_each_fault_of_a_network_shows_in_its_postbacks_from_its_time_on(events: list[Event]) -> None:
    whole = {call.query.split("&")[0] for call in calls(events, "Cobalt Leads")}
    assert whole == {"cid={id}"}
    today = calls(events, "Bluepeak", days=1)
    assert today
    assert {call.query.split("&")[0] for call in today} == {"cid={aff_sub}"}
    assert {call.spelling for call in calls(events, "Fjord Offers", days=9)} == {Spelling.TRUNCATED}
    assert {call.spelling for call in calls(events, "Harbor CPA", days=5)} == {Spelling.DOUBLE_ENCODED}
    assert all("cid=&p1={id}" in call.query for call in calls(events, "Juniper Games", days=14))
    assert calls(events, "Kestrel Pay", days=5)
    assert not calls(events, "Kestrel Pay", days=22 / 24)


def test_a_session_that_timed_out_costs_the_ids_of_late_sales_of_one_landing_page(
    events: list[Event],
) -> None:
    visits = {event.number: event for event in events if isinstance(event, Visit)}
    since_ms = NOW_MS - 18 * DAY_MS
    offers = {role.name: role for role in OFFERS}
    lost: list[tuple[str, int]] = []
    kept: list[tuple[str, int]] = []
    for event in events:
        if isinstance(event, Sale) and event.at_ms >= since_ms:
            age_ms = event.at_ms - visits[event.visit].at_ms
            (lost if event.lost_by == "session_timeout" else kept).append((offers[event.offer].host, age_ms))
    assert {host for host, _ in lost} == {"go.brightpath.example"}
    assert min(age for _, age in lost) > 1_800_000
    assert max(age for host, age in kept if host == "go.brightpath.example") <= 1_800_000
    assert any(age > 1_800_000 for host, age in kept if host != "go.brightpath.example")


def test_ids_are_written_as_the_network_spells_them() -> None:
    keys = KeyRing([SigningKey(id=1, secret=b"k" * 32, active_from_ms=0)])
    click_id = keys.write(5 << 40, 7)

    def written(spelling: Spelling, query: str = "cid={id}&payout=1") -> str:
        return write_query(Call(0, "n", Channel.S2S, 0, query, spelling, 0, 1, "", ""), click_id)

    assert written(Spelling.WHOLE) == f"cid={click_id}&payout=1"
    assert written(Spelling.TRUNCATED) == f"cid={click_id[:20]}&payout=1"
    assert written(Spelling.DOUBLE_ENCODED) == f"cid=%2522{click_id}%2522&payout=1"
    assert written(Spelling.ABSENT, "cid={aff_sub}") == "cid={aff_sub}"


def test_nothing_of_the_catalog_can_reach_anybody() -> None:
    entries = make_catalog(lambda: "k" * 26)
    urls = [entry.url for entry in entries if isinstance(entry, Offer)]
    forms = [e.how.requests[Message.CONVERSION.word] for e in entries if isinstance(e, Target)]
    hosts = {compile_form(form, "drop", ()).host for form in forms}
    hosts |= {url.split("/")[2] for url in urls}
    assert len(hosts) > 12
    assert all(host.endswith(".example") for host in hosts)
    for url in urls:
        compile_url(url)
    assert sum(isinstance(entry, Network) for entry in entries) == len(NETWORKS)


def test_the_month_goes_on_after_its_end() -> None:
    market = Market(SEED, NOW_MS, 2000)
    later = list(takewhile(lambda event: event.at_ms < NOW_MS + 3 * DAY_MS, market.events()))
    assert later[-1].at_ms > NOW_MS + 2.9 * DAY_MS
    assert [event for event in later if event.at_ms < NOW_MS] == month(clicks=2000)
    assert stamp_ms(0) < later[0].at_ms
