"""What a reconciliation came to: the buckets with their money, how the file was read, and what to know of it.

Of each bucket: ``rows`` of the file, ``conversions`` of ours, and by currency what each side says is earned or may be
(``theirs``, ``ours``): pending and approved values, as decimal text.  The rows of all buckets are the rows of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from postbackd.core.export_rows import Problem, RowReader, describe_layout
from postbackd.core.export_values import write_zone
from postbackd.core.exports import Given
from postbackd.core.moments import write_moment
from postbackd.core.money import MICROS, write_micros
from postbackd.core.reconciling import SENTENCES, Bucket, Period, Shift
from postbackd.reports.export_file import Survey
from postbackd.store.reconcile_file import ReconcileFile

_SHOWN_LINES = 20


class Outline(Struct, frozen=True, kw_only=True):
    """What is known of a reconciliation beside what its file holds."""

    network: str
    file_name: str
    survey: Survey
    reader: RowReader
    given: Given
    shift: Shift
    shift_found: Shift | None
    period: Period | None
    types: list[str]


class _Sums:
    """Rows and money of the buckets, of one side."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.money: dict[int, dict[str, int]] = {}

    def add(
        self, bucket: int, currency: str | None, count: int, units: int | None, micros: int | None
    ) -> None:
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        if units is not None and currency:
            of_bucket = self.money.setdefault(bucket, {})
            of_bucket[currency] = of_bucket.get(currency, 0) + units * MICROS + (micros or 0)

    def written(self, bucket: int) -> dict[str, str]:
        return {code: write_micros(micros) for code, micros in sorted(self.money.get(bucket, {}).items())}

    def total(self) -> dict[str, str]:
        total: dict[str, int] = {}
        for of_bucket in self.money.values():
            for code, micros in of_bucket.items():
                total[code] = total.get(code, 0) + micros
        return {code: write_micros(micros) for code, micros in sorted(total.items())}


def summarise(file: ReconcileFile, outline: Outline) -> dict[str, Any]:
    """The document of a finished reconciliation."""
    theirs, ours = _Sums(), _Sums()
    for row in file.sum_rows():
        theirs.add(*row)
    for row in file.sum_ours():
        ours.add(*row)
    buckets = [
        {
            "bucket": bucket.word,
            "sentence": SENTENCES[bucket],
            "rows": theirs.counts.get(bucket, 0),
            "conversions": ours.counts.get(bucket, 0),
            "theirs": theirs.written(bucket),
            "ours": ours.written(bucket),
        }
        for bucket in Bucket
    ]
    shift_min = outline.shift.minutes if _is_known(outline) else None
    return {
        "network": outline.network,
        "file": outline.file_name,
        "rows": sum(theirs.counts.values()),
        "conversions": sum(ours.counts.values()),
        "theirs": theirs.total(),
        "ours": ours.total(),
        "period": _describe_period(outline.period),
        "format": describe_layout(outline.survey.layout, shift_min),
        "clock": _describe_clock(outline),
        "buckets": buckets,
        "unusable": _describe_problems(file),
        "types": outline.types,
        "notes": _notes(outline, theirs.counts, file),
    }


def _is_known(outline: Outline) -> bool:
    return outline.given.shift_min is not None or outline.shift_found is not None


def _describe_period(period: Period | None) -> dict[str, str | None]:
    if period is None:
        return {"since": None, "until": None}
    return {"since": write_moment(period.since_ms), "until": write_moment(period.until_ms)}


def _describe_clock(outline: Outline) -> dict[str, Any]:
    """By how much their clock is ahead of UTC, how that is known, and in a sentence."""
    found, given = outline.shift_found, outline.given.shift_min
    described: dict[str, Any] = {
        "shift_minutes": outline.shift.minutes if _is_known(outline) else None,
        "later_shift_minutes": outline.shift.later,
        "later_from": write_moment(outline.shift.switch_ms) if outline.shift.later is not None else None,
        "later_from_ms": outline.shift.switch_ms if outline.shift.later is not None else None,
        "share": found.share if found else None,
        "rows": found.pairs if found else 0,
    }
    return {**described, "sentence": _clock_sentence(outline, found, given)}


def _clock_sentence(outline: Outline, found: Shift | None, given: int | None) -> str:
    if "time" not in outline.survey.layout.header.columns:
        return "The file has no times, so nothing can be said of its clock."
    if given is not None:
        if found is not None and found.minutes != given:
            return (
                f"Their times are read as {write_zone(given)}, as you said; "
                f"{found.share:.0%} of the matched rows look like {write_zone(found.minutes)}."
            )
        return f"Their times are read as {write_zone(given)}, as you said."
    if found is None:
        return "Too few rows match, or their times differ from ours by no constant shift: read as UTC, or as they say."
    share = f"({found.share:.0%} of {found.pairs} matched rows that were looked at)"
    if found.later is not None:
        return (
            f"Their clock shows {write_zone(found.minutes)}, and {write_zone(found.later)} from "
            f"{write_moment(found.switch_ms)} on {share}."
        )
    if not found.minutes:
        return f"Their clock agrees with ours, UTC {share}."
    about = "" if outline.survey.layout.clocks else "about "
    return f"Their clock shows {about}{write_zone(found.minutes)} {share}."


def _describe_problems(file: ReconcileFile) -> list[dict[str, Any]]:
    """Rows that could not be used, by reason, each with its first lines."""
    described = []
    for number, count in file.count_problems():
        problem = Problem(number)
        described.append(
            {
                "reason": problem.word,
                "sentence": problem.sentence,
                "rows": count,
                "lines": file.lines_of_problem(number, _SHOWN_LINES),
            }
        )
    return described


def _notes(outline: Outline, counts: Mapping[int, int], file: ReconcileFile) -> list[str]:
    """What whoever reads the figures has to know."""
    layout, reader = outline.survey.layout, outline.reader
    notes = list(layout.notes)
    columns = layout.header.columns
    notes += [
        f"the file has no {field} column that was recognised, so nothing is compared by it"
        for field in ("value", "status", "time")
        if field not in columns
    ]
    if reader.unknown_statuses:
        words = ", ".join(f"{word!r} ({count})" for word, count in reader.unknown_statuses.most_common(5))
        notes.append(
            f"status words that are not known: {words}; say what they mean with 'postbackd network set "
            f"{outline.network} --status-word WORD=STATUS'"
        )
    if reader.unread_times:
        notes.append(
            f"{reader.unread_times} times cannot be read, the first on line {reader.first_unread_time}"
        )
    strange = sorted(file.their_types(50) - {*outline.types})
    if strange and outline.types:
        notes.append(
            f"types that are not counted here: {', '.join(map(repr, strange[:5]))} (here: "
            f"{', '.join(outline.types[:5])}); say what they are with --type THEIRS=OURS"
        )
    notes += _mapping_doubts(outline, counts)
    return notes


def _mapping_doubts(outline: Outline, counts: Mapping[int, int]) -> list[str]:
    """Almost nothing matches: perhaps the ids are in another column."""
    rows, missing = sum(counts.values()), counts.get(Bucket.MISSING_HERE, 0)
    header = outline.survey.layout.header
    if rows < 5 or missing < 0.9 * rows:
        return []
    others = header.others.get("transaction_id", ()) + header.others.get("click_id", ())
    hint = f": perhaps {', '.join(map(repr, others[:5]))}" if others else ""
    return [f"almost no row is counted here; if the ids are in another column, name it with --column{hint}"]
