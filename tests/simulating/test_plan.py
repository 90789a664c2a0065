"""The market of a plan: the same from the same seed, to its end, and comparable at other rates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbackd.catalog.file import read_text
from postbackd.core.model import CatalogEntry, Channel
from postbackd.market.cast import NETWORKS
from postbackd.market.habits import HABITS, Heard, Urls, is_received, make_deaf, next_pause
from postbackd.market.losses import Losses
from postbackd.market.misconfigurations import MISCONFIGURATIONS
from postbackd.market.records import Call, Sale, Visit
from postbackd.simulating.agenda import Agenda, Try
from postbackd.simulating.catalog import MARK, SLUG, NoMarket, make_entries, read_book, write_catalog
from postbackd.simulating.plan import START_MS, Plan, events_of, with_blockers
from postbackd.simulating.planting import NotPlantable, read_faults
from postbackd.simulating.savings import foresee_savings

_PLACES = [role.name for role in NETWORKS]


def plans() -> st.SearchStrategy[Plan]:
    faults = st.lists(
        st.tuples(
            st.sampled_from([name for name, one in MISCONFIGURATIONS.items() if one.kind == "network"]),
            st.sampled_from(_PLACES),
        ),
        max_size=4,
        unique_by=lambda pair: pair[1],
    ).map(lambda pairs: read_faults(f"{name}@{place}" for name, place in pairs))
    rates = st.floats(0, 1)
    losses = st.builds(Losses, blockers=st.none() | rates, abandonment=rates, cookies=rates)
    return st.builds(
        Plan, seed=st.integers(0, 10**9), clicks=st.integers(50, 200), duration_s=st.integers(60, 20_000),
        faults=faults, losses=losses,
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(plan=plans())
def test_the_same_plan_makes_the_same_market_in_order_of_time(plan: Plan) -> None:
    events = list(events_of(plan))
    assert events == list(events_of(plan))
    assert [event.at_ms for event in events] == sorted(event.at_ms for event in events)
    visits = [event for event in events if isinstance(event, Visit)]
    assert all(START_MS <= visit.at_ms < plan.last_visit_ms for visit in visits)
    sold = {event.visit for event in events if isinstance(event, Sale)}
    assert sold == {visit.number for visit in visits if visit.converts}


def test_another_seed_makes_another_market() -> None:
    assert list(events_of(Plan(seed=1, clicks=60))) != list(events_of(Plan(seed=2, clicks=60)))


@settings(max_examples=15, deadline=None)
@given(plan=plans(), rates=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_more_blockers_cost_pixels_alone_and_of_the_same_buyers(
    plan: Plan, rates: tuple[float, float]
) -> None:
    few, many = sorted(rates)
    pixels = [_pixels(with_blockers(plan, rate)) for rate in (few, many)]
    assert pixels[1] <= pixels[0]
    low, high = foresee_savings(with_blockers(plan, few)), foresee_savings(with_blockers(plan, many))
    assert low[:2] == high[:2]


def _pixels(plan: Plan) -> set[int]:
    """The sales of which a pixel tells."""
    calls = (event for event in events_of(plan) if isinstance(event, Call))
    return {call.sale for call in calls if call.channel is Channel.PIXEL}


def test_without_blockers_abandonment_and_lost_cookies_every_sale_is_known_by_its_pixel() -> None:
    plan = Plan(clicks=400, losses=Losses(blockers=0.0, abandonment=0.0, cookies=0.0))
    truth, _, pixel = foresee_savings(plan)
    assert truth.sales == pixel.sales > 0
    everything = Plan(clicks=400, losses=Losses(blockers=1.0))
    assert foresee_savings(everything)[2].sales == 0


def test_a_network_that_tries_again_goes_between_the_others_in_order_of_time() -> None:
    agenda = Agenda(events_of(Plan(clicks=60)))
    seen: list[int] = []
    again = 0
    while (step := agenda.pop()) is not None:
        seen.append(step.at_ms)
        if isinstance(step, Try) and step.turn < 3:
            again += 1
            agenda.add(Try(step.at_ms + 60_000, step.call, step.number, step.turn + 1))
    assert again
    assert seen == sorted(seen)


# --- habits --------------------------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(sorted(HABITS)), status=st.sampled_from([0, 200, 204, 302, 404, 422, 500, 503]),
    said_ok=st.booleans(),
)  # fmt: skip
def test_every_network_stops_some_day_and_at_once_when_it_is_content(
    name: str, status: int, said_ok: bool
) -> None:
    habit, heard = HABITS[name], Heard(status, said_ok)
    turns = 1
    while (pause := next_pause(habit, heard, turns)) is not None:
        assert pause >= 0
        turns += 1
    assert turns <= len(habit.pauses_s) + 1
    if is_received(habit, heard):
        assert turns == 1


@pytest.mark.parametrize(
    ("name", "heard", "turns"),
    [
        ("branch", Heard(0), 2),
        ("branch", Heard(503), 1),
        ("appsflyer", Heard(503), 5),
        ("appsflyer", Heard(404), 1),
        ("appmetrica", Heard(204), 289),
        ("singular", Heard(500), 6),
        ("affise", Heard(404), 5),
        ("affise", Heard(204), 1),
        ("involve", Heard(500), 1),
        ("everflow", Heard(422), 26),
        ("digistore", Heard(200, said_ok=False), 4),
        ("digistore", Heard(200, said_ok=True), 1),
    ],
)
def test_networks_try_again_as_their_documentation_says(name: str, heard: Heard, turns: int) -> None:
    tried = 1
    while next_pause(HABITS[name], heard, tried) is not None:
        tried += 1
    assert tried == turns


def test_a_network_that_hears_nothing_tries_again_whatever_it_is_told() -> None:
    deaf = make_deaf(HABITS["involve"])
    assert [next_pause(deaf, Heard(200, said_ok=True), turn) for turn in (1, 2, 3)] == [60, 600.0, None]


def test_urls_are_switched_off_after_nine_failures_in_a_row_or_when_a_network_is_tired() -> None:
    urls, involve, everflow = Urls(), HABITS["involve"], HABITS["everflow"]
    heard = [*[Heard(500)] * 8, Heard(200), *[Heard(500)] * 9]
    assert [urls.note("a", involve, one, tired=True) for one in heard] == [False] * 17 + [True]
    assert not urls.note("b", everflow, Heard(500), tired=False)
    assert urls.note("b", everflow, Heard(500), tired=True)
    assert urls.off == {"a", "b"}


# --- the catalog and the faults ------------------------------------------------------------------------------------


def test_everything_in_the_catalog_says_that_it_is_simulated() -> None:
    catalog = make_entries(lambda: "k" * 26)
    entries: tuple[CatalogEntry, ...] = (
        *catalog.networks, *catalog.sources, *catalog.offers, *catalog.campaigns,
    )  # fmt: skip
    assert all(entry.name.endswith(MARK) for entry in entries)
    assert all(campaign.slug.startswith(SLUG) for campaign in catalog.campaigns)
    assert all(len(campaign.offers) == 1 for campaign in catalog.campaigns)
    assert (catalog.targets, catalog.rules) == ((), ())


def test_a_catalog_file_is_read_back_and_half_of_one_is_refused() -> None:
    text = write_catalog(lambda: "k" * 26)
    book = read_book(read_text(text, "market.toml"))
    assert set(book.keys) == set(_PLACES)
    assert {link.slug for link in book.links.values()} == {row.slug for row in make_entries(str).campaigns}
    with pytest.raises(NoMarket, match="simulate catalog"):
        read_book(read_text(text.replace("sim-vpn-ww", "vpn"), "market.toml"))
    with pytest.raises(NoMarket, match="Bluepeak"):
        read_book(read_text(text.replace("Bluepeak", "Redpeak"), "market.toml"))


def test_a_fault_is_planted_where_and_when_it_is_said() -> None:
    (fault,) = read_faults(["Macro_Literal@cobalt-leads+6h"])
    assert (fault.name, fault.where, fault.since_ms) == (
        "macro_literal", "Cobalt Leads", START_MS + 6 * 3_600_000,
    )  # fmt: skip
    with pytest.raises(NotPlantable):
        read_faults(["macro_literal@"])
