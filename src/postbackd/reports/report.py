"""The report: what was clicked, sent and counted, how well it matched and how fast it was answered.

``build_report`` asks the store a few aggregates and hands them to plain functions.  Definitions, all over one period
(a click, postback or conversion belongs to the moment in its own id):

- ``clicks``: counted visits; HEAD requests and prefetches are recorded but not counted;
- ``match_rate``: postbacks whose click was found, whatever became of them afterwards, divided by postbacks that
  carried a click id, usable or not; missing and empty ids, test words and unreadable bodies are left out;
- ``unmatched_by_reason``: of the unmatched ones that carried a click id, why; this is what lowers the match rate;
- ``duplicate_rate``: postbacks that repeated what was counted already, divided by all postbacks;
- ``postback_success_rate``: postbacks that were accepted, updated, duplicate or held, divided by all postbacks
  but tests, and all requests that were refused at the door (unknown addresses apart: scanners are no senders);
- ``conversions``: all that were counted, whatever their status is by now; those that stand are pending or approved
  in ``by_status``, and ``reports.explore`` counts them alone;
- ``deliveries``: see ``reports.delivery_figures``; a delivery belongs to the moment of its postback;
- response times come from a histogram, so percentiles are upper bounds, at most one eighth too high.

A rate with nothing to divide by is ``None``.  Money is decimal text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from postbackd.core.diagnosis import Reason
from postbackd.core.histogram import percentile_us
from postbackd.core.model import Channel
from postbackd.core.moments import write_moment
from postbackd.core.money import MICROS, write_micros
from postbackd.core.rollups import WITHOUT_CLICK_ID, tally_postbacks
from postbackd.core.sender_rules import read_observed
from postbackd.core.statuses import Status
from postbackd.core.verdicts import FINAL, Verdict, word_of
from postbackd.reports.delivery_figures import share, sum_up_deliveries
from postbackd.reports.period import Period
from postbackd.store.base import Store
from postbackd.store.queries import GROUPINGS, STATEMENTS

GROUPED_BY = tuple(by for by in GROUPINGS if by != "all")
"""What ``--by`` takes."""

_NO_POSTBACKS = frozenset({"not_found", "click_malformed", "plain_click", "tls_handshake"})
"""Kinds of refusals that say nothing about the postbacks of a network."""

_GOT_THROUGH = (Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.UPDATED, Verdict.HELD)
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)

Rows = Sequence[Mapping[str, Any]]


async def build_report(store: Store, period: Period, by: str | None = None) -> dict[str, Any]:
    """The report document; with ``by`` (one of ``GROUPED_BY``) also ``groups``, one smaller report a key."""
    stamps, minutes = period.stamps(), period.minutes()
    report: dict[str, Any] = {
        "since": None if period.since_ms is None else write_moment(period.since_ms),
        "until": None if period.until_ms is None else write_moment(period.until_ms),
    }
    # Groups are of all rows, so that a table that is asked by group is not read once more for the whole.
    grouped = [None if by is None else await _ask(store, table, by, stamps) for table in _TABLES]
    clicks, postbacks, conversions = [
        rows if rows is not None else await _ask(store, table, "all", stamps)
        for table, rows in zip(_TABLES, grouped, strict=True)
    ]
    refusals = {row["kind"]: row["count"] for row in await store.query("refusals", **minutes)}
    report |= summarise(clicks or [], postbacks or [], conversions or [], refusals)
    report["refusals"] = refusals
    report["response_ms"] = measure_times(await store.query("response_times", **minutes))
    names = {(row["kind"], row["id"]): row["name"] for row in await store.query("names")}
    report["deliveries"] = sum_up_deliveries(await store.query("deliveries_by_outcome", **stamps), names)
    if by is not None:
        report |= {"by": by, "groups": _build_groups(grouped, by, names)}
    return report


_TABLES = ("clicks", "postbacks", "conversions")


async def _ask(store: Store, table: str, by: str, stamps: Mapping[str, int]) -> Rows | None:
    name = f"{table}_by_{by}"
    return await store.query(name, **stamps) if name in STATEMENTS else None


def _build_groups(
    tables: Sequence[Rows | None], by: str, names: Mapping[tuple[str, int], str]
) -> list[dict[str, Any]]:
    keys = {row["key"] for rows in tables for row in rows or ()}
    groups = []
    for key in sorted(keys, key=lambda key: (key is None, key)):
        clicks, postbacks, conversions = [_of_key(rows, key) for rows in tables]
        group = {by: label_key(by, key, names)}
        group |= summarise(clicks, postbacks or [], conversions, {})
        groups.append(group)
    return groups


def _of_key(rows: Rows | None, key: Any) -> Rows | None:
    return None if rows is None else [row for row in rows if row["key"] == key]


def label_key(by: str, key: Any, names: Mapping[tuple[str, int], str]) -> str | None:
    """What people call a group: a name, a day, an hour, a verdict, a reason, a type; ``None`` when it has none."""
    if key is None:
        return None
    if by == "day":
        return (_EPOCH + timedelta(days=key)).date().isoformat()
    if by == "hour":
        return (_EPOCH + timedelta(hours=key)).strftime("%Y-%m-%dT%H:00Z")
    if by == "verdict":
        return word_of(key)
    if by == "reason":
        return Reason(key).word
    if by == "type":
        return str(key)
    return names.get((by, key))


def summarise(
    clicks: Rows | None, postbacks: Rows, conversions: Rows | None, refusals: Mapping[str, int]
) -> dict[str, Any]:
    """The figures of one set of rows; ``None`` for a table that the grouping does not apply to."""
    total = sum(row["count"] for row in postbacks)
    tests = sum(row["count"] for row in postbacks if row["reason"] == Reason.TEST_EVENT)
    refused = sum(count for kind, count in refusals.items() if kind not in _NO_POSTBACKS)
    verdicts = _add_up((word_of(row["verdict"]), row["count"]) for row in postbacks)
    return {
        "clicks": None if clicks is None else sum(row["count"] for row in clicks),
        "postbacks": {
            "total": total,
            "by_verdict": {verdict.word: verdicts.get(verdict.word, 0) for verdict in FINAL},
            "by_reason": _add_up(
                (Reason(row["reason"]).word, row["count"]) for row in postbacks if row["reason"]
            ),
            "would_be_refused": _add_up(
                (found.word, row["count"]) for row in postbacks for found in read_observed(row["observed"])
            ),
            "unmatched_by_reason": _add_up(
                (Reason(row["reason"]).word, row["count"]) for row in postbacks if _lowers_match_rate(row)
            ),
        },
        "conversions": None if conversions is None else _count_conversions(conversions),
        "match_rate": _match_rate(postbacks),
        "duplicate_rate": share(verdicts.get(Verdict.DUPLICATE.word, 0), total),
        "postback_success_rate": share(
            sum(verdicts.get(verdict.word, 0) for verdict in _GOT_THROUGH), total - tests + refused
        ),
        "request_bytes": {
            "average": share(sum(row["bytes"] for row in postbacks), total),
            "share_under_200": share(sum(row["under_200"] for row in postbacks), total),
        },
        "share_over_10_parameters": share(sum(row["over_10"] for row in postbacks), total),
        "channels": None if conversions is None else _compare_channels(conversions),
    }


def _add_up(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Totals by key, the largest first."""
    totals: Counter[str] = Counter()
    for key, count in pairs:
        totals[key] += count
    return dict(totals.most_common())


