"""Which click a postback finds, early or late, and how pixel and S2S become one conversion."""

from __future__ import annotations

from itertools import permutations

import pytest
from msgspec.structs import replace

from postbackd.core.model import Postback
from tests.store.contract import MODES, PIXEL, S2S, World

# --- late matching ------------------------------------------------------------------------------------------


@pytest.mark.own_clicks
def test_a_postback_that_was_there_before_its_click_is_matched_when_the_click_arrives(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T&value=5")
    assert world.settle(postback) == [("unmatched", "click_not_yet_seen", None)]
    world.write([click])
    row = world.row(postback)
    assert (row["verdict"], row["first_verdict"], row["first_reason"]) == (1, 5, 9)
    assert row["conversion_id"] == postback.request.request_id
    assert world.conversion(click) == ("approved", 5, 1)
    assert world.send(click, "txid=T") == ("duplicate", "", postback.request.request_id)


@pytest.mark.own_clicks
def test_click_and_postback_in_one_batch_match(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T")
    written = world.write([click], [postback])
    assert list(written.clicks) == [click.stamp]
    assert written.outcomes[0].verdict.word == "accepted"


@pytest.mark.own_clicks
def test_all_that_waited_for_a_click_are_settled_in_their_order_before_the_new_ones(world: World) -> None:
    click = world.make_click()
    waited = [world.make(click, query) for query in ("txid=T&value=1", "txid=T&value=2", "txid=U&value=3")]
    world.settle(*waited[:2])
    world.settle(waited[2])
    new = world.make(click, "txid=T&value=9")
    written = world.write([click], [new])
    assert [outcome.verdict.word for outcome in written.outcomes] == ["duplicate"]
    assert written.outcomes[0].conversion_id == waited[0].request.request_id
    assert [world.row(postback)["verdict"] for postback in waited] == [1, 2, 1]
    assert len(world.conversions(click)) == 2


@pytest.mark.own_clicks
def test_a_matched_postback_waits_no_longer(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T")
    world.settle(postback)
    world.write([click])
    world.write([click])
    assert world.row(postback)["first_verdict"] == 5
    assert len(world.conversions(click)) == 1


def test_what_waited_is_judged_by_the_settings_of_the_day_on_which_its_click_comes(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T&type=lead")
    world.settle(postback)
    world.networks["ignore"] = world.save(replace(world.networks["ignore"], types=("sale",)))
    world.reload()
    world.write([click])
    assert (world.row(postback)["verdict"], world.row(postback)["reason"]) == (6, 17)
    assert world.conversions(click) == []


@pytest.mark.own_clicks
def test_a_rejected_postback_does_not_wait(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T&value=abc")
    assert world.settle(postback)[0][:2] == ("rejected", "value_invalid")
    world.write([click])
    assert world.row(postback)["verdict"] == 6


def test_what_waits_survives_a_restart(world: World) -> None:
    click = world.make_click()
    postback = world.make(click, "txid=T")
    world.settle(postback)
    world.reopen()
    world.write([click])
    assert world.row(postback)["verdict"] == 1


# --- callers' own ids ---------------------------------------------------------------------------------------


def test_an_own_id_finds_its_click(world: World) -> None:
    click = world.click(own_id="order-77")
    postback = world.make("order-77", "txid=T")
    assert world.settle(postback)[0] == ("accepted", "", postback.request.request_id)
    assert (world.row(postback)["click_id"], world.row(postback)["click_text"]) == (click.stamp, "order-77")
    assert world.send(click, "txid=T").verdict == "duplicate"


def test_an_own_id_is_matched_late_too(world: World) -> None:
    postbacks = [world.make("order-77", "txid=T"), world.make("order-77", "txid=U")]
    assert world.settle(*postbacks) == [("unmatched", "click_id_foreign", None)] * 2
    click = world.click(own_id="order-77")
    assert [world.row(postback)["verdict"] for postback in postbacks] == [1, 1]
    assert len(world.conversions(click)) == 2


def test_the_first_click_with_an_own_id_keeps_it_also_within_one_batch(world: World) -> None:
    first, second, other = (
        world.make_click("A"), world.make_click("A"), world.make_click("B"),
    )  # fmt: skip
    assert list(world.write([first, other, second]).clicks) == [first.stamp, other.stamp, first.stamp]
    third, plain = world.make_click("A"), world.make_click()
    assert list(world.write([third, plain]).clicks) == [first.stamp, plain.stamp]
    assert world.query("click", click_id=second.stamp) == []
    assert world.query("own_id", own_id="A") == [{"click_id": first.stamp}]


def test_own_ids_are_told_apart_by_case_and_may_hold_any_text(world: World) -> None:
    strange = ["Ab", "ab", "日本語", "a b", "'; DROP TABLE clicks; --", "\N{GRINNING FACE}", "x" * 128]
    clicks = [world.click(own_id=own_id) for own_id in strange]
    found = [world.query("own_id", own_id=own_id)[0]["click_id"] for own_id in strange]
    assert found == [click.stamp for click in clicks]


@pytest.mark.own_clicks
def test_a_click_of_ours_that_comes_back_is_stored_once(world: World) -> None:
    click = world.click(source_click_id="first")
    assert list(world.write([replace(click, source_click_id="second")]).clicks) == [click.stamp]
    (row,) = world.query("click", click_id=click.stamp)
    assert row["source_click_id"] == "first"


@pytest.mark.own_clicks
def test_everything_of_a_click_is_kept(world: World) -> None:
    subs = tuple(f"s{n}" for n in range(10))
    click = world.click(
        source_click_id="g", cost_micros=1500, country="DE", ip_prefix="203.0.113.0/24", subs=subs
    )
    (row,) = world.query("click", click_id=click.stamp)
    assert (row["source_click_id"], row["cost_micros"], row["country"], row["ip_prefix"]) == (
        "g", 1500, "DE", "203.0.113.0/24",
    )  # fmt: skip
    assert tuple(row[f"sub{n}"] for n in range(1, 11)) == subs
    short = world.click(subs=("a", None, "c"))
    (row,) = world.query("click", click_id=short.stamp)
    assert [row[f"sub{n}"] for n in range(1, 5)] == ["a", None, "c", None]


# --- pixel and S2S ------------------------------------------------------------------------------------------


BOTH = PIXEL | S2S


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pixel_first", [True, False])
@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.parametrize(
    ("pixel", "server"), [("txid=T", "txid=T&value=5"), ("", "txid=T&value=5"), ("", "value=5")],
    ids=["both name it", "S2S names it", "neither names it"],
)  # fmt: skip
@pytest.mark.own_clicks
def test_pixel_and_s2s_are_one_conversion_in_any_order(
    world: World, mode: str, pixel_first: bool, one_batch: bool, pixel: str, server: str
) -> None:
    click = world.click()
    postbacks = [world.make(click, pixel, mode, PIXEL), world.make(click, server, mode, S2S)]
    if not pixel_first:
        postbacks.reverse()
    said = world.settle(*postbacks) if one_batch else [world.settle(p)[0] for p in postbacks]
    (row,) = world.conversions(click)
    assert row["channels"] == BOTH
    assert {s.conversion for s in said} == {row["conversion_id"]}
    assert min(s.verdict for s in said) == "accepted"
    if "txid" in server:
        assert row["transaction_id"] == "T"
    if "txid" not in pixel:
        assert row["value_micros"] == 5_000_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.own_clicks
def test_an_s2s_postback_gives_the_pixels_conversion_its_transaction_id_and_value(
    world: World, mode: str
) -> None:
    click = world.click()
    pixel = world.send(click, "", mode, PIXEL)
    assert world.send(click, "txid=T&value=5", mode) == ("updated", "", pixel.conversion)
    assert world.send(click, "txid=T&value=5", mode) == ("duplicate", "", pixel.conversion)
    assert world.conversion(click) == ("approved", 5, BOTH)
    (change,) = world.query("history", conversion_id=pixel.conversion)
    assert (change["value_micros_from"], change["value_micros_to"]) == (0, 5_000_000)


@pytest.mark.own_clicks
def test_a_second_sale_by_s2s_is_another_conversion(world: World) -> None:
    click = world.click()
    world.send(click, "", channel=PIXEL)
    assert world.send(click, "txid=T1").verdict == "duplicate"
    assert world.send(click, "txid=T2").verdict == "accepted"
    assert [row["channels"] for row in world.conversions(click)] == [BOTH, S2S]


@pytest.mark.own_clicks
def test_a_pixel_that_reloads_after_the_s2s_postback_adds_nothing(world: World) -> None:
    click = world.click()
    world.send(click, "", channel=PIXEL)
    first = world.send(click, "txid=T1")
    assert world.send(click, "", channel=PIXEL) == ("duplicate", "", first.conversion)
    assert len(world.conversions(click)) == 1


@pytest.mark.parametrize("order", list(permutations(["pixel", "pixel", "server"])))
@pytest.mark.own_clicks
def test_two_pixels_and_a_server_postback_in_one_batch_are_one_conversion(
    world: World, order: tuple[str, ...]
) -> None:
    click = world.click()
    made = {"pixel": ("", PIXEL), "server": ("txid=T", S2S)}
    postbacks = [world.make(click, made[word][0], channel=made[word][1]) for word in order]
    said = world.settle(*postbacks)
    assert sorted(s.verdict for s in said) == ["accepted", "duplicate", "duplicate"]
    assert len(world.conversions(click)) == 1


@pytest.mark.own_clicks
def test_types_and_clicks_are_joined_only_with_their_own(world: World) -> None:
    click, other = world.click(), world.click()
    world.send(click, "type=lead", channel=PIXEL)
    assert world.send(click, "type=sale&txid=T").verdict == "accepted"
    assert world.send(other, "type=lead&txid=T").verdict == "accepted"
    assert world.send(click, "type=lead&txid=T").verdict == "duplicate"


@pytest.mark.own_clicks
def test_transaction_ids_that_differ_tell_two_sales_apart_on_both_channels(world: World) -> None:
    click = world.click()
    assert world.send(click, "txid=A", channel=PIXEL).verdict == "accepted"
    assert world.send(click, "txid=B").verdict == "accepted"
    assert len(world.conversions(click)) == 2


@pytest.mark.own_clicks
def test_pixel_and_s2s_that_waited_for_their_click_are_one_conversion(world: World) -> None:
    click = world.make_click()
    postbacks: list[Postback] = [world.make(click, "txid=T&value=5"), world.make(click, "", channel=PIXEL)]
    world.settle(*postbacks)
    world.write([click])
    assert world.conversion(click) == ("approved", 5, BOTH)
    assert sorted(world.row(postback)["verdict"] for postback in postbacks) in ([1, 2], [1, 3])


@pytest.mark.own_clicks
def test_the_pixel_changes_nothing_that_s2s_said(world: World) -> None:
    click = world.click()
    first = world.send(click, "txid=T&value=5", "update")
    for query in ("txid=T&value=900", "txid=T&status=reversed", "status=reversed&value=900"):
        assert world.send(click, query, "update", PIXEL) == ("duplicate", "", first.conversion)
    assert world.conversion(click) == ("approved", 5, BOTH)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.own_clicks
def test_s2s_replaces_the_status_and_value_of_what_only_the_pixel_brought(world: World, mode: str) -> None:
    click = world.click()
    first = world.send(click, "txid=T&status=reversed&value=900", mode, PIXEL)
    said = world.send(click, "txid=T&status=pending&value=5", mode)
    assert said == ("updated", "", first.conversion)
    assert world.conversion(click) == ("pending", 5, BOTH)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.own_clicks
def test_nobody_takes_money_back_by_calling_the_pixel(world: World, mode: str) -> None:
    click = world.click()
    first = world.send(click, "txid=T&status=reversed&value=5", mode, PIXEL)
    assert world.send(click, "txid=T&value=5", mode) == ("updated", "", first.conversion)
    assert world.conversion(click) == ("approved", 5, BOTH)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("query", ["txid=T&value=5", "value=5"])
def test_s2s_that_comes_after_the_window_confirms_what_the_pixel_brought_inside_it(
    world: World, mode: str, query: str
) -> None:
    click = world.click()
    first = world.send(click, "", mode, PIXEL)
    world.now_ms += 40 * 86_400_000
    assert world.send(click, query, mode) == ("updated", "", first.conversion)
    assert world.conversion(click) == ("approved", 5, BOTH)
    assert world.send(click, "txid=U", mode).verdict == "rejected"
    assert len(world.conversions(click)) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.own_clicks
def test_a_pixel_that_s2s_has_confirmed_is_not_taken_for_a_later_sale(world: World, mode: str) -> None:
    click = world.click()
    world.send(click, "", mode, PIXEL)
    world.send(click, "value=7", mode)
    assert world.send(click, "txid=T&value=12.50", mode).verdict == "accepted"
    assert len(world.conversions(click)) == 2


@pytest.mark.own_clicks
def test_a_late_match_keeps_the_senders_time(world: World) -> None:
    click = world.make_click()
    world.send(click, "txid=T&time=1749999990")
    world.write([click])
    assert [row["status_time_ms"] for row in world.conversions(click)] == [1_749_999_990_000]
