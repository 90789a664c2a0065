"""Counted once, whatever arrives and however: the promises that every store keeps about conversions."""

from __future__ import annotations

import asyncio
from itertools import permutations
from threading import Barrier, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from postbackd.core.model import Postback
from postbackd.store.base import Batch, StoreUnavailable
from tests.store.contract import MODES, PIXEL, Said, World, words


@pytest.mark.own_clicks
def test_a_conversion_is_accepted_and_bears_the_id_of_its_request(world: World) -> None:
    click = world.click()
    postback = world.make(click, "value=12.50&txid=T1&status=pending")
    (said,) = world.settle(postback)
    assert said == Said("accepted", "", postback.request.request_id)
    (row,) = world.conversions(click)
    assert (row["type"], row["transaction_id"], row["value_micros"], row["currency"]) == (
        "conversion", "T1", 12_500_000, "USD",
    )  # fmt: skip
    assert (row["campaign"], row["offer"], row["network"]) == (
        world.campaign.id, world.offer.id, world.networks["ignore"].id,
    )  # fmt: skip
    logged = world.row(postback)
    assert (logged["verdict"], logged["reason"], logged["click_id"]) == (1, 0, click.stamp)
    assert (logged["campaign"], logged["conversion_id"]) == (world.campaign.id, said.conversion)
    assert (logged["value"], logged["transaction_id"], logged["status"]) == ("12.50", "T1", "pending")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.own_clicks
def test_the_same_transaction_again_is_a_duplicate_that_names_the_first(world: World, mode: str) -> None:
    click = world.click()
    first = world.send(click, "txid=T1&value=5", mode)
    for _ in range(3):
        assert world.send(click, "txid=T1&value=5", mode) == ("duplicate", "", first.conversion)
    assert len(world.conversions(click)) == 1


@pytest.mark.parametrize("copies", [2, 3, 33, 70])
def test_copies_within_one_batch_are_counted_once_in_their_order(world: World, copies: int) -> None:
    click = world.click()
    postbacks = [world.make(click, "txid=T1") for _ in range(copies)]
    said = world.settle(*postbacks)
    first = postbacks[0].request.request_id
    assert said == [("accepted", "", first)] + [("duplicate", "", first)] * (copies - 1)
    assert len(world.query("log", limit=1000)) == copies


@pytest.mark.own_clicks
def test_copies_in_batches_that_run_together_on_one_connection_are_counted_once(world: World) -> None:
    clicks = [world.click() for _ in range(5)]
    batches = [Batch((), [world.make(click, "txid=T") for click in clicks]) for _ in range(8)]

    async def together() -> list[str]:
        written = await asyncio.gather(*(world.store.write(batch, world.rulebook) for batch in batches))
        return [words(outcome).verdict for part in written for outcome in part.outcomes]

    said = world.run(together())
    assert (said.count("accepted"), said.count("duplicate")) == (5, 35)


