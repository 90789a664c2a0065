"""Google is told of changes and reversals as its public documents say, and of consent only what the click brought.

The cases are ``spec/vectors/platforms.json``.  No stand-in here was compared with the service.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.catalog.entries import can_be_told, check_reactions, usual_reactions
from postbackd.catalog.errors import EntryError
from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.consent import Consent
from postbackd.core.deliveries import Answer, Delivery, Message
from postbackd.core.model import How, Rule, Target
from postbackd.core.money import read_micros
from postbackd.core.planning import Planner
from postbackd.core.platforms import PLATFORMS
from postbackd.core.replies import Outcome
from postbackd.store.outbox import make_facts
from tests.core.desk import stamp_at
from tests.core.test_planning import FACTS, NOW, make_catalog, make_event
from tests.core.test_platforms import ADS, SECRETS, ads_answer, delivery, row_error

VECTORS = json.loads((Path(__file__).parents[2] / "spec/vectors/platforms.json").read_text("utf-8"))
CONVERTED_MS, SENT_MS = VECTORS["conversion"]["converted_ms"], VECTORS["now_ms"]
WORDS = {message.word: message for message in Message}


def owed(case: dict[str, Any]) -> Delivery:
    one = delivery(message=WORDS[case["message"]], source_id=VECTORS["conversion"]["source_click_id"])
    micros = read_micros(case.get("value", "1"), "USD")
    assert micros is not None
    changed = replace(
        one.owed,
        click_id=stamp_at(CONVERTED_MS - 60_000),
        conversion_id=stamp_at(CONVERTED_MS),
        value_micros=micros,
        currency=case.get("currency", "USD"),
        facts=replace(one.owed.facts, consented=case.get("consented", False)),
    )
    return replace(one, owed=changed)


@pytest.mark.parametrize("case", VECTORS["google"], ids=lambda case: f"{case['kind']}: {case['note']}")
def test_google_is_told_as_its_documents_say(case: dict[str, Any]) -> None:
    platform, one = PLATFORMS[case["kind"]], owed(case)
    options = VECTORS["options"] | case.get("more_options", {})
    now_ms = case.get("now_ms", SENT_MS)
    platform.check_options(options, SECRETS)
    refused = platform.check_delivery(one, options, now_ms)
    if "refused" in case:
        assert case["refused"] in refused
        return
    assert refused == ""
    sent = platform.make([one], [{}], options, SECRETS, now_ms)
    if "method" in case:
        assert sent.url.endswith(":" + case["method"])
    rows = {name: case[name] for name in ("events", "conversions", "conversionAdjustments") if name in case}
    named = json.dumps(rows).replace("{id}", write_stamp(one.owed.conversion_id))
    assert json.loads(sent.body).items() >= json.loads(named).items()


def test_the_id_of_the_cases_is_that_of_their_conversion() -> None:
    conversion = owed({"message": "conversion"}).owed.conversion_id
    assert (stamp_ms(conversion), write_stamp(conversion)) == (CONVERTED_MS, VECTORS["conversion"]["id"])


@pytest.mark.parametrize("case", VECTORS["rows"], ids=lambda case: f"{case['message']}: {case['error']}")
def test_a_row_that_google_refuses_is_judged_by_what_was_told(case: dict[str, Any]) -> None:
    field = "conversions" if case["message"] == "conversion" else "conversion_adjustments"
    error = row_error("1", case["error"])
    error["location"]["fieldPathElements"][0]["fieldName"] = field
    one = owed(case)
    fine, judged = ADS.read(ads_answer(error), [one, one], SENT_MS)
    assert fine.outcome is Outcome.DELIVERED
    assert not fine.reason
    assert judged.outcome is Outcome[case["outcome"].upper()]
    assert case["error"] in judged.reason
    assert judged.retry_after_ms == case.get("wait_ms", 0)


def test_a_lost_answer_to_an_adjustment_is_not_taken_for_a_success() -> None:
    one = owed({"message": "adjustment"})
    assert [row.outcome for row in ADS.read(Answer(error="closed"), [one], SENT_MS)] == [Outcome.FAILED]


# --- what rules may say ---------------------------------------------------------------------------------------


def target(kind: str, **options: str) -> Target:
    return Target(id=1, name="g", how=How(kind=kind, options=VECTORS["options"] | options))


@pytest.mark.parametrize(
    ("kind", "options", "usual"),
    [
        ("google_data_manager", {}, ("adjust", "adjust")),
        ("google_ads", {}, ("adjust", "retract")),
        ("google_ads", {"click_id_kind": "wbraid"}, ("ignore", "ignore")),
        ("meta", {}, ("ignore", "ignore")),
    ],
)
def test_a_rule_that_says_nothing_tells_what_the_target_can_be_told(
    kind: str, options: dict[str, str], usual: tuple[str, str]
) -> None:
    assert usual_reactions(target(kind, **options).how) == usual


def test_a_rule_that_wants_what_google_cannot_take_is_told_what_to_write() -> None:
    rule = Rule(id=1, name="r", source=1, target=1, on_change="adjust", on_reversal="retract")
    with pytest.raises(EntryError, match="cannot take a conversion back; write adjust"):
        check_reactions(rule, target("google_data_manager"))
    with pytest.raises(EntryError, match="wbraid"):
        check_reactions(rule, target("google_ads", click_id_kind="wbraid"))
    check_reactions(rule, target("google_ads"))
    assert can_be_told(target("google_ads").how, Message.RETRACTION)


# --- consent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "covers", "says"),
    [
        ("google_data_manager", "everything", "one or more of ad_user_data, ad_personalization"),
        ("google_data_manager", "ad_user_data,,", "one or more of"),
        ("google_ads", "ad_personalization", "one or more of ad_user_data, with commas"),
        ("meta", "ad_user_data", "unknown option consent_covers"),
    ],
)
def test_a_consent_that_cannot_be_told_is_refused_with_the_target(kind: str, covers: str, says: str) -> None:
    options = {"pixel_id": "1"} if kind == "meta" else VECTORS["options"]
    with pytest.raises(ValueError, match=says):
        PLATFORMS[kind].check_options(options | {"consent_covers": covers}, SECRETS)


def test_only_a_clear_yes_is_a_consent() -> None:
    asked = Consent(False, "consent", frozenset({"DE"}))
    assert asked.given([("consent", "granted")])
    assert not asked.given([("consent", "maybe")])
    assert not asked.given([])
    assert not Consent(True, "", frozenset()).given([("consent", "1")])


@pytest.mark.parametrize(("kind", "consented"), [(0, False), (0x40, True), (0x43, True), (0x20, False)])
def test_the_consent_of_a_click_is_read_from_its_row(kind: int, consented: bool) -> None:
    assert make_facts((1, "src", None, "DE", kind, None)).consented is consented


@pytest.mark.parametrize(("kind", "kept"), [("google_ads", True), ("postback", False)])
def test_a_delivery_takes_the_consent_along_where_the_target_may_ask_for_it(kind: str, kept: bool) -> None:
    planner = Planner(make_catalog(target=Target(id=70, name="t", how=How(kind=kind))))
    said_yes = replace(FACTS, consented=True)
    (one,) = planner.plan([make_event(facts=said_yes)], [], NOW)
    assert one.facts.consented is kept
