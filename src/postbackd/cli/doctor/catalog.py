"""The catalog: whether there is enough of it, how well postbacks match, and whether its rules can be followed."""

from __future__ import annotations

from typing import Any

from postbackd.cli.doctor.privacy import look_at_privacy
from postbackd.cli.doctor.senders import look_at_senders
from postbackd.cli.session import Session
from postbackd.core.conditions import ConditionError, compile_condition
from postbackd.core.diagnosis import Reason
from postbackd.core.finding import Finding
from postbackd.core.model import Catalog
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.planning import Planner
from postbackd.core.rollups import HEALTHY_MATCH_RATE
from postbackd.reports.period import Period
from postbackd.reports.report import build_report
from postbackd.reports.table import percent
from postbackd.reports.why import mapping_command
from postbackd.runtime import open_secrets
from postbackd.store.sealed import SENDER_SECRET

_ENOUGH_POSTBACKS = 20
"""With fewer a match rate says nothing yet."""


_MATCHING_DAYS = 7
"""How far back match rates are looked at: what was mended long ago is no finding."""


async def look_at_catalog(session: Session, catalog: Catalog, now_ms: int) -> list[Finding]:
    groups = (await build_report(session.store, Period(), "network"))["groups"]
    lately = Period(now_ms - _MATCHING_DAYS * 86_400_000)
    findings = [check_catalog(catalog)]
    for group in (await build_report(session.store, lately, "network"))["groups"]:
        findings += [check_matching(group)] if _says_something(group) else []
    for group in groups:
        findings += await _look_at_mapping(session, catalog, group)
    findings += await look_at_privacy(session, catalog)
    findings += await look_at_senders(
        session, catalog.networks, open_secrets(session.settings, SENDER_SECRET)
    )
    if catalog.rules:
        findings.append(check_rules(catalog))
    return findings


def check_catalog(catalog: Catalog) -> Finding:
    ok = bool(catalog.campaigns and catalog.networks)
    return Finding(
        check="catalog",
        ok=ok,
        detail=f"{len(catalog.networks)} networks, {len(catalog.sources)} sources, {len(catalog.offers)} offers, "
        f"{len(catalog.campaigns)} campaigns",
        fix=None
        if ok
        else "Add a network, a source, an offer and a campaign, or run 'postbackd serve --example'.",
    )


def _says_something(group: dict[str, Any]) -> bool:
    return bool(group["postbacks"]["total"] >= _ENOUGH_POSTBACKS and group["match_rate"] is not None)


def check_matching(group: dict[str, Any]) -> Finding:
    healthy = group["match_rate"] >= HEALTHY_MATCH_RATE
    rate, total = percent(group["match_rate"]), group["postbacks"]["total"]
    detail = f"{rate} of {total:,} postbacks of the last {_MATCHING_DAYS} days matched"
    check = f"match rate of {group['network'] or 'a removed network'}"
    if healthy:
        return Finding(check=check, ok=True, detail=detail)
    main = list(group["postbacks"]["unmatched_by_reason"].items())[:3]
    words = ", ".join(f"{count:,} {word}" for word, count in main)
    fixes = " ".join(f"For {word}: {Reason[word.upper()].fix}" for word, _ in main)
    return Finding(check=check, ok=False, detail=f"{detail}; {words}", fix=fixes or None)


async def _look_at_mapping(session: Session, catalog: Catalog, group: dict[str, Any]) -> list[Finding]:
    """Click ids that were found in a parameter that is not mapped for them yet.  Nothing is lost, so nothing fails."""
    reason = Reason.CLICK_ID_IN_OTHER_FIELD
    count = group["postbacks"]["by_reason"].get(reason.word, 0)
    network = next((network for network in catalog.networks if network.name == group["network"]), None)
    if not count or network is None:
        return []
    newest = await session.store.query("log", reason=reason.value, network=network.id, limit=1)
    found_in = newest[0]["found_in"] if newest else None
    if found_in is None or found_in.lower() in FieldMap(POSTBACK_NAMES, network.fields).names["click_id"]:
        return []
    return [
        Finding(
            check=f"click id of {network.name}",
            ok=True,
            detail=f"{count} postbacks had it in another parameter, the last one in {found_in}",
            fix=f"Run: {mapping_command(network.name, found_in)}",
        )
    ]


def check_rules(catalog: Catalog) -> Finding:
    """Rules that cannot be followed, or that wait for something that does not exist."""
    found = list(Planner(catalog).problems)
    names = [
        {entry.name for entry in entries}
        for entries in (
            (*catalog.removed_offers, *catalog.offers),
            catalog.networks,
            (*catalog.removed_campaigns, *catalog.campaigns),
        )
    ]
    for rule in catalog.rules:
        try:
            warnings = compile_condition(rule.condition).warnings(*names)
        except ConditionError:  # one of the problems
            continue
        found += [f"rule {rule.name!r}: {warning}" for warning in warnings]
    return Finding(
        check="rules",
        ok=not found,
        detail="; ".join(found) if found else f"{len(catalog.rules)}, and all can be followed",
        fix="Mend each with 'postbackd rule set NAME'; 'postbackd rule test' shows what it does."
        if found
        else None,
    )
