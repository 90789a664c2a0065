"""Purges, hostile texts, poisoned rows, the catalog, counts of the front door, and life after a failure."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from postbackd.core.model import CatalogEntry, ClickRef, Network, Offer, Postback, Source
from postbackd.store.base import Batch, CatalogConflict, FlowMinute, Purgeable
from tests.store.contract import World

DAY_S = 86_400

# --- purge --------------------------------------------------------------------------------------------------


def purge_step(world: World, age_s: float, limit: int) -> int:
    return world.run(world.store.purge(world.now_ms - int(age_s * 1000), limit))


def purge(world: World, age_s: float) -> int:
    """Purge until nothing is left; returns how many rows went."""
    purged = 0
    while step := purge_step(world, age_s, 1000):
        purged += step
    return purged


def test_a_purge_deletes_old_clicks_and_log_rows_and_keeps_conversions(world: World) -> None:
    old, young = world.click(own_id="old", age_s=20 * DAY_S), world.click(age_s=60)
    first = world.send(old, "txid=T")
    world.send(young, "txid=T")
    assert purge(world, 10 * DAY_S) > 0
    assert world.query("click", click_id=old.stamp) == []
    assert world.query("own_id", own_id="old") == []
    assert world.query("click", click_id=young.stamp) != []
    assert [row["conversion_id"] for row in world.conversions(old)] == [first.conversion]
    assert len(world.query("log")) == 2
    world.now_ms += 30 * DAY_S * 1000
    purge(world, DAY_S)
    assert world.query("log") == []
    assert len(world.conversions(young)) == 1


def test_a_conversion_outlives_its_click(world: World) -> None:
    click = world.click(age_s=20 * DAY_S)
    first = world.send(click, "txid=T&status=pending&value=5")
    purge(world, 10 * DAY_S)
    assert world.send(click, "txid=T&status=pending") == ("duplicate", "", first.conversion)
    assert world.send(click, "txid=T&status=approved") == ("updated", "", first.conversion)
    assert world.send(click, "txid=other")[:2] == ("unmatched", "click_purged")
    assert world.conversion(click) == ("approved", 5, 1)


def test_a_genuine_id_older_than_the_purge_is_purged_and_a_younger_one_not_yet_seen(world: World) -> None:
    old, lost = world.click(age_s=20 * DAY_S), world.make_click(age_s=5 * DAY_S)
    purge(world, 10 * DAY_S)
    assert world.send(old, "txid=T")[:2] == ("unmatched", "click_purged")
    assert world.send(lost, "txid=T")[:2] == ("unmatched", "click_not_yet_seen")


def test_a_purge_goes_in_steps_and_ends(world: World) -> None:
    for _ in range(25):
        world.click(age_s=20 * DAY_S)
    left = [25]
    while purge_step(world, 10 * DAY_S, 10):
        left.append(world.run(world.store.count_purgeable(world.now_ms - 10 * DAY_S * 1000)).clicks)
    assert left == sorted(set(left), reverse=True)
    assert left[-1] == 0
    assert len(left) <= 4


def test_what_could_be_purged_is_counted_and_the_rest_is_not(world: World) -> None:
    before_ms = world.now_ms - 10 * DAY_S * 1000
    assert world.run(world.store.count_purgeable(before_ms)) == Purgeable(0, 0, exact=True)
    for _ in range(3):
        world.click(age_s=20 * DAY_S)
    world.send(world.click(age_s=60), "txid=T")
    found = world.run(world.store.count_purgeable(before_ms))
    assert found.clicks == 3 if found.exact else 1 <= found.clicks <= 3
    assert found.postbacks == 0


def test_the_horizon_of_a_purge_never_goes_back(world: World) -> None:
    old = world.click(age_s=20 * DAY_S)
    purge(world, 10 * DAY_S)
    purge(world, 40 * DAY_S)
    assert world.send(old, "txid=T").reason == "click_purged"


def test_a_purged_postback_waits_no_longer(world: World) -> None:
    click = world.make_click()
    world.send(click, "txid=T")
    world.now_ms += 30 * DAY_S * 1000
    purge(world, DAY_S)
    world.write([click])
    assert world.conversions(click) == []


# --- the largest stamp --------------------------------------------------------------------------------------


def test_the_last_stamp_is_the_largest_of_clicks_and_requests_and_outlives_a_purge(world: World) -> None:
    assert world.run(world.store.last_stamp()) == 0
    click = world.click(age_s=0)
    assert world.run(world.store.last_stamp()) == click.stamp
    postback = world.make(click)
    world.settle(postback)
    assert world.run(world.store.last_stamp()) == postback.request.request_id
    world.now_ms += 30 * DAY_S * 1000
    purge(world, DAY_S)
    world.reopen()
    assert world.run(world.store.last_stamp()) >= postback.request.request_id


# --- texts and poison ---------------------------------------------------------------------------------------


TEXTS = [
    "日本語",
    "\N{GRINNING FACE}",
    "e\u0301",
    "\ufeff",
    "'; DROP TABLE postbacks; --",
    "%00",
    "x" * 128,
    "\ufffe",
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.own_clicks
def test_any_text_is_a_transaction_id_and_comes_back_as_it_was(world: World, text: str) -> None:
    click = world.click()
    first = world.send(click, f"txid={text}")
    assert first.verdict == "accepted"
    assert world.send(click, f"txid={text}") == ("duplicate", "", first.conversion)
    (row,) = world.conversions(click)
    if "%" not in text:
        assert row["transaction_id"] == text.strip()


@pytest.mark.own_clicks
def test_texts_that_differ_by_accents_or_case_are_different_transactions(world: World) -> None:
    click = world.click()
    for text in ("\u00e9", "e\u0301", "E\u0301", "e"):
        assert world.send(click, f"txid={text}").verdict == "accepted"


def poisons(world: World, healthy: Postback) -> list[Postback]:
    """Postbacks that no database can store; the front door never makes one."""
    request = healthy.request
    return [
        replace(healthy, transaction_id="\ud800", transaction_text="\ud800"),
        replace(healthy, time_text="\udfff"),
        replace(healthy, terms=replace(healthy.terms, value_micros=1 << 70)),
        replace(healthy, request=replace(request, body_bytes=1 << 70)),
        replace(healthy, click=ClickRef(own_id="\ud800")),
    ]


def test_a_poisoned_row_is_rejected_and_does_not_fail_its_neighbours(world: World) -> None:
    click = world.click()
    for index in range(5):
        healthy = [world.make(click, f"txid={index}-{n}") for n in range(40)]
        poisoned = poisons(world, world.make(click, f"txid=p{index}"))[index]
        if poisoned.request.body_bytes > 1 << 60:
            continue  # its row cannot be stored in any form
        said = world.settle(*healthy[:17], poisoned, *healthy[17:])
        assert [s.verdict for s in said] == ["accepted"] * 17 + ["rejected"] + ["accepted"] * 23
        assert said[17].reason == "body_malformed"
        assert world.row(poisoned)["verdict"] == 6


def test_a_poisoned_row_beside_clicks_does_not_fail_them(world: World) -> None:
    click, other = world.make_click(), world.make_click()
    poisoned = replace(world.make(click), time_text="\ud800")
    written = world.write([click, other], [poisoned, world.make(other, "txid=T")])
    assert list(written.clicks) == [click.stamp, other.stamp]
    assert [outcome.verdict.word for outcome in written.outcomes] == ["rejected", "accepted"]


# --- the catalog --------------------------------------------------------------------------------------------


def test_every_change_of_the_catalog_raises_its_generation_and_is_loaded(world: World) -> None:
    generations = [world.run(world.store.catalog_generation())]
    source = world.save(Source(id=0, name="another", fields={"sub1": ("kw",)}))
    generations.append(world.run(world.store.catalog_generation()))
    world.save(replace(source, name="renamed"))
    generations.append(world.run(world.store.catalog_generation()))
    world.remove(replace(source, name="renamed"))
    generations.append(world.run(world.store.catalog_generation()))
    assert generations == sorted(set(generations))
    catalog = world.run(world.store.load_catalog())
    assert catalog.generation == generations[-1]
    assert [entry.name for entry in catalog.sources] == ["ads"]
    assert catalog.campaigns == (world.campaign,)
    assert catalog.offers == (world.offer,)
    assert {network.name: network for network in catalog.networks} == world.networks
    assert len(catalog.signing_keys) == 1
    assert len(catalog.privacy_key) >= 16


def test_writing_does_not_raise_the_generation(world: World) -> None:
    before = world.run(world.store.catalog_generation())
    world.send(world.click(), "txid=T")
    assert world.run(world.store.catalog_generation()) == before


def test_keys_stay_the_same_after_a_restart(world: World) -> None:
    before = world.run(world.store.load_catalog())
    world.reopen()
    after = world.run(world.store.load_catalog())
    assert (after.signing_keys, after.privacy_key) == (before.signing_keys, before.privacy_key)


def test_a_change_that_contradicts_what_is_stored_is_refused_and_changes_nothing(world: World) -> None:
    before = world.run(world.store.load_catalog())
    contradictions: list[tuple[CatalogEntry, str]] = [
        (Network(id=0, name="ignore", key="new"), "exists already"),
        (Network(id=0, name="new", key="key-ignore"), "belongs to another"),
        (Offer(id=0, name="new", network=999, url="https://shop.example/"), "does not exist"),
    ]
    for entry, words in contradictions:
        with pytest.raises(CatalogConflict, match=words):
            world.run(world.store.save(entry))
    with pytest.raises(CatalogConflict, match="still used by"):
        world.remove(world.networks["ignore"])
    assert world.run(world.store.load_catalog()) == before


def test_a_removed_network_keeps_its_name_in_the_log(world: World) -> None:
    world.send(world.click(), "txid=T", "hold")
    world.remove(world.networks["hold"])
    (row,) = world.query("log")
    assert row["network_name"] == "hold"


def test_what_waits_for_a_click_of_a_removed_network_stays_unmatched(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T", "hold")
    world.settle(postback)
    world.remove(world.networks["hold"])
    world.reload()
    world.write([click])
    assert world.row(postback)["verdict"] == 5


# --- counts of the front door -------------------------------------------------------------------------------


def test_counts_of_the_same_minute_add_up(world: World) -> None:
    flow = [FlowMinute(100, {"not_found": 2}, {3: (1, 50), 4: (2, 130)}), FlowMinute(101, {"busy": 1}, {})]
    for _ in range(2):
        world.run(world.store.write(Batch(flow=flow), world.rulebook))
    counts = {row["kind"]: row["count"] for row in world.query("refusals")}
    assert counts == {"not_found": 4, "busy": 2}
    times = {row["bucket"]: (row["count"], row["total_us"]) for row in world.query("response_times")}
    assert times == {3: (2, 100), 4: (4, 260)}
    assert world.query("refusals", since=101) == [{"kind": "busy", "count": 2}]


def test_counts_travel_with_a_batch(world: World) -> None:
    click = world.make_click()
    batch = Batch([click], [world.make(click)], [FlowMinute(7, {"too_slow": 1}, {})])
    written = world.run(world.store.write(batch, world.rulebook))
    assert written.outcomes[0].verdict.word == "accepted"
    assert world.query("refusals") == [{"kind": "too_slow", "count": 1}]


def test_an_empty_batch_is_nothing(world: World) -> None:
    written = world.write()
    assert (list(written.clicks), list(written.outcomes)) == ([], [])


# --- recovery -----------------------------------------------------------------------------------------------


def test_a_healthy_store_recovers_and_has_lost_nothing(world: World) -> None:
    click = world.click()
    first = world.send(click, "txid=T")
    world.run(world.store.recover())
    assert world.send(click, "txid=T") == ("duplicate", "", first.conversion)


# --- rehearsals and stored postbacks ------------------------------------------------------------------------


def test_a_rehearsal_answers_as_a_write_would_and_stores_nothing(world: World) -> None:
    click = world.click()
    postback = world.make(click, "txid=T")
    for _ in range(2):
        written = world.run(world.store.rehearse(Batch((), [postback]), world.rulebook))
        assert written.outcomes[0].verdict.word == "accepted"
    assert world.conversions(click) == []
    assert world.query("log") == []
    assert world.settle(postback)[0].verdict == "accepted"


def test_a_stored_postback_is_loaded_so_that_it_can_be_replayed(world: World) -> None:
    world.networks["ignore"] = world.save(replace(world.networks["ignore"], types=("sale",)))
    world.reload()
    click = world.click()
    refused = world.make(click, "txid=T&type=lead&value=5&time=1749999990")
    assert world.settle(refused)[0][:2] == ("rejected", "type_not_allowed")
    world.networks["ignore"] = world.save(replace(world.networks["ignore"], types=()))
    world.reload()
    request_id = refused.request.request_id
    (stored,) = world.run(world.store.load_postbacks([request_id, 12345]))
    again = world.rulebook.judge_again(stored)
    assert again is not None
    assert world.settle(again) == [("accepted", "", request_id)]
    row = world.row(refused)
    assert (row["verdict"], row["first_verdict"], row["first_reason"]) == (1, 6, 17)
    (conversion,) = world.conversions(click)
    assert (conversion["type"], conversion["status_time_ms"]) == ("lead", 1_749_999_990_000)


# --- removed offers -----------------------------------------------------------------------------------------


def test_clicks_of_a_removed_offer_still_convert_within_its_window(world: World) -> None:
    world.offer = world.save(replace(world.offer, window_max_s=3600))
    early, late = world.click(age_s=60), world.click(age_s=7200)
    world.remove(world.campaign)
    world.remove(world.offer)
    world.reload()
    assert world.send(early, "txid=T").verdict == "accepted"
    assert world.send(late, "txid=T").reason == "click_after_window"
