"""``postbackd rule test``: which rules fire for a conversion, and the exact requests that they would send.

Nothing is stored or sent, and no secret is opened: what stands for one is its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from msgspec import Struct

from postbackd.catalog.documents import find_entry
from postbackd.catalog.entries import STAND_IN
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.click_id import KeyRing, first_stamp_at, read_stamp, write_stamp
from postbackd.core.deliveries import Delivery, Facts, Happened, Message, Outgoing, Owed, Told
from postbackd.core.model import Campaign, Catalog, Rule
from postbackd.core.money import CURRENCIES, read_micros, write_micros
from postbackd.core.planning import Planner
from postbackd.core.privacy import Masker
from postbackd.core.shipping import WEBHOOK, Names, ShippingError, make_shipper
from postbackd.core.statuses import Status
from postbackd.reports.period import write_duration
from postbackd.settings import Settings
from postbackd.store.outbox import facts_of, happened_now, told_of

_SUBS = tuple(f"sub{n}" for n in range(1, 11))
_SAMPLE = (
    *("type", "value", "currency", "status", "country", "offer", "campaign"),
    *("transaction_id", "source_click_id", "first", *_SUBS),
)
_SIGNATURE = "webhook-signature"


class Asked(Struct, frozen=True):
    """A conversion to test, and what was owed about it before."""

    happened: Happened
    told: tuple[Told, ...] = ()


@click.command("test")
@click.argument("id_", metavar="[ID]", required=False)
@click.option(
    "--sample",
    metavar="FIELD=VALUE,...",
    help="A made-up conversion instead, such as type=sale,value=12.50,currency=USD,status=approved,country=DE,"
    f"campaign=NAME. Fields: {', '.join(_SAMPLE[:10])}, sub1 to sub10.",
)
@as_json
@takes_data
def test_rules(id_: str | None, sample: str | None, settings: Settings, json_wanted: bool) -> None:
    """Show which rules fire for a conversion, and the exact requests they would send; nothing is sent.

    ID is a conversion id, a click id, or the request id of a postback. Rules are asked as if it were counted now.
    Exit code 1 when there is no conversion under the ID.
    """
    if (id_ is None) == (sample is None):
        raise click.UsageError("name one: the ID of a conversion, click or request, or --sample")

    async def work(session: Session) -> list[dict[str, Any]]:
        catalog = await session.load()
        if sample is not None:
            asked = [Asked(make_sample(catalog, sample, now_ms()))]
        else:
            asked = await _find(session, catalog, (id_ or "").strip())
        return describe_tests(catalog, asked, now_ms())

    documents = visit(settings, work)
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo("\n\n".join(_format(document) for document in documents))
    if not documents:
        raise click.ClickException(
            f"there is no conversion under {id_!r}; 'postbackd why' says what became of an id"
        )


# --- a stored conversion -----------------------------------------------------------------------------------------


async def _find(session: Session, catalog: Catalog, text: str) -> list[Asked]:
    query = session.store.query
    verified = KeyRing(catalog.signing_keys).verify(text)
    if verified is not None:
        return await _of_click(session, verified[0], None)
    owned = await query("own_id", own_id=Masker(catalog.privacy_key).mask(text))
    if owned:
        return await _of_click(session, owned[0]["click_id"], None)
    stamp = read_stamp(text)
    if stamp is None:
        return []
    logged = await query("postback", request_id=stamp)
    found = logged or await query("conversion", conversion_id=stamp)
    if not found or found[0]["click_id"] is None:
        return []
    return await _of_click(session, found[0]["click_id"], found[0]["conversion_id"])


async def _of_click(session: Session, click_id: int, conversion_id: int | None) -> list[Asked]:
    """The conversions of a click, or one of them."""
    query = session.store.query
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


def make_sample(catalog: Catalog, text: str, at_ms: int) -> Happened:
    """The conversion that ``--sample`` describes, as if it and its click were of ``at_ms``."""
    given = _read_sample(text)
    campaign = _campaign_of(catalog, given.get("campaign"))
    offer = campaign.offers[0].offer
    if "offer" in given:
        offer = find_entry(catalog.offers, given["offer"], "offer").id
    words = {status.word: status for status in Status}
    status = given.get("status", Status.APPROVED.word).lower()
    if status not in words:
        raise click.UsageError(f"--sample: {status!r} is no status; there are {', '.join(words)}")
    currency = given.get("currency", "USD").upper()
    value = read_micros(given.get("value", "0"), currency)
    if currency not in CURRENCIES or value is None:
        raise click.UsageError("--sample: write the value and its currency like value=12.50,currency=USD")
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


def _read_sample(text: str) -> dict[str, str]:
    """``FIELD=VALUE`` pieces; a comma that no field follows belongs to the value before it."""
    given: dict[str, str] = {}
    last = ""
    for piece in text.split(","):
        name, equals, value = piece.partition("=")
        name = name.strip().lower()
        if equals and name in _SAMPLE:
            last, given[name] = name, value.strip()
        elif last and not equals:
            given[last] += f",{piece}"
        else:
            raise click.UsageError(
                f"--sample: {piece.strip()!r} is not usable; write FIELD=VALUE with a field of "
                f"{', '.join(_SAMPLE[:10])}, sub1 to sub10"
            )
    return given


def _campaign_of(catalog: Catalog, name: str | None) -> Campaign:
    if name is not None:
        return find_entry(catalog.campaigns, name, "campaign")
    if len(catalog.campaigns) == 1:
        return catalog.campaigns[0]
    raise click.UsageError(
        "--sample: add campaign=NAME, whose rules are asked; see 'postbackd campaign list'"
    )


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


# --- in words ----------------------------------------------------------------------------------------------------


def _format(document: Mapping[str, Any]) -> str:
    said = f"{document['type']} of {document['value']} {document['currency']}, {document['status']}"
    where = f"campaign {document['campaign']!r}, offer {document['offer']!r}"
    lines = [f"conversion {document['conversion']}: {said}, {where}"]
    for rule in document["rules"]:
        lines += _format_rule(rule)
    if not document["rules"]:
        lines.append("no rule is of this campaign or its source; add one with 'postbackd rule add'")
    lines += [f"! {problem}" for problem in document["problems"]]
    return "\n".join(lines)


def _format_rule(rule: Mapping[str, Any]) -> list[str]:
    sign, verb = ("+", "fires") if rule["fires"] else ("-", "does not fire")
    lines = [f"{sign} rule {rule['rule']!r} to target {rule['target']!r} {verb}: {rule['why']}"]
    if rule["now"]:
        lines.append(f"    if it happened again now: {rule['now']}")
    if rule.get("refusal"):
        lines.append(f"    but it would not be sent: {rule['refusal']}")
    request = rule.get("request")
    if request:
        after = "" if rule["delay"] == "0s" else f"after {rule['delay']}: "
        lines.append(f"    {after}{request['method']} {request['url']}")
        lines += [f"    {name}: {value}" for name, value in request["headers"].items()]
        lines += [f"    {line}" for line in request["body"].splitlines()]
    return lines
