"""What became of one id: the whole timeline, or, for an id that is not known, the cause and the fix.

An id is tried as a click id, a caller's own click id, a request, conversion or delivery id, and a transaction id, in
this order; the first that is known answers.  Transaction ids need not be unique and are looked up without an
index, which takes as long as reading the log does.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from postbackd.core.click_id import KeyRing, read_stamp, stamp_ms, write_stamp
from postbackd.core.diagnosis import Reason, diagnose_click_id
from postbackd.core.model import ERASED_BIT, KIND_BITS, NO_CONSENT_BIT, Catalog, Channel, ClickKind
from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.core.privacy import Masker
from postbackd.core.statuses import Status
from postbackd.reports.deliveries import NoDelivery, find_delivery, looks_like_delivery
from postbackd.reports.log import describe_row, format_row
from postbackd.reports.told import Teller, format_told
from postbackd.store.base import Store

_MOST_ROWS = 1000


async def explain(store: Store, text: str, now_ms: int) -> dict[str, Any]:
    """The document that ``why --json`` prints.

    Always has ``id``, ``kind``, ``found``, ``clicks``, ``conversions``, ``deliveries`` and ``events`` (oldest first);
    ``reason``, ``cause`` and ``fix`` when something is wrong with the id.  A conversion has ``rules``: what each rule
    in force makes of it.  An id that is not found has events all the same
    when postbacks brought it.
    """
    catalog = await store.load_catalog()
    keys = KeyRing(catalog.signing_keys)
    teller = await Teller.load(store, catalog, keys, now_ms)
    document = await _Search(store, catalog, keys, teller, now_ms).explain(text.strip())
    return {"deliveries": [], **document}


class _Search:
    """One look-up of one id."""

    def __init__(self, store: Store, catalog: Catalog, keys: KeyRing, teller: Teller, now_ms: int) -> None:
        self._store = store
        self._keys = keys
        self._teller = teller
        self._masker = Masker(catalog.privacy_key)
        self._campaigns = {campaign.id: campaign.name for campaign in catalog.campaigns}
        self._now_ms = now_ms
        self._hint: str | None = None

    async def explain(self, text: str) -> dict[str, Any]:
        verified = self._keys.verify(text)
        if verified is not None:
            return await self._own_click(text, *verified)
        masked = self._masker.mask(text)
        for kind, found in (
            ("own click id", await self._find_own_id(masked)),
            ("request id", await self._find_request(text)),
            ("conversion id", await self._find_conversion(text)),
            ("delivery id", await self._find_delivery(text)),
            ("transaction id", await self._find_transaction(masked)),
        ):
            if found is not None:
                return {"id": text, "kind": kind, "found": True, **found}
        return await self._unknown(text, masked)

    # --- the kinds of id -----------------------------------------------------------------------------------------

    async def _own_click(self, text: str, stamp: int, campaign: int) -> dict[str, Any]:
        story = await self._of_clicks([stamp])
        document = {"id": text, "kind": "click id", "found": bool(story["clicks"]), **story}
        if not story["clicks"]:
            horizon = await self._store.query("purged_before")
            purged = bool(horizon) and stamp < horizon[0]["stamp"]
            document |= _diagnosis(Reason.CLICK_PURGED if purged else Reason.CLICK_NOT_YET_SEEN)
            name = self._campaigns.get(campaign, f"a removed campaign (number {campaign})")
            document["hint"] = f"the id was made on {write_moment(stamp_ms(stamp))} for {name}"
        return document

    async def _find_own_id(self, masked: str) -> dict[str, Any] | None:
        rows = await self._store.query("own_id", own_id=masked)
        return await self._of_clicks([rows[0]["click_id"]]) if rows else None

    async def _find_request(self, text: str) -> dict[str, Any] | None:
        stamp = read_stamp(text)
        rows = [] if stamp is None else await self._store.query("postback", request_id=stamp)
        if not rows:
            return None
        if rows[0]["click_id"] is not None:
            return await self._of_clicks([rows[0]["click_id"]])
        return {"clicks": [], "conversions": [], "events": [self._postback(rows[0])]}

    async def _find_conversion(self, text: str) -> dict[str, Any] | None:
        stamp = read_stamp(text)
        rows = [] if stamp is None else await self._store.query("conversion", conversion_id=stamp)
        return await self._of_clicks([rows[0]["click_id"]]) if rows else None

    async def _find_delivery(self, text: str) -> dict[str, Any] | None:
        if not looks_like_delivery(text):
            return None
        try:
            row = await find_delivery(self._store, text)
        except NoDelivery as error:
            self._hint = str(error)
            return None
        return await self._of_clicks([row["click_id"]])

    async def _find_transaction(self, masked: str) -> dict[str, Any] | None:
        counted = await self._store.query("conversions_of_transaction", transaction_id=masked)
        logged = await self._store.query("postbacks_of_transaction", transaction_id=masked)
        if not counted and not logged:
            return None
        clicks = {row["click_id"] for row in (*counted, *logged) if row["click_id"] is not None}
        story = await self._of_clicks(sorted(clicks))
        seen = {event.get("request") for event in story["events"]}
        more = [self._postback(row) for row in logged if write_stamp(row["request_id"]) not in seen]
        story["events"] = sorted([*story["events"], *more], key=_by_time)
        return story

    async def _unknown(self, text: str, masked: str) -> dict[str, Any]:
        """An id that nothing is stored under; postbacks may have brought it all the same."""
        finding = diagnose_click_id(text, self._keys, self._now_ms)
        document: dict[str, Any] = {"id": text, "kind": "unknown", "found": False}
        rows = await self._store.query("log", click_text=masked, limit=_MOST_ROWS)
        if finding.stamp is not None:
            document |= await self._of_clicks([finding.stamp])
        else:
            document |= {
                "clicks": [],
                "conversions": [],
                "events": [self._postback(r) for r in reversed(rows)],
            }
        if finding.reason is Reason.CLICK_ID_FOREIGN and not rows:
            # Nobody sent it as a click id.  It may be any other id, mistyped or purged.
            return document if self._hint is None else {**document, "hint": self._hint}
        document |= _diagnosis(finding.reason)
        if finding.hint:
            document["hint"] = finding.hint
        return document

    # --- the timeline --------------------------------------------------------------------------------------------

    async def _of_clicks(self, stamps: list[int]) -> dict[str, Any]:
        clicks, conversions, deliveries, events = [], [], [], []
        for stamp in stamps:
            visits = await self._store.query("click", click_id=stamp)
            for row in visits:
                clicks.append(describe_click(row, self._keys))
                events.append(
                    {"time": clicks[-1]["time"], "event": "click", "click_id": clicks[-1]["click_id"]}
                )
            rows = await self._store.query("log_of_click", click_id=stamp, limit=_MOST_ROWS)
            events += [self._postback(row) for row in rows]
            counted = await self._store.query("conversions_of_click", click_id=stamp)
            owed = await self._store.query("deliveries_of_click", click_id=stamp) if counted else []
            explained = await self._teller.explain(stamp, visits[0] if visits else None, counted, owed)
            deliveries += await self._teller.deliveries(owed)
            for row in counted:
                conversions.append({**describe_conversion(row), **explained[row["conversion_id"]]})
                changes = await self._store.query("history", conversion_id=row["conversion_id"])
                events += [describe_change(change, row["currency"]) for change in changes]
        return {
            "clicks": clicks,
            "conversions": conversions,
            "deliveries": deliveries,
            "events": sorted(events, key=_by_time),
        }

    def _postback(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"event": "postback", **describe_row(row, self._keys)}


_ORDER = {"click": 0, "postback": 1, "change": 2}


def _by_time(event: Mapping[str, Any]) -> tuple[str, int]:
    """Oldest first; a change stands behind the postback that asked for it."""
    return event["time"], _ORDER[event["event"]]


def _diagnosis(reason: Reason) -> dict[str, str]:
    return {"reason": reason.word, "cause": reason.cause, "fix": reason.fix}


def describe_click(row: Mapping[str, Any], keys: KeyRing) -> dict[str, Any]:
    """A stored click as a document; absent parameters are left out."""
    click = {
        "click_id": keys.write(row["click_id"], row["campaign"]),
        "time": write_moment(stamp_ms(row["click_id"])),
        "campaign": row["campaign_name"],
        "offer": row["offer_name"],
        "kind": ClickKind(row["kind"] & KIND_BITS).name.lower(),
        "erased": bool(row["kind"] & ERASED_BIT),
        "consent": not row["kind"] & NO_CONSENT_BIT,
    }
    kept = ("source_click_id", "country", "ip_prefix", "own_id", *(f"sub{n}" for n in range(1, 11)))
    click |= {name: row[name] for name in kept if row[name] is not None}
    if row["cost_micros"] is not None:
        click["cost"] = write_micros(row["cost_micros"])
    return click


def describe_conversion(row: Mapping[str, Any]) -> dict[str, Any]:
    """A counted conversion as it stands now."""
    return {
        "conversion": write_stamp(row["conversion_id"]),
        "time": write_moment(stamp_ms(row["conversion_id"])),
        "type": row["type"],
        "transaction_id": row["transaction_id"] or None,
        "status": Status(row["status"]).word,
        "value": write_micros(row["value_micros"]),
        "currency": row["currency"],
        "network": row["network_name"],
        "campaign": row["campaign_name"],
        "offer": row["offer_name"],
        "channels": [channel.name.lower() for channel in Channel if row["channels"] & channel],
    }


def describe_change(row: Mapping[str, Any], currency: str) -> dict[str, Any]:
    """One entry of a conversion's history."""
    return {
        "time": write_moment(stamp_ms(row["request_id"])),
        "event": "change",
        "request": write_stamp(row["request_id"]),
        "conversion": write_stamp(row["conversion_id"]),
        "status_from": Status(row["status_from"]).word,
        "status_to": Status(row["status_to"]).word,
        "status_word": row["status_word"],
        "value_from": write_micros(row["value_micros_from"]),
        "value_to": write_micros(row["value_micros_to"]),
        "currency": currency,
    }


