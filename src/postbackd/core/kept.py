"""What is kept, why, in which form and how long: one record a column of every table that says anything of a person or a
request.

This table is the only source: the retention of a column is that of its class, an erasure does with it what ``erased``
says, ``postbackd privacy check`` looks for what its form forbids, and the documentation is printed from it.  A test
walks the schema of both stores and fails on a column that is not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from postbackd.core.retention import Class


class Form(StrEnum):
    """In which form a value is kept."""

    OURS = "made by postbackd"
    NUMBER = "a number or a word from a short list"
    SCREENED = "as received; personal data in it is replaced by a keyed hash"
    OPAQUE = "as received; written personal data in it is replaced, digits alone are not"
    SAID = "in our words or those of a target; personal data in it is replaced, addresses of targets are not"
    TRUNCATED = "truncated to a network (/24 or /48)"
    COUNTED = "counted, without the value"


class After(StrEnum):
    """What an erasure leaves."""

    STAYS = "stays"
    GONE = "gone"
    HASHED = "keyed hash"


class Kept(Struct, frozen=True):
    """One column."""

    table: str
    column: str
    purpose: str
    form: Form
    class_: Class
    erased: After


def _of(table: str, class_: Class, *columns: tuple[str, str, Form, After]) -> Iterator[Kept]:
    for names, purpose, form, erased in columns:
        for name in names.split():
            yield Kept(table, name, purpose, form, class_, erased)


_OURS, _NUMBER, _SCREENED = Form.OURS, Form.NUMBER, Form.SCREENED
_STAYS, _GONE, _HASHED = After.STAYS, After.GONE, After.HASHED
_SUBS = " ".join(f"sub{number}" for number in range(1, 11))

KEPT: Sequence[Kept] = (
    *_of(
        "clicks", Class.CLICKS,
        ("click_id bucket", "names the click; its time", _OURS, _STAYS),
        ("campaign offer", "where the visit came from and led to", _OURS, _STAYS),
        ("kind", "whether it counts, was erased, and what was said of consent", _NUMBER, _STAYS),
        ("source_click_id", "the traffic source's own id, to tell it which visit converted", Form.OPAQUE, _GONE),
        ("cost_micros", "what the visit cost", _NUMBER, _STAYS),
        ("country", "the country that the source names", _NUMBER, _GONE),
        ("ip_prefix", "to find fraud and broken traffic by network", Form.TRUNCATED, _GONE),
        ("own_id", "a caller's own click id", _SCREENED, _GONE),
        (_SUBS, "what the operator maps: placement, keyword, creative", _SCREENED, _GONE),
    ),
    *_of(
        "own_ids", Class.CLICKS,
        ("own_id", "finds a click by its caller's own id", _SCREENED, _HASHED),
        ("click_id bucket", "the click", _OURS, _STAYS),
    ),
    *_of(
        "conversions", Class.CONVERSIONS,
        ("click_id conversion_id bucket", "which click, and the request that counted it", _OURS, _STAYS),
        ("type", "the kind of conversion", _SCREENED, _STAYS),
        ("transaction_id", "counts a sale once", _SCREENED, _HASHED),
        ("network campaign offer", "for reports", _OURS, _STAYS),
        ("status value_micros currency channels status_time_ms", "what was earned", _NUMBER, _STAYS),
        ("checksum", "finds damage", _OURS, _STAYS),
    ),
    *_of(
        "conversion_history", Class.CONVERSIONS,
        ("request_id conversion_id click_id bucket", "which change, of what", _OURS, _STAYS),
        ("status_from status_to value_micros_from value_micros_to", "what changed", _NUMBER, _STAYS),
        ("status_word", "the status in the sender's words", _SCREENED, _GONE),
        ("checksum", "finds damage", _OURS, _STAYS),
    ),
    *_of(
        "postbacks", Class.POSTBACKS,
        ("request_id network channel bucket", "which request, from whom", _OURS, _STAYS),
        ("verdict reason first_verdict first_reason", "what became of it", _NUMBER, _STAYS),
        ("click_id campaign conversion_id", "what it was about", _OURS, _STAYS),
        ("click_text", "a click id that did not verify, to explain and repair it", _SCREENED, _GONE),
        ("type", "the kind of conversion", _SCREENED, _STAYS),
        ("value currency status time", "the fields as received, to replay them", _SCREENED, _GONE),
        ("transaction_id", "to answer the network's questions", _SCREENED, _HASHED),
        ("found_in", "the parameter that held the click id", _SCREENED, _GONE),
        ("bytes parameters", "how large it was", _NUMBER, _STAYS),
        ("observed", "what observed steps would have refused it for", _NUMBER, _STAYS),
        ("sender", "the network it came from, where something is wrong with its sender", Form.TRUNCATED, _GONE),
    ),
    *_of(
        "waiting", Class.POSTBACKS,
        ("click_ref", "the click that a postback waits for", _SCREENED, _GONE),
        ("request_id bucket", "the postback", _OURS, _GONE),
    ),
    *_of(
        "pixel_conversions", Class.CLICKS,
        ("click_id bucket", "the click", _OURS, _STAYS),
        ("type", "the kind of conversion", _SCREENED, _STAYS),
    ),
    *_of(
        "outbox", Class.CONVERSIONS,
        ("event request_id click_id conversion_id bucket", "what the rules have not been asked yet", _OURS, _GONE),
        ("status_from status value_micros_from value_micros currency", "what happened", _NUMBER, _GONE),
        ("trace", "the trace that the request named, for the deliveries that follow from it", _NUMBER, _GONE),
    ),
    *_of(
        "deliveries", Class.CONVERSIONS,
        ("number request_id click_id conversion_id bucket", "which message, about what", _OURS, _STAYS),
        ("campaign offer rule target", "to whom, and why", _OURS, _STAYS),
        ("type", "the kind of conversion", _SCREENED, _STAYS),
        ("transaction_id", "what the target is told", _SCREENED, _HASHED),
        ("message status value_micros currency state unsure attempts", "what it says, where it is", _NUMBER, _STAYS),
        ("facts", "what the rule needs of the click: its source's id, country, sub ids", Form.OPAQUE, _GONE),
        ("created_ms expires_ms due_ms settled_ms", "when", _NUMBER, _STAYS),
        ("holder", "the process that sends it", _OURS, _GONE),
        ("reason", "why it was given up", Form.SAID, _GONE),
    ),
    *_of(
        "attempts", Class.ATTEMPTS,
        ("click_id bucket delivery attempt", "which attempt", _OURS, _STAYS),
        ("at_ms took_ms http_status", "when, and how it went", _NUMBER, _STAYS),
        ("excerpt", "the beginning of the target's answer", _SCREENED, _GONE),
        ("error", "what went wrong", Form.SAID, _GONE),
    ),
    *_of(
        "erased_clicks", Class.CONVERSIONS,
        ("click_id bucket", "what postbacks still bring for it is kept without its data", _OURS, _STAYS),
    ),
    *_of(
        "conversion_facts", Class.CONVERSIONS,
        ("conversion_id click_id network campaign offer", "for reports", _OURS, _STAYS),
        ("type", "the kind of conversion", _SCREENED, _STAYS),
        ("status value_micros currency channels rung", "what was earned, and how long it took", _NUMBER, _STAYS),
        ("country", "the country that the source names", _NUMBER, _GONE),
        (_SUBS, "what the operator maps: placement, keyword, creative", _SCREENED, _GONE),
    ),
    *_of(
        "click_rollups", Class.CONVERSIONS,
        ("level slot campaign offer country clicks costed cost_units cost_micros", "reports", Form.COUNTED, _STAYS),
    ),
    *_of(
        "postback_rollups", Class.CONVERSIONS,
        ("level slot network campaign postbacks carried matched duplicates", "reports", Form.COUNTED, _STAYS),
    ),
    *_of(
        "sub_rollups", Class.CONVERSIONS,
        ("level slot campaign sub other clicks costed cost_units cost_micros", "reports", Form.COUNTED, _STAYS),
        ("value", "sub ids that many clicks of a day share, with how many; computed again without an erased click",
         _SCREENED, _STAYS),
    ),
    *_of(
        "minute_rollups", Class.COUNTS,
        ("minute kind network word count units micros", "live charts of the last two days", Form.COUNTED, _STAYS),
    ),
    *_of("refusals", Class.COUNTS, ("minute kind count", "requests refused at the door", Form.COUNTED, _STAYS)),
    *_of(
        "response_times", Class.COUNTS,
        ("minute bucket count total_us", "how quick the answers were", Form.COUNTED, _STAYS),
    ),
    *_of(
        "finds", Class.COUNTS,
        ("minute network field kind count", "personal data that somebody sends", Form.COUNTED, _STAYS),
    ),
    *_of(
        "unmapped_names", Class.COUNTS,
        ("minute network", "when a network sent a parameter that is not mapped", Form.COUNTED, _STAYS),
        ("name", "the name of the parameter, never its value; none that may be personal data", _SCREENED, _STAYS),
    ),
    *_of(
        "alarm_words", Class.POSTBACKS,
        ("kind network first_ms last_ms count", "what a network has sent before, and when", _OURS, _STAYS),
        ("word", "status words, unfilled macros, parameters (name, number), prefixes of senders", _SCREENED, _STAYS),
    ),
    *_of(
        "alarms", Class.POSTBACKS,
        ("id kind scope subject urgent", "which alarm, of what", _OURS, _STAYS),
        ("seen normal todo", "what it says; may name a word of alarm_words", _OURS, _STAYS),
        ("raised_ms bad_ms good_ms told_ms ended_ms", "when; kept from its end on", _OURS, _STAYS),
    ),
    *_of(
        "alarm_notices", Class.POSTBACKS,
        ("id alarm place said body", "what was told of an alarm, and where to", _OURS, _STAYS),
        ("made_ms due_ms attempts state settled_ms error", "what became of it", _OURS, _STAYS),
    ),
)  # fmt: skip

FOR_EVER: Mapping[str, str] = {
    "erasures": "certificates: time, counts by table, a keyed hash of what was asked for",
    "purges": "how many rows purges deleted, for 90 days",
    "settings": "counters of the database",
    "secrets": "keys of the database",
    "signing_keys": "keys of click ids",
    "networks": "the operator's catalog",
    "sources": "the operator's catalog",
    "offers": "the operator's catalog",
    "campaigns": "the operator's catalog",
    "targets": "the operator's catalog; account values are sealed",
    "rules": "the operator's catalog",
    "certificate_documents": "certificates and their keys, sealed",
    "certificate_holder": "which node looks after the certificate",
    "target_states": "which targets are not served, and why",
    "rollup_marks": "which quarters of an hour have to be added up again",
    "rollup_state": "how far the roll-ups have come",
    "nodes": "which process makes ids",
    "users": "who may use the dashboard: name, hash of the password, sealed seed of codes, networks (/24, /64) they "
    "signed in from",
    "sessions": "hashes of sessions and the network each was begun from, for a week at most",
    "sign_in_codes": "hashes of links that let somebody choose a password, for three days at most",
    "tokens": "hashes of tokens of the API, and what they may do",
    "audit": "who of the operator's people changed what, when and from which network, for 400 days",
    "views": "what the operator's people save in the dashboard",
    "alarm_keeper": "which process keeps the alarms",
    "alarm_hours": "counts by network, campaign and hour, for 60 days",
    "alarm_quiets": "which alarms operators do not want to hear of, and why",
    "schema_migrations": "the schema's versions",
}
"""Tables that hold nothing of a visitor or a request."""

NEVER: Mapping[str, str] = {
    "full IP addresses": "truncated to /24 or /48 before anything is stored or logged",
    "user agents, referrers, cookies and other headers": "not read, but for Sec-GPC and DNT where they are honoured",
    "values of parameters that are not mapped": "dropped; of postbacks the names of such parameters are noted",
    "e-mail addresses, phone and card numbers": "replaced, dropped or refused by the personal data firewall, also "
    "percent-encoded, in base64, or as the bare SHA-256 of an e-mail address",
    "plain hashes that an ad platform asks for": "made in memory when a message is sent, never stored",
}
"""What never reaches the disk, and what becomes of it."""


def kept_of(table: str) -> Sequence[Kept]:
    """The columns of one table."""
    return [kept for kept in KEPT if kept.table == table]


def screened_columns() -> Mapping[str, Sequence[Kept]]:
    """Table -> its columns in which personal data would be a mistake."""
    found: dict[str, list[Kept]] = {}
    for kept in KEPT:
        if kept.form in (Form.SCREENED, Form.OPAQUE, Form.SAID, Form.TRUNCATED):
            found.setdefault(kept.table, []).append(kept)
    return found


POLICY = """\
We measure which visits lead to orders by server-to-server tracking. When you follow one of our links, our server
makes a random-looking click id, keeps it with the campaign, the placement and the country that the advertising
network names, and the first part of your IP address, and sends you on to the shop with the click id in the address.
If you order there, the shop's or the affiliate network's server tells ours the click id, an order number and an
amount, and we may tell the advertising network that its visit led to an order. No cookie is set and nothing is read
from your device; because the servers talk to each other, browser settings and extensions that block cookies or
scripts do not see this and do not stop it. Where we honour it, the Global Privacy Control of your browser or a
refusal of consent does: then we keep no more than the click id needs. We keep no full IP address, e-mail address,
telephone or card number. On request we tell you what is held about a click, and erase it.
"""
"""For a privacy policy, in plain words."""