def _match_rate(postbacks: Rows) -> float | None:
    tallies = [
        tally_postbacks(row["verdict"], row["reason"], row["count"], row["with_click"]) for row in postbacks
    ]
    return share(sum(matched for _, _, matched, _ in tallies), sum(carried for _, carried, _, _ in tallies))


def _lowers_match_rate(row: Mapping[str, Any]) -> bool:
    return row["verdict"] == Verdict.UNMATCHED and row["reason"] not in WITHOUT_CLICK_ID


def _count_conversions(rows: Rows) -> dict[str, Any]:
    counts = _add_up((Status(row["status"]).word, row["count"]) for row in rows)
    micros: Counter[tuple[str, Status]] = Counter()
    for row in rows:
        micros[row["currency"], Status(row["status"])] += row["units"] * MICROS + row["micros"]
    value: dict[str, dict[str, str]] = {}
    for (currency, status), amount in sorted(micros.items()):
        value.setdefault(currency, {})[status.word] = write_micros(amount)
    return {
        "count": sum(counts.values()),
        "by_status": {status.word: counts.get(status.word, 0) for status in Status},
        "value": value,
    }


def _compare_channels(rows: Rows) -> dict[str, int]:
    """How many conversions each channel reported, and how many only one of them did.

    What was imported counts as neither, until a postback confirms it.
    """
    seen: Counter[int] = Counter()
    for row in rows:
        seen[row["channels"] & (Channel.S2S | Channel.PIXEL)] += row["count"]
    both = seen[Channel.S2S | Channel.PIXEL]
    only_s2s, only_pixel = seen[Channel.S2S], seen[Channel.PIXEL]
    return {
        "s2s": only_s2s + both,
        "pixel": only_pixel + both,
        "both": both,
        "only_s2s": only_s2s,
        "only_pixel": only_pixel,
        "imported": sum(row["count"] for row in rows if row["channels"] & Channel.IMPORT),
    }


def measure_times(rows: Rows) -> dict[str, Any]:
    """Average and percentiles in milliseconds of histogram rows (bucket, count, total_us)."""
    counts = {row["bucket"]: row["count"] for row in rows}
    total_us, count = sum(row["total_us"] for row in rows), sum(counts.values())
    percentiles = {f"p{percent}": percentile_us(counts, percent / 100) for percent in (50, 95, 99)}
    return {
        "count": count,
        "average": round(total_us / count / 1000, 3) if count else None,
        **{name: None if us is None else us / 1000 for name, us in percentiles.items()},
    }