# --- for people --------------------------------------------------------------------------------------------------


def is_known(document: Mapping[str, Any]) -> bool:
    """Whether anything is stored under the id, if only a postback that brought it."""
    return bool(document["found"] or document["conversions"] or document["events"])


def _headline(document: Mapping[str, Any]) -> str:
    if document["found"]:
        return str(document["kind"])
    if document["kind"] != "unknown":
        return f"{document['kind']}, its click is not stored"
    if not is_known(document):
        return "no click, request, conversion, delivery or transaction has this id"
    return "not the id of a click, but this is stored about it"


def format_story(document: Mapping[str, Any]) -> str:
    """The timeline as text."""
    lines = [f"{document['id']}: {_headline(document)}"]
    for click in document["clicks"]:
        parts = [f"{name}={text}" for name, text in click.items() if name not in ("click_id", "time")]
        lines += ["", f"click {click['click_id']}", f"  {' '.join(parts)}"]
    for conversion in document["conversions"]:
        transaction = conversion["transaction_id"]
        lines += [
            "",
            f"conversion {conversion['conversion']}: {conversion['status']}, {conversion['value']} "
            f"{conversion['currency']}, type {conversion['type']}"
            + (f", transaction {transaction}" if transaction else "")
            + f", by {' and '.join(conversion['channels'])}",
            *format_told(document, conversion),
        ]
    if document["events"]:
        lines += ["", "timeline (UTC)", *(f"  {_format_event(event)}" for event in document["events"])]
    if "cause" in document:
        lines += [
            "",
            f"reason  {document['reason']}",
            f"cause   {document['cause']}",
            f"fix     {document['fix']}",
        ]
    if "hint" in document:
        lines.append(f"hint    {document['hint']}")
    return "\n".join(lines)


def _format_event(event: Mapping[str, Any]) -> str:
    if event["event"] == "click":
        return f"{event['time']}  click"
    if event["event"] == "change":
        return (
            f"{event['time']}  conversion {event['conversion']} changed: {event['status_from']} "
            f"{event['value_from']} to {event['status_to']} {event['value_to']} {event['currency']}"
        )
    line = format_row(event)
    if event["reason"]:
        line += f"\n      cause: {event['cause']}\n      fix: {event['fix']}"
    for word in event.get("would_be_refused", ()):
        line += f"\n      would be refused: {Reason[word.upper()].cause} {Reason[word.upper()].fix}"
    if "found_in" in event and event["network"]:
        line += f"\n      found in {event['found_in']}; run: {mapping_command(event['network'], event['found_in'])}"
    return line


def mapping_command(network: str, parameter: str) -> str:
    """The command that maps the click id of a network to a parameter; names are quoted for a shell."""
    return shlex.join(["postbackd", "network", "set", network, "--field", f"click_id={parameter}"])
