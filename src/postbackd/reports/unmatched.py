"""The doctor of postbacks that were not counted: for every network and reason what broke, where, and what to change.

Counts, first and last are of all rows of the period.  What the rows show (texts, lengths, shapes, examples) is of the
newest of each network (``LOOKED_AT``), so that the answer takes as long for ten million rows as for ten thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from postbackd.core.click_id import KeyRing, stamp_ms
from postbackd.core.diagnosis import Reason, diagnose_click_id
from postbackd.core.hops import Altered, Shown, find_hop, is_young, read_link, tell_altered
from postbackd.core.mending import mend_own
from postbackd.core.model import Catalog, Channel, Network
from postbackd.core.moments import write_moment
from postbackd.core.verdicts import word_of
from postbackd.presets import find_preset
from postbackd.reports.log import describe_row
from postbackd.reports.mending_steps import Facts, WriteUrl, say_steps
from postbackd.reports.period import Period
from postbackd.reports.table import percent
from postbackd.store.base import Store

LOOKED_AT = 500
"""Newest rows of each network whose texts are looked at."""

EXAMPLES = 3
"""Of each network and reason."""

_MOST_TEXTS = 200
"""Altered ids of one network whose clicks are looked up."""

Row = Mapping[str, Any]


async def examine_unmatched(
    store: Store, period: Period, write_url: WriteUrl, now_ms: int, network: int | None = None
) -> dict[str, Any]:
    """The document: ``groups``, most postbacks first, each with its hop, its examples and the steps that mend it.

    ``write_url`` makes the postback URL of a network, with the macros of its preset.  ``network``: only this one.
    """
    catalog, ever = await store.load_catalog(), await store.load_catalog(removed=True)
    doctor = _Doctor(store, catalog, write_url, now_ms, await _read_horizon(store))
    stamps = period.stamps()
    totals = {row["network"]: row["count"] for row in await store.query("postback_totals", **stamps)}
    own_ids = bool(await store.query("any_own_id"))
    live = {entry.id for entry in catalog.networks}
    networks = [*catalog.networks, *(entry for entry in ever.networks if entry.id not in live)]
    groups: list[dict[str, Any]] = []
    for entry in networks:
        if network in (None, entry.id) and totals.get(entry.id):
            groups += await doctor.examine(entry, totals[entry.id], stamps, own_ids, entry.id not in live)
    return {
        "since": None if period.since_ms is None else write_moment(period.since_ms),
        "until": None if period.until_ms is None else write_moment(period.until_ms),
        "postbacks": sum(totals.values()) if network is None else totals.get(network, 0),
        "not_counted": sum(group["count"] for group in groups),
        "groups": sorted(groups, key=lambda group: (-group["count"], group["network"], group["reason"])),
    }


async def _read_horizon(store: Store) -> int:
    rows = await store.query("purged_before")
    return int(rows[0]["stamp"]) if rows else 0


class _Doctor:
    """Looks at one network after the other, by the catalog of one moment."""

    def __init__(
        self, store: Store, catalog: Catalog, write_url: WriteUrl, now_ms: int, purged_before: int
    ) -> None:
        self._store = store
        self._keys = KeyRing(catalog.signing_keys)
        self._offers = [*catalog.offers]
        self._write_url = write_url
        self._now_ms = now_ms
        self._purged_before = purged_before

    async def examine(
        self, network: Network, total: int, stamps: Mapping[str, int], own_ids: bool, removed: bool
    ) -> list[dict[str, Any]]:
        """Every verdict and reason of one network."""
        asked = {"network": network.id, **stamps}
        counted = await self._store.query("unmatched_of_network", **asked)
        if not counted:
            return []
        newest = await self._store.query("unmatched_newest", **asked, limit=LOOKED_AT)
        groups = []
        for group in counted:
            rows = [r for r in newest if (r["verdict"], r["reason"]) == (group["verdict"], group["reason"])]
            if not rows:  # rarer than the newest ones: its last one says something, too
                rows = await self._store.query("postback", request_id=group["last"])
            groups.append(await self._describe(network, group, rows, total, own_ids, removed))
        return groups

    async def _describe(
        self, network: Network, group: Row, rows: Sequence[Row], total: int, own_ids: bool, removed: bool
    ) -> dict[str, Any]:
        reason = Reason(group["reason"])
        mendable = await self._count_mendable(reason, rows)
        shown = await self._show(network, reason, group["count"], rows, total, own_ids)
        broken = find_hop(shown)
        facts = Facts(network, shown, rows, await self._offers_of(reason, rows), mendable, removed)
        return {
            "network": network.name,
            "removed": removed,
            "verdict": word_of(group["verdict"]),
            "reason": reason.word,
            "count": group["count"],
            "share": round(group["count"] / max(total, 1), 6),
            "first": write_moment(stamp_ms(group["first"])),
            "last": write_moment(stamp_ms(group["last"])),
            "hop": broken.hop.value,
            "why": broken.why,
            "cause": reason.cause,
            "fix": reason.fix,
            "steps": say_steps(facts, self._write_url),
            "repairable": {"looked_at": len(rows), "count": mendable},
            "kinds": {kind.name.lower(): count for kind, count in shown.altered.items()},
            "arrived_as": dict(Counter(shown.texts).most_common(5)),
            "examples": [describe_row(row, self._keys) for row in rows[:EXAMPLES]],
        }

    async def _show(
        self, network: Network, reason: Reason, count: int, rows: Sequence[Row], total: int, own_ids: bool
    ) -> Shown:
        preset = find_preset("network", network.preset) if network.preset else None
        texts = Counter(row["click_text"] for row in rows if row["click_text"])
        hints: Counter[str] = Counter()
        if reason is Reason.CLICK_ID_FOREIGN:
            for text, often in texts.items():
                hint = diagnose_click_id(text, self._keys, self._now_ms).hint
                if hint:
                    hints[hint] += often
        genuine = [row for row in rows if row["click_id"] is not None]
        young = sum(is_young(row["click_id"], row["request_id"]) for row in genuine)
        return Shown(
            network=network.name,
            reason=reason,
            count=count,
            total=total,
            texts=dict(texts.most_common()),
            hints=dict(hints.most_common()),
            altered=await self._tell_altered(rows) if reason is Reason.CLICK_ID_ALTERED else {},
            pixel_only=all(row["channel"] == Channel.PIXEL for row in rows),
            macro=preset.fields.get("click_id") if preset else None,
            links=tuple(
                read_link(offer.name, offer.url) for offer in self._offers if offer.network == network.id
            ),
            own_ids=own_ids,
            young=young / len(genuine) if genuine else 0.0,
        )

    async def _tell_altered(self, rows: Sequence[Row]) -> Mapping[Altered, int]:
        told: Counter[Altered] = Counter()
        for row in rows[:_MOST_TEXTS]:
            text = row["click_text"] or ""
            if diagnose_click_id(text, self._keys, self._now_ms).stamp is not None:
                told[Altered.SURROUNDED] += 1
                continue
            told[await self._tell_one(text)] += 1
        return dict(told.most_common())

    async def _tell_one(self, text: str) -> Altered:
        spelled: list[int] = []

        def note(stamp: int) -> bool:
            spelled.append(stamp)
            return False

        told = tell_altered(text, self._keys, self._purged_before, note)
        if spelled and await self._store.query("click", click_id=spelled[0]):
            return Altered.TAIL_CHANGED
        return told

    async def _count_mendable(self, reason: Reason, rows: Sequence[Row]) -> int:
        """How many of the rows hold an id of ours that verifies after a repair."""
        if reason not in _MENDABLE:
            return 0
        postbacks = await self._store.load_postbacks([row["request_id"] for row in rows])
        return sum(mend_own(postback, self._keys) is not None for postback in postbacks)

    async def _offers_of(self, reason: Reason, rows: Sequence[Row]) -> dict[str, int]:
        """Offer -> the greatest age in milliseconds that a conversion of it had, where the window matters."""
        ages: dict[str, int] = {}
        if reason not in (Reason.CLICK_AFTER_WINDOW, Reason.CLICK_BEFORE_WINDOW):
            return ages
        late = reason is Reason.CLICK_AFTER_WINDOW
        for row in rows[:_MOST_TEXTS]:
            clicks = await self._store.query("click", click_id=row["click_id"])
            name = clicks[0]["offer_name"] if clicks else None
            if name is not None:
                age = stamp_ms(row["request_id"]) - stamp_ms(row["click_id"])
                ages[name] = (max if late else min)(ages.get(name, age), age)
        return ages


_MENDABLE = frozenset(
    {
        Reason.CLICK_ID_MISSING,
        Reason.CLICK_ID_EMPTY,
        Reason.MACRO_LITERAL,
        Reason.CLICK_ID_TRUNCATED,
        Reason.CLICK_ID_ALTERED,
        Reason.CLICK_ID_DOUBLE_ENCODED,
        Reason.CLICK_ID_IN_OTHER_FIELD,
        Reason.CLICK_ID_FOREIGN,
        Reason.TEST_EVENT,
    }
)


# --- for people --------------------------------------------------------------------------------------------------


def format_unmatched(document: Mapping[str, Any]) -> str:
    """The document as text."""
    if not document["groups"]:
        return f"all of {document['postbacks']:,} postbacks were counted; nothing to repair"
    lines = [f"{document['not_counted']:,} of {document['postbacks']:,} postbacks were not counted"]
    for group in document["groups"]:
        lines += [
            "",
            _headline(group),
            f"  broken    {group['hop']}: {group['why']}",
        ]
        for step in group["steps"]:
            lines.append(f"  do        {step['do']}")
            lines += [f"            {step[name]}" for name in ("url", "command") if name in step]
        repairable = group["repairable"]
        if repairable["count"]:
            lines.append(
                f"  repair    {repairable['count']} of {repairable['looked_at']} looked at can be repaired"
            )
        lines += [
            f"  example   {example['request']}  click={example['click_id'] or '-'}"
            for example in group["examples"]
        ]
    return "\n".join(lines)


def _headline(group: Mapping[str, Any]) -> str:
    return (
        f"{group['network']}{' (removed)' if group['removed'] else ''}: {group['count']:,} {group['verdict']} "
        f"({group['reason']}), {percent(group['share'])} of its postbacks, {group['first']} to {group['last']}"
    )


def format_repairs(found: Sequence[Mapping[str, Any]], verb: str = "would be") -> list[str]:
    """Each repair as three lines: what arrived, and which click it is."""
    lines = []
    for one in found:
        click = one["click"]
        lines += [
            f"{one['request']}  {one['network']}  {one['reason']}: {one['damage']}",
            f"    received {one['received']!r} in {one['field']}, is {one['click_id']}",
            f"    the click of {click['time']}, campaign {click['campaign']}; {verb} {one['would_be']}",
        ]
    return lines
