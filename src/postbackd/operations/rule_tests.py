"""Which rules fire for a conversion, and the exact requests that they would send.

Nothing is stored or sent, and no secret is opened: what stands for one is its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.catalog.documents import find_entry
from postbackd.catalog.entries import STAND_IN, what_cannot_be_told
from postbackd.catalog.errors import EntryError
from postbackd.core.click_id import first_stamp_at, read_stamp, write_stamp
from postbackd.core.deliveries import Delivery, Facts, Happened, Message, Outgoing, Owed, Told
from postbackd.core.model import Campaign, Catalog, Rule
from postbackd.core.money import CURRENCIES, read_micros, write_micros
from postbackd.core.planning import Planner
from postbackd.core.shipping import WEBHOOK, Names, ShippingError, make_shipper
from postbackd.core.statuses import Status
from postbackd.reports.log import find_click
from postbackd.reports.period import write_duration
from postbackd.store.base import Store
from postbackd.store.outbox import facts_of, happened_now, told_of

_SUBS = tuple(f"sub{n}" for n in range(1, 11))
SAMPLE = (
    *("type", "value", "currency", "status", "country", "offer", "campaign"),
    *("transaction_id", "source_click_id", "first", *_SUBS),
)
"""Fields of a made-up conversion."""

_SIGNATURE = "webhook-signature"


class Asked(Struct, frozen=True):
    """A conversion to test, and what was owed about it before."""

    happened: Happened
    told: tuple[Told, ...] = ()


# --- a stored conversion -----------------------------------------------------------------------------------------


async def find_conversions(store: Store, catalog: Catalog, text: str) -> list[Asked]:
    query = store.query
    named = await find_click(store, catalog, text)
    if "click_id" in named:
        return await _of_click(store, named["click_id"], None)
    stamp = read_stamp(text)
    if stamp is None:
        return []
    logged = await query("postback", request_id=stamp)
    found = logged or await query("conversion", conversion_id=stamp)
    if not found or found[0]["click_id"] is None:
        return []
    return await _of_click(store, found[0]["click_id"], found[0]["conversion_id"])


async def _of_click(store: Store, click_id: int, conversion_id: int | None) -> list[Asked]:
    """The conversions of a click, or one of them."""
    query = store.query
    clicks = await query("click", click_id=click_id)
    facts = facts_of(clicks[0]) if clicks else None
    rows = await query("conversions_of_click", click_id=click_id)
    told = [told_of(row) for row in await query("deliveries_of_click", click_id=click_id)]
    asked = []
    for row in rows:
        if conversion_id not in (None, row["conversion_id"]):
            continue
        about = tuple(earlier for earlier in told if earlier.conversion_id == row["conversion_id"])
        asked.append(Asked(happened_now(row, rows, facts), about))
    return asked


# --- a made-up conversion ----------------------------------------------------------------------------------------


def make_sample(catalog: Catalog, given: Mapping[str, str], at_ms: int) -> Happened:
    """A made-up conversion, as if it and its click were of ``at_ms``.  ``given``: fields of ``SAMPLE``.

    Raises ``EntryError`` and ``NoEntry``.
    """
    campaign = _campaign_of(catalog, given.get("campaign"))
    offer = campaign.offers[0].offer
    if "offer" in given:
        offer = find_entry(catalog.offers, given["offer"], "offer").id
    words = {status.word: status for status in Status}
    status = given.get("status", Status.APPROVED.word).lower()
    if status not in words:
        raise EntryError("status", f"{status!r} is no status; there are {', '.join(words)}")
    currency = given.get("currency", "USD").upper()
    value = read_micros(given.get("value", "0"), currency)
    if currency not in CURRENCIES or value is None:
        raise EntryError("value", "write the value and its currency like value=12.50,currency=USD")
    stamp = first_stamp_at(at_ms)
    return Happened(
        event=0,
        request_id=stamp,
        click_id=stamp,
        type=given.get("type", "conversion").lower(),
        transaction_id=given.get("transaction_id", ""),
        conversion_id=stamp,
        campaign=campaign.id,
        offer=offer,
        status_from=0,
        status=words[status],
        value_micros_from=0,
        value_micros=value,
        currency=currency,
        first=given.get("first", "yes").lower() in ("yes", "true", "1"),
        facts=Facts(
            given.get("source_click_id", "SOURCE_CLICK_ID"),
            None,
            given["country"].upper() if given.get("country") else None,
            tuple(given.get(name) for name in _SUBS),
        ),
    )


def _campaign_of(catalog: Catalog, name: str | None) -> Campaign:
    if name is not None:
        return find_entry(catalog.campaigns, name, "campaign")
    if len(catalog.campaigns) == 1:
        return catalog.campaigns[0]
    raise EntryError("campaign", "add campaign=NAME, whose rules are asked; see 'postbackd campaign list'")


# --- what the rules make of it -----------------------------------------------------------------------------------


def describe_tests(catalog: Catalog, asked: Sequence[Asked], at_ms: int) -> list[dict[str, Any]]:
    """What every rule that could concern them makes of conversions, as if they were counted at ``at_ms``."""
    planner, names = Planner(catalog), Names(catalog)
    return [_describe(catalog, planner, names, each, at_ms) for each in asked]


def _describe(catalog: Catalog, planner: Planner, names: Names, asked: Asked, at_ms: int) -> dict[str, Any]:
    happened = asked.happened
    campaigns = {c.id: c for c in (*catalog.removed_campaigns, *catalog.campaigns)}
    offers = {o.id: o.name for o in (*catalog.removed_offers, *catalog.offers)}
    campaign = campaigns.get(happened.campaign)
    targets = {target.id: target.name for target in catalog.targets}
    cannot = {target.id: what_cannot_be_told(target.how) for target in catalog.targets}
    owed = {each.rule: each for each in planner.plan([happened], (), at_ms)}
    now = {each.rule.id: each.why for each in planner.explain(happened, asked.told)} if asked.told else {}
    rules = []
    explained = planner.explain(happened, ())
    for rule, fires, why in explained:
        document: dict[str, Any] = {
            "rule": rule.name,
            "target": targets.get(rule.target),
            "fires": fires,
            "why": why,
            "now": now.get(rule.id),
            "cannot": cannot.get(rule.target, {}),
        }
        if rule.id in owed:
            document |= _describe_request(catalog, names, owed[rule.id], at_ms)
        rules.append(document)
    rules += _left_out(catalog, campaign, {each.rule.id for each in explained}, targets)
    return {
        "conversion": write_stamp(happened.conversion_id),
        "type": happened.type,
        "status": Status(happened.status).word,
        "value": write_micros(happened.value_micros),
        "currency": happened.currency,
        "transaction_id": happened.transaction_id,
        "campaign": campaign.name if campaign else None,
        "offer": offers.get(happened.offer),
        "rules": rules,
        "problems": list(planner.problems),
    }


def _left_out(
    catalog: Catalog, campaign: Campaign | None, asked: set[int], targets: Mapping[int, str]
) -> list[dict[str, Any]]:
    """The rules of the source that are not asked, because the campaign has rules of its own."""
    if campaign is None or not any(rule.campaign == campaign.id for rule in catalog.rules):
        return []

    def concerns(rule: Rule) -> bool:
        return rule.source == campaign.source and rule.id not in asked

    why = f"the campaign {campaign.name!r} has rules of its own, so those of its source do not count"
    return [
        {"rule": rule.name, "target": targets.get(rule.target), "fires": False, "why": why, "now": None}
        for rule in catalog.rules
        if concerns(rule)
    ]


def _describe_request(catalog: Catalog, names: Names, owed: Owed, at_ms: int) -> dict[str, Any]:
    """The request of a message; its delivery id gets a number only when it is stored."""
    target = next(target for target in catalog.targets if target.id == owed.target)
    delivery = Delivery(number=0, owed=owed, attempts=0, told=False, outdated=False)
    document: dict[str, Any] = {
        "message": Message(owed.message).word,
        "value": write_micros(owed.value_micros),
        "currency": owed.currency,
        "delay": write_duration((owed.due_ms - at_ms) // 1000),
    }
    try:
        shipper = make_shipper(target, dict.fromkeys(target.secrets, STAND_IN), names)
    except ShippingError as error:
        return {**document, "refusal": str(error), "request": None}
    refusal = shipper.refusal(delivery, at_ms)
    if not refusal and 0 < owed.expires_ms <= owed.due_ms:
        refusal = (
            f"too old for the target, which takes what is at most {write_duration(target.how.fresh_s)} old"
        )
    if refusal:
        return {**document, "refusal": refusal, "request": None}
    request = shipper.show([delivery], at_ms)
    return {**document, "refusal": None, "request": _write_request(request, target.how.kind)}


def _write_request(request: Outgoing, kind: str) -> dict[str, Any]:
    headers = dict(request.headers)
    if kind == WEBHOOK:
        headers[_SIGNATURE] = "v1,(SECRET)"
    return {
        "method": request.method,
        "url": request.url,
        "headers": headers,
        "body": request.body.decode("utf-8", "replace"),
    }
