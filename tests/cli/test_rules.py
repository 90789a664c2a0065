"""Rules: what is saved, what is refused or doubtful, and what would be sent for a conversion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from postbackd.cli.session import Session, visit
from postbackd.core.click_id import KeyRing, first_stamp_at, write_stamp
from postbackd.core.deliveries import DeliveryState, Settled
from postbackd.core.model import Channel, Click, Request
from postbackd.core.planning import Planner
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.settings_sources import load_settings
from postbackd.store.base import Batch, Turn
from tests.cli.conftest import Run

URL = "https://ads.example/back?id={source_click_id}&v={value}&c={country}"
NOW_MS = 1_790_000_000_000


@pytest.fixture
def told(filled: Run) -> Run:
    """A catalog with a target that can be told everything, and one that can be told of conversions only."""
    filled(
        "target", "add", "Ads", "--url", URL, "--retract-url", "https://ads.example/undo?id={source_click_id}"
    )
    filled("target", "add", "Hook", "--kind", "webhook", "--url", "https://hook.example/in")
    filled(
        "target", "add", "Plain", "--url", URL, "--header", "X-Key: {account.KEY}", "--account", "KEY=s3cr3t"
    )
    return filled


RULE = ("rule", "add", "R", "--source", "Propeller", "--target")


def test_a_rule_reacts_as_its_target_can_unless_it_says_otherwise(told: Run) -> None:
    for number, (target, on_change, on_reversal) in enumerate(
        [("Ads", "ignore", "retract"), ("Hook", "adjust", "retract"), ("Plain", "ignore", "ignore")]
    ):
        made = told("rule", "add", f"R{number}", "--source", "Propeller", "--target", target, "--json").json
        assert (made["on_change"], made["on_reversal"]) == (on_change, on_reversal)
    made = told("rule", "set", "R1", "--on-reversal", "ignore", "--on-change", "ignore", "--json").json
    assert (made["on_change"], made["on_reversal"]) == ("ignore", "ignore")


def test_a_rule_is_listed_shown_changed_and_removed(told: Run) -> None:
    told(*RULE, "Ads", "--when", "type = sale and value >= 10 USD", "--delay", "10m", "--payout", "80%")
    (row,) = told("rule", "list", "--json").json
    assert row == {
        "name": "R",
        "source": "Propeller",
        "campaign": None,
        "target": "Ads",
        "when": "type = sale and value >= 10 USD",
        "delay": "10m",
        "payout": "80%",
        "on_change": "ignore",
        "on_reversal": "retract",
    }
    told(
        "rule",
        "set",
        "R",
        "--name",
        "Q",
        "--campaign",
        "summer-sale",
        "--when",
        "",
        "--payout",
        "fixed 2 USD",
    )
    changed = told("rule", "show", "Q", "--json").json
    assert changed == row | {
        "name": "Q",
        "source": None,
        "campaign": "Summer Sale",
        "when": "",
        "payout": "fixed 2 USD",
    }
    assert "80%" not in told("rule", "list").out
    assert "still used by rule 'Q'" in told("campaign", "remove", "Summer Sale", code=1).err
    told("rule", "remove", "Q")
    assert told("rule", "list", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "Ads"), "name one: --source S for all its campaigns, or --campaign C"),
        (("--target", "Ads", "--source", "Propeller", "--campaign", "summer-sale"), "name one"),
        (
            (*RULE[3:], "Ads", "--when", "type = (sale)"),
            "when: position 8, 'type = >>(sale)<<': expected a name",
        ),
        ((*RULE[3:], "Ads", "--when", "type = sale and"), "position 16, 'type = sale and>><<'"),
        ((*RULE[3:], "Ads", "--payout", "half"), "payout: 'half' is no payout"),
        ((*RULE[3:], "Ads", "--delay", "soon"), "'soon' is no duration"),
        ((*RULE[3:], "Ads", "--delay", "100d"), "delay: must be at most 90d"),
        ((*RULE[3:], "Plain", "--on-reversal", "retract"), "postbackd target set Plain --retract-url URL"),
        (
            (*RULE[3:], "Ads", "--on-change", "adjust"),
            "postbackd target set Ads --adjust-url URL; or write ignore",
        ),
        ((*RULE[3:], "Ads", "--on-reversal", "adjust"), "has no request for adjustments"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_place(
    told: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    ran = told("rule", "add", "X", *arguments, code=2)
    assert sentence in ran.err
    assert ran.err.count("\n") == 1
    assert told("rule", "list", "--json").json == []


def test_a_platform_that_cannot_be_told_says_why(told: Run) -> None:
    told("target", "add", "M", "--preset", "meta", "--option", "pixel_id=1", "--account", "ACCESS_TOKEN=t")
    ran = told(*RULE, "M", "--on-reversal", "retract", code=2)
    assert "the Conversions API cannot take an event back; or write ignore" in ran.err
    told(*RULE, "M")
    said = told("rule", "test", "--sample", "value=1,currency=USD").out
    assert "cannot be told of a change: the Conversions API cannot change an event that was sent" in said
    assert "cannot be told of a reversal: the Conversions API cannot take an event back" in said


def test_google_is_told_of_changes_and_reversals_as_its_api_takes_them(told: Run) -> None:
    options = (
        "--option",
        "customer_id=1",
        "--option",
        "conversion_action_id=2",
        "--account",
        "ACCESS_TOKEN=t0ken",
    )
    told("target", "add", "G", "--kind", "google_data_manager", *options)
    refused = told(*RULE, "G", "--on-reversal", "retract", code=2)
    assert "cannot take a conversion back; write adjust to have its value restated as 0" in refused.err
    told(*RULE, "G")
    shown = told("rule", "show", "R", "--json").json
    assert (shown["on_change"], shown["on_reversal"]) == ("adjust", "adjust")
    said = told("rule", "test", "--sample", "value=1,currency=USD").out
    assert "cannot be told" not in said
    assert "t0ken" not in said


def test_a_doubtful_condition_is_saved_with_a_warning(told: Run) -> None:
    ran = told(*RULE, "Ads", "--when", "type = sale and type = lead", "--json")
    assert "warning: the rule can never fire" in ran.err
    assert ran.json["when"] == "type = sale and type = lead"
    assert (
        "there is no offer 'shop'; did you mean 'Shop'?"
        in told("rule", "set", "R", "--when", "offer = shop").err
    )
    assert told("rule", "set", "R", "--when", "offer = Shop and first").err == ""


def test_a_rule_whose_campaigns_can_never_pass_it_is_saved_with_a_warning(told: Run) -> None:
    told("source", "add", "Elsewhere")
    told("campaign", "add", "Far", "--source", "Elsewhere", "--offer", "Shop")
    ran = told(*RULE, "Ads", "--when", "campaign = Far")
    assert "warning: the rule can never fire: no conversion passes its tests of campaign at once" in ran.err
    assert told("rule", "set", "R", "--when", 'campaign = "Summer Sale"').err == ""
    own = told(
        "rule", "add", "Own", "--campaign", "Summer Sale", "--target", "Ads", "--when", "campaign = Far"
    )
    assert "can never fire" in own.err
    assert told("rule", "set", "Own", "--when", "type = sale").err == ""
    ran = told("rule", "set", "R", "--when", "type = lead")
    assert "every campaign of its source has rules of its own, which are followed instead" in ran.err


# --- rule test ---------------------------------------------------------------------------------------------------


def rules_of(document: Any) -> dict[str, Any]:
    return {rule["rule"]: rule for rule in document["rules"]}


def test_a_sample_shows_the_request_of_each_rule_that_fires_and_why_others_do_not(told: Run) -> None:
    told(*RULE, "Plain", "--when", "value >= 10", "--payout", "80%", "--delay", "10m")
    told("rule", "add", "DE", "--source", "Propeller", "--target", "Ads", "--when", "country = DE, AT")
    (document,) = told(
        "rule", "test", "--sample", "value=12.50,country=fr,source_click_id=a&b", "--json"
    ).json
    rules = rules_of(document)
    assert rules["R"]["fires"] is True
    assert rules["R"]["request"] == {
        "method": "GET",
        "url": "https://ads.example/back?id=a%26b&v=10.00&c=FR",
        "headers": {"X-Key": "(KEY)"},
        "body": "",
    }
    assert rules["R"]["delay"] == "10m"
    assert (rules["DE"]["fires"], rules["DE"]["why"]) == (False, "country = DE, AT fails: the country is FR")
    text = told("rule", "test", "--sample", "value=12.50,country=fr").out
    assert "after 10m: GET https://ads.example/back?id=SOURCE_CLICK_ID&v=10.00&c=FR" in text
    assert "- rule 'DE' to target 'Ads' does not fire: country" in text


def test_the_rules_of_a_campaign_stand_for_those_of_its_source(told: Run) -> None:
    told(*RULE, "Ads")
    told("rule", "add", "Own", "--campaign", "Summer Sale", "--target", "Hook")
    (document,) = told("rule", "test", "--sample", "type=sale,value=1,currency=EUR", "--json").json
    rules = rules_of(document)
    assert rules["R"]["fires"] is False
    assert "rules of its own" in rules["R"]["why"]
    request = rules["Own"]["request"]
    assert request["headers"]["webhook-signature"] == "v1,(SECRET)"
    assert '"value":"1.00","currency":"EUR"' in request["body"]


def test_a_request_that_would_not_be_sent_says_why(told: Run) -> None:
    told(*RULE, "Ads", "--delay", "3h")
    (document,) = told("rule", "test", "--sample", "value=1,source_click_id=", "--json").json
    assert "without the source's click id" in rules_of(document)["R"]["refusal"]
    told("target", "set", "Ads", "--fresh", "2h")
    assert (
        "too old for the target, which takes what is at most 2h old"
        in told("rule", "test", "--sample", "value=1").out
    )


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        ("colour=red", "'colour=red' is not usable; write FIELD=VALUE with a field of type"),
        ("sale", "'sale' is not usable"),
        ("status=paid", "'paid' is no status; there are pending"),
        ("value=much", "write the value and its currency"),
        ("currency=XXY", "write the value and its currency"),
    ],
)
def test_a_sample_that_cannot_be_is_refused(told: Run, sample: str, sentence: str) -> None:
    assert sentence in told("rule", "test", "--sample", sample, code=2).err


def test_a_sample_may_name_things_with_commas_and_must_name_its_campaign_among_several(told: Run) -> None:
    told("offer", "add", "Shoes, red", "--network", "TUNE", "--url", "https://shop.example/{click_id}")
    (document,) = told("rule", "test", "--sample", "offer=Shoes, red,type=sale", "--json").json
    assert (document["offer"], document["type"]) == ("Shoes, red", "sale")
    told("campaign", "add", "Other", "--source", "Propeller", "--offer", "Shop")
    assert "add campaign=NAME" in told("rule", "test", "--sample", "type=sale", code=2).err
    (document,) = told("rule", "test", "--sample", "campaign=Other", "--json").json
    assert document["campaign"] == "Other"
    assert (
        "there is no offer 'None'"
        in told("rule", "test", "--sample", "campaign=Other,offer=None", code=1).err
    )


class Counted(Struct):
    """The ids of a conversion that was counted."""

    click_id: str
    request: str


def count_one(query: str) -> Counted:
    """A click of the first campaign and the postback that converts it, as ingest would store them."""

    async def work(session: Session) -> Counted:
        catalog = await session.load()
        rulebook, network, campaign = Rulebook(catalog), catalog.networks[0], catalog.campaigns[0]
        click = Click(first_stamp_at(NOW_MS), campaign.id, campaign.offers[0].offer, 0, "src-1", country="DE")
        click_id = KeyRing(catalog.signing_keys).write(click.stamp, campaign.id)
        rules = rulebook.networks[network.id]
        received = rules.field_map.read_query(f"{query}&click_id={click_id}")
        request = Request(first_stamp_at(NOW_MS + 1000), network.id, Channel.S2S, 50, NOW_MS + 1000)
        postback = judge(received, rules, rulebook.keys, rulebook.masker, request)
        await session.store.write(Batch(clicks=[click], postbacks=[postback]), rulebook)
        return Counted(click_id, write_stamp(request.request_id))

    return visit(load_settings({}, os.environ), work)


def deliver_everything() -> None:
    """What a deliverer does, with a target that takes all."""

    async def work(session: Session) -> None:
        store = session.store
        catalog = await session.load()
        look = await store.look([], NOW_MS + 2000, 10)
        owed = Planner(catalog).plan(look.events, look.told, NOW_MS + 2000)
        rooms = {target.id: 5 for target in catalog.targets}
        turn = Turn(
            holder="test", now_ms=NOW_MS + 2000, planned=look.events, owed=owed, rooms=rooms, lease_ms=9000
        )
        claimed = await store.take_turn(turn)
        settled = [Settled(delivery, DeliveryState.DELIVERED, 0) for delivery in claimed]
        await store.take_turn(Turn(holder="test", now_ms=NOW_MS + 3000, settled=settled))

    visit(load_settings({}, os.environ), work)


def test_a_stored_conversion_is_found_by_any_of_its_ids(told: Run) -> None:
    told(*RULE, "Ads", "--when", "first and country = DE")
    counted = count_one("type=sale&value=12.50&currency=USD&txid=T-1&status=approved")
    for id_ in (counted.click_id, counted.request):
        (document,) = told("rule", "test", id_, "--json").json
        assert (document["type"], document["value"], document["transaction_id"]) == ("sale", "12.50", "T-1")
        rule = rules_of(document)["R"]
        assert rule["fires"] is True
        assert rule["now"] is None
        assert rule["request"]["url"] == "https://ads.example/back?id=src-1&v=12.50&c=DE"
    assert "there is no conversion under 'nothing'" in told("rule", "test", "nothing", code=1).err
    assert told("rule", "test", "", code=1).out == ""


def test_what_was_told_already_is_said(told: Run) -> None:
    told(*RULE, "Ads")
    counted = count_one("type=sale&value=12.50&currency=USD&txid=T-1&status=approved")
    deliver_everything()
    text = told("rule", "test", counted.request).out
    assert "rule 'R' to target 'Ads' fires: conversion of 12.50 USD" in text
    assert "if it happened again now: the source was told already (12.50 USD)" in text


def test_before_the_first_start_there_are_none_and_nothing_is_made(run: Run, data: Path) -> None:
    for kind in ("target", "rule"):
        assert run(kind, "list", "--json").json == []
        assert f"add one with 'postbackd {kind} add'" in run(kind, "list").err
    assert "no database in" in run("rule", "test", "--sample", "type=sale", code=1).err
    assert not data.exists()


@pytest.mark.parametrize("arguments", [(), ("x", "--sample", "type=sale")])
def test_it_tests_one_thing_at_a_time(told: Run, arguments: tuple[str, ...]) -> None:
    assert "name one: the ID of a conversion" in told("rule", "test", *arguments, code=2).err
