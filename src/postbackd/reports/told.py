"""What the source of a click was told of its conversions, and why nothing is owed where nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from postbackd.core.click_id import KeyRing
from postbackd.core.deliveries import Happened, Told
from postbackd.core.model import Catalog
from postbackd.core.planning import Planner
from postbackd.reports.deliveries import DeliveryDescriber, Row, format_attempt, said, sum_up
from postbackd.store.base import Store
from postbackd.store.outbox import facts_of, happened_now, told_of

NOT_ASKED = (
    "the rules have not been asked yet; 'postbackd serve' or 'postbackd deliver' does it within a second, "
    "so if this stays: start one"
)
TOO_LATE = (
    "the rule holds now, but was not there, or another, when this happened; the next change of the conversion "
    "makes up for it"
)


class Teller:
    """Tells of one click after the other, by the catalog of one moment."""

    def __init__(self, store: Store, catalog: Catalog, describer: DeliveryDescriber) -> None:
        self._store = store
        self._planner = Planner(catalog)
        self._describer = describer
        self._targets = {target.id: target.name for target in catalog.targets}
        self._sources = {source.id: source.name for source in catalog.sources}
        self._source_of = {
            campaign.id: campaign.source for campaign in (*catalog.removed_campaigns, *catalog.campaigns)
        }

    @classmethod
    async def load(cls, store: Store, catalog: Catalog, keys: KeyRing, now_ms: int) -> Teller:
        """One that knows how the targets are served now."""
        return cls(store, catalog, await DeliveryDescriber.load(store, keys, now_ms))

    async def deliveries(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """A document of each delivery with its attempts; ``rows``: of the statement ``deliveries_of_click``."""
        return [await self._describer.tell(self._store, row) for row in rows]

    async def explain(
        self, click_id: int, click: Row | None, conversions: Sequence[Row], deliveries: Sequence[Row]
    ) -> dict[int, dict[str, Any]]:
        """Of each conversion of a click: ``rules``, what each rule in force makes of it, and ``unasked``.

        ``click`` is ``None`` when it is purged.  ``conversions``: all of the click.  ``unasked``: something happened to
        the conversion that the rules have not been asked about.
        """
        events = await self._store.query("events_of_click", click_id=click_id) if conversions else []
        unasked = {event["conversion_id"] for event in events}
        told = [told_of(row) for row in deliveries]
        facts = None if click is None else facts_of(click)
        explained = {}
        for row in conversions:
            about = [one for one in told if one.conversion_id == row["conversion_id"]]
            explained[row["conversion_id"]] = {
                "rules": self._ask_rules(happened_now(row, conversions, facts), about),
                "unasked": row["conversion_id"] in unasked,
            }
            if not explained[row["conversion_id"]]["rules"]:
                explained[row["conversion_id"]]["no_rule"] = self._say_no_rule(row)
        return explained

    def _ask_rules(self, happened: Happened, told: Sequence[Told]) -> list[dict[str, Any]]:
        tellers = {one.rule for one in told}
        return [
            {
                "rule": one.rule.name,
                "target": self._targets.get(one.rule.target),
                "fires": one.fires,
                "why": one.why,
                "has_deliveries": one.rule.id in tellers,
                "target_state": self._describer.target_note(one.rule.target),
            }
            for one in self._planner.explain(happened, told)
        ] + self._say_problems(happened.campaign)

    def _say_problems(self, campaign: int) -> list[dict[str, Any]]:
        """Rules that cannot be followed at all; none while everything is as this version writes it."""
        if not self._planner.delivers(campaign):
            return []
        return [
            {
                "rule": None,
                "target": None,
                "fires": False,
                "why": problem,
                "has_deliveries": False,
                "target_state": None,
            }
            for problem in self._planner.problems
        ]

    def _say_no_rule(self, conversion: Row) -> str:
        source = self._sources.get(self._source_of.get(conversion["campaign"], 0))
        whose = f"source {source!r}" if source else "its source, which was removed,"
        return (
            f"there is no rule for {whose} or campaign {conversion['campaign_name']!r}; "
            "add one with 'postbackd rule add'"
        )


# --- for people --------------------------------------------------------------------------------------------------


def format_told(document: Mapping[str, Any], conversion: Mapping[str, Any]) -> list[str]:
    """The lines of ``why`` below a conversion: each delivery with its attempts, then the rules that made none."""
    lines = []
    for delivery in document["deliveries"]:
        if delivery["conversion"] == conversion["conversion"]:
            lines += _format_delivery(delivery, again=_is_last(delivery, document["deliveries"]))
    if conversion["unasked"]:
        lines.append(f"  not told yet: {NOT_ASKED}")
    if "no_rule" in conversion:
        lines.append(f"  nothing is owed: {conversion['no_rule']}")
    lines += [
        f"  {_format_rule(rule)}"
        for rule in conversion["rules"]
        if not rule["has_deliveries"] and not (rule["fires"] and conversion["unasked"])
    ]
    return lines


def _format_rule(rule: Mapping[str, Any]) -> str:
    if rule["rule"] is None:
        return str(rule["why"])
    what = f"nothing for {rule['target']} by rule {rule['rule']}"
    return f"{what}: {TOO_LATE} ({rule['why']})" if rule["fires"] else f"{what}: {rule['why']}"


def _is_last(delivery: Mapping[str, Any], deliveries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it was not sent again since; ``deliveries``: oldest first."""
    what = ("conversion", "rule", "message")
    same = [other for other in deliveries if all(other[name] == delivery[name] for name in what)]
    return same[-1] is delivery


def _format_delivery(delivery: Mapping[str, Any], *, again: bool) -> list[str]:
    """One delivery and its attempts, a line each; ``again``: whether it makes sense to send it again."""
    lines = [
        f"  told {delivery['target']} by rule {delivery['rule']}: {said(delivery)}, {sum_up(delivery)}",
        f"    delivery {delivery['delivery']}",
        *(f"    {attempt['attempt']}  {format_attempt(attempt)}" for attempt in delivery["attempt_log"]),
    ]
    # Of what the database refused, not even the currency is known: there is nothing to send.
    if delivery["state"] == "dead" and again and delivery["currency"]:
        lines.append(f"    send it again with: postbackd delivery retry {delivery['delivery']}")
    return lines