def test_copies_from_several_servers_at_once_are_counted_once(world: World) -> None:
    clicks = [world.click() for _ in range(20)]
    shares = [[world.make(click, "txid=T") for click in clicks] for _ in range(4)]
    together = Barrier(len(shares))
    heard: list[str] = []

    def serve(share: list[Postback]) -> None:
        heard.extend(asyncio.run(_serve(world, share, together)))

    threads = [Thread(target=serve, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (heard.count("accepted"), heard.count("duplicate")) == (20, 60)
    assert [len(world.conversions(click)) for click in clicks] == [1] * 20


async def _serve(world: World, share: list[Postback], together: Barrier) -> list[str]:
    """Another server on the same data: asks again when the store does not answer, as a sender would."""
    store = await world.kind.open(world.directory)
    heard = []
    together.wait()
    for postback in share:
        for attempt in range(100):
            try:
                written = await store.write(Batch((), [postback]), world.rulebook)
            except StoreUnavailable:
                await store.recover()
                assert attempt < 99
                continue
            heard.append(words(written.outcomes[0]).verdict)
            break
    await store.close()
    return heard


@pytest.mark.own_clicks
def test_another_type_transaction_or_click_is_another_conversion(world: World) -> None:
    click, other = world.click(), world.click()
    for query in ("txid=A", "txid=B", "txid=a", "type=lead&txid=A", "type=lead", ""):
        assert world.send(click, query).verdict == "accepted"
    assert world.send(other, "txid=A").verdict == "accepted"
    assert world.send(click, "type=LEAD&txid=%20A").verdict == "duplicate"
    assert len(world.conversions(click)) == 6


def test_what_is_counted_stays_counted_after_a_restart(world: World) -> None:
    click = world.click()
    first = world.send(click, "txid=T1")
    world.reopen()
    assert world.send(click, "txid=T1") == ("duplicate", "", first.conversion)


# --- repeats without a transaction id -----------------------------------------------------------------------


@pytest.mark.own_clicks
def test_ignore_mode_calls_a_repeat_a_duplicate_and_changes_nothing(world: World) -> None:
    click = world.click()
    first = world.send(click, "value=5")
    assert world.send(click, "value=9") == ("duplicate", "", first.conversion)
    assert world.conversion(click) == ("approved", 5, 1)


@pytest.mark.own_clicks
def test_update_mode_takes_the_new_value_and_keeps_the_old_in_the_history(world: World) -> None:
    click = world.click()
    first = world.send(click, "value=5", "update")
    change = world.make(click, "value=9", "update")
    assert world.settle(change) == [("updated", "", first.conversion)]
    assert world.send(click, "value=9", "update").verdict == "duplicate"
    assert world.conversion(click) == ("approved", 9, 1)
    (row,) = world.query("history", conversion_id=first.conversion)
    assert (row["request_id"], row["value_micros_from"], row["value_micros_to"]) == (
        change.request.request_id, 5_000_000, 9_000_000,
    )  # fmt: skip


@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.own_clicks
def test_add_mode_counts_every_repeat_without_transaction_id(world: World, one_batch: bool) -> None:
    click = world.click()
    postbacks = [world.make(click, "value=5", "add") for _ in range(3)]
    said = world.settle(*postbacks) if one_batch else [world.settle(p)[0] for p in postbacks]
    assert [s.verdict for s in said] == ["accepted"] * 3
    assert [s.conversion for s in said] == [p.request.request_id for p in postbacks]
    assert len(world.conversions(click)) == 3
    assert world.send(click, "txid=T", "add").verdict == "accepted"
    assert world.send(click, "txid=T", "add").verdict == "duplicate"


@pytest.mark.own_clicks
def test_hold_mode_keeps_a_repeat_for_a_decision_and_says_why(world: World) -> None:
    click = world.click()
    first = world.send(click, "value=5", "hold")
    held = world.send(click, "value=5", "hold")
    assert held == ("held", "repeat_without_transaction_id", first.conversion)
    assert world.conversion(click) == ("approved", 5, 1)


# --- the life of a conversion -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transaction", ["txid=T", "x=1"])
@pytest.mark.own_clicks
def test_pending_approved_and_reversed_arrive_one_by_one_in_every_mode(
    world: World, mode: str, transaction: str
) -> None:
    click = world.click()
    queries = [f"{transaction}&status={word}&value=5" for word in ("pending", "approved", "reversed")]
    said = [world.send(click, query, mode) for query in queries]
    assert [s.verdict for s in said] == ["accepted", "updated", "updated"]
    assert world.conversion(click) == ("reversed", 5, 1)
    rows = world.query("history", conversion_id=said[0].conversion)
    assert [(row["status_from"], row["status_to"], row["status_word"]) for row in rows] == [
        (1, 2, "approved"), (2, 4, "reversed"),
    ]  # fmt: skip


@pytest.mark.parametrize("order", list(permutations(["pending", "approved", "rejected", "reversed"])))
@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.own_clicks
def test_statuses_in_any_order_end_the_same(world: World, order: tuple[str, ...], one_batch: bool) -> None:
    click = world.click()
    postbacks = [world.make(click, f"txid=T&status={word}") for word in order]
    if one_batch:
        world.settle(*postbacks)
    else:
        for postback in postbacks:
            world.settle(postback)
    assert world.conversion(click)[0] == "reversed"


@pytest.mark.own_clicks
def test_a_status_change_within_the_batch_that_counts_it_is_applied_and_kept(world: World) -> None:
    click = world.click()
    said = world.settle(*(world.make(click, f"txid=T&status={word}") for word in ("pending", "paid", "paid")))
    assert [s.verdict for s in said] == ["accepted", "updated", "duplicate"]
    assert world.conversion(click)[0] == "approved"
    assert len(world.query("history", conversion_id=said[0].conversion)) == 1


@pytest.mark.own_clicks
def test_an_unknown_status_is_counted_as_pending_with_a_warning(world: World) -> None:
    click = world.click()
    assert world.send(click, "txid=T&status=frobnicated")[:2] == ("accepted", "status_unknown")
    assert world.conversion(click)[0] == "pending"


@pytest.mark.own_clicks
def test_a_value_older_than_the_last_one_changes_nothing_and_an_absent_currency_stays(world: World) -> None:
    click = world.click()
    said = [
        world.send(click, f"txid=T&value={value}{more}", "update").verdict
        for value, more in [
            ("1", "&currency=EUR&time=1749999980"),
            ("2", "&time=1749999990"),
            ("3", "&time=1749999985"),
            ("4", ""),
        ]
    ]
    assert said == ["accepted", "updated", "duplicate", "updated"]
    (row,) = world.conversions(click)
    assert (row["value_micros"], row["currency"]) == (4_000_000, "EUR")


@pytest.mark.own_clicks
def test_a_status_brings_the_value_that_the_conversion_did_not_have_yet(world: World) -> None:
    click = world.click()
    world.send(click, "txid=T&status=pending")
    assert world.send(click, "txid=T&value=7").verdict == "duplicate"
    assert world.send(click, "txid=T&status=approved&value=7").verdict == "updated"
    assert world.send(click, "txid=T&status=reversed&value=9").verdict == "updated"
    assert world.conversion(click) == ("reversed", 7, 1)


def test_a_replayed_value_does_not_undo_a_later_one(world: World) -> None:
    click = world.click()
    world.send(click, "value=5", "hold")
    held = world.make(click, "value=1", "hold")
    assert world.settle(held)[0].verdict == "held"
    world.networks["hold"] = world.save(replace(world.networks["hold"], dedup="update"))
    world.reload()
    assert world.send(click, "value=9", "hold").verdict == "updated"
    (stored,) = world.run(world.store.load_postbacks([held.request.request_id]))
    again = world.rulebook.judge_again(stored)
    assert again is not None
    assert world.settle(again)[0].verdict == "duplicate"
    assert world.conversion(click)[1] == 9


# --- the attribution window ---------------------------------------------------------------------------------


def test_outside_the_window_a_conversion_is_rejected_with_the_reason_and_a_repeat_is_still_a_repeat(
    world: World,
) -> None:
    world.offer = world.save(replace(world.offer, window_min_s=10, window_max_s=3600))
    world.reload()
    assert world.send(world.click(age_s=9), "txid=T")[:2] == ("rejected", "click_before_window")
    assert world.send(world.click(age_s=3601), "txid=T")[:2] == ("rejected", "click_after_window")
    click = world.click(age_s=3500)
    first = world.send(click, "txid=T&status=pending")
    assert first.verdict == "accepted"
    world.now_ms += 200_000
    assert world.send(click, "txid=T&status=pending") == ("duplicate", "", first.conversion)
    assert world.send(click, "txid=T&status=reversed") == ("updated", "", first.conversion)
    assert world.send(click, "txid=other")[:2] == ("rejected", "click_after_window")
    assert len(world.conversions(click)) == 1


def test_two_late_copies_in_one_batch_are_both_rejected(world: World) -> None:
    world.offer = world.save(replace(world.offer, window_max_s=10))
    world.reload()
    click = world.click(age_s=60)
    said = world.settle(world.make(click, "txid=T"), world.make(click, "txid=T"))
    assert [s.verdict for s in said] == ["rejected", "rejected"]
    assert world.conversions(click) == []


# --- order of the answers -----------------------------------------------------------------------------------


@pytest.mark.own_clicks
def test_answers_come_in_the_order_of_the_batch_whatever_became_of_each(world: World) -> None:
    click, missing = world.click(), world.make_click()
    known = world.send(click, "txid=known")
    said = world.settle(
        world.make(click, "txid=known"),
        world.make(missing, "txid=1"),
        world.make(click, "txid=2&value=abc"),
        world.make(click, "txid=3", channel=PIXEL),
        world.make("", ""),
        world.make(click, "txid=4"),
        world.make(click, "txid=5&currency=EURO"),
    )
    assert [(s.verdict, s.reason) for s in said] == [
        ("duplicate", ""),
        ("unmatched", "click_not_yet_seen"),
        ("rejected", "value_invalid"),
        ("accepted", ""),
        ("unmatched", "click_id_empty"),
        ("accepted", ""),
        ("held", "currency_unknown"),
    ]
    assert said[0].conversion == known.conversion


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "A", "B"]), st.sampled_from(["", "sale"]), st.sampled_from(MODES)),
        min_size=1,
        max_size=12,
    ),
    st.data(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
@pytest.mark.own_clicks
def test_however_a_stream_is_cut_into_batches_the_same_is_counted(
    world: World, stream: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    whole, cut = world.click(), world.click()
    world.settle(*(world.make(whole, f"txid={t}&type={y}&value=1", mode) for t, y, mode in stream))
    postbacks = [world.make(cut, f"txid={t}&type={y}&value=1", mode) for t, y, mode in stream]
    while postbacks:
        size = data.draw(st.integers(1, len(postbacks)))
        world.settle(*postbacks[:size])
        postbacks = postbacks[size:]
    keys = [
        [(row["type"], row["transaction_id"][:1], row["network"]) for row in world.conversions(click)]
        for click in (whole, cut)
    ]
    assert keys[0] == keys[1]
