"""Writes the SQL of a ``core.grouping.Grouping``, one text for both databases.

Names come from closed lists, numbers of ours are written out, and every text is a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from postbackd.core.click_id import EPOCH_MS
from postbackd.core.grouping import COLUMNS, OTHER, SUB_COLUMNS, TIME_COLUMNS, Grouping, Part
from postbackd.core.rollups import first_stamp_of
from postbackd.core.zones import QUARTER_MS, QUARTERS_A_DAY, Shift

_COST = (
    "CAST(sum(clicks) AS BIGINT), CAST(sum(costed) AS BIGINT), CAST(sum(cost_units) AS BIGINT), "
    "CAST(sum(cost_micros) AS BIGINT)"
)

# Units and micros are added apart, because a sum of large values in micros can leave 64 bits.
_MONEY = (
    "v.status, v.currency, v.channels, count(*), CAST(sum(v.value_micros / 1000000) AS BIGINT), "
    "CAST(sum(v.value_micros % 1000000) AS BIGINT), string_agg(v.rung, '')"
)

_SUMS: Mapping[Part, str] = {
    Part.CLICKS: _COST,
    Part.SUBS: _COST,
    Part.CLICK_ROWS: "count(*), count(v.cost_micros), CAST(coalesce(sum(v.cost_micros / 1000000), 0) AS BIGINT), "
    "CAST(coalesce(sum(v.cost_micros % 1000000), 0) AS BIGINT)",
    Part.POSTBACKS: "CAST(sum(postbacks) AS BIGINT), CAST(sum(carried) AS BIGINT), CAST(sum(matched) AS BIGINT), "
    "CAST(sum(duplicates) AS BIGINT)",
    Part.CONVERSIONS: _MONEY,
    Part.CONVERSIONS_OF_CLICKS: _MONEY,
}

_TABLES: Mapping[Part, str] = {
    Part.CLICKS: "click_rollups",
    Part.SUBS: "sub_rollups",
    Part.CLICK_ROWS: "clicks",
    Part.POSTBACKS: "postback_rollups",
    Part.CONVERSIONS: "conversion_facts",
    Part.CONVERSIONS_OF_CLICKS: "conversion_facts",
}

_STAMPS: Mapping[Part, str] = {
    Part.CLICK_ROWS: "v.click_id",
    Part.CONVERSIONS: "v.conversion_id",
    Part.CONVERSIONS_OF_CLICKS: "v.click_id",
}
"""Parts whose rows have a stamp; the others have a slot."""

_TEXTS = frozenset({"type", "country", *SUB_COLUMNS})


def write(asked: Grouping) -> tuple[str, list[str]]:
    """The statement and its parameters.  Raises ``ValueError`` for what the part cannot be asked."""
    unknown = {*asked.by, *asked.where} - COLUMNS[asked.part]
    if unknown:
        raise ValueError(f"{asked.part} cannot be grouped by {', '.join(sorted(unknown))}")
    conditions, values = _span(asked), []
    for column, wanted in asked.where.items():
        texts = [str(value) for value in wanted] if column in _TEXTS else []
        listed = ", ".join("?" for _ in texts) if texts else ", ".join(str(int(value)) for value in wanted)
        conditions.append(f"{_column(asked, column)} IN ({listed})")
        values += texts
    keys = [_column(asked, column) for column in asked.by]
    groups = len(keys) + (3 if asked.part in (Part.CONVERSIONS, Part.CONVERSIONS_OF_CLICKS) else 0)
    sql = (
        f"SELECT {', '.join([*keys, _SUMS[asked.part]])} FROM {_TABLES[asked.part]} AS v "
        f"WHERE {' AND '.join(conditions)}"
    )
    if groups:
        sql += f" GROUP BY {', '.join(str(number) for number in range(1, groups + 1))}"
    if asked.most is not None:
        sql += f" LIMIT {asked.most}"
    return sql, values


def _span(asked: Grouping) -> list[str]:
    stamp = _STAMPS.get(asked.part)
    if stamp is not None:
        span = [f"{stamp} >= {first_stamp_of(asked.first)}", f"{stamp} < {first_stamp_of(asked.end)}"]
        return [*span, "v.kind & 15 = 0"] if asked.part is Part.CLICK_ROWS else span
    span = [f"v.level = {asked.level.value}", f"v.slot >= {asked.first}", f"v.slot < {asked.end}"]
    if asked.part is Part.SUBS:
        (sub,) = {column for column in (*asked.by, *asked.where) if column in SUB_COLUMNS}
        span.insert(1, f"v.sub = {SUB_COLUMNS.index(sub) + 1}")
    return span


def _column(asked: Grouping, column: str) -> str:
    """The expression of a column."""
    if column in TIME_COLUMNS:
        return _time(column, _local(asked))
    if asked.part is Part.SUBS and column in SUB_COLUMNS:
        return f"CASE WHEN v.other = 1 THEN '{OTHER}' ELSE v.value END"
    if column == "country" or column in SUB_COLUMNS:
        return f"coalesce(v.{column}, '')"
    return f"v.{column}"


def _local(asked: Grouping) -> str:
    """Quarters since 1970 on the viewer's clock."""
    stamp = _STAMPS.get(asked.part)
    slot = "v.slot" if stamp is None else f"(({stamp} >> 22) + {EPOCH_MS}) / {QUARTER_MS}"
    return f"({slot} + {_shift(slot, asked.shifts)})"


def _shift(slot: str, shifts: Sequence[Shift]) -> str:
    if len(shifts) < 2:
        return str(shifts[0].quarters) if shifts else "0"
    cases = " ".join(
        f"WHEN {slot} < {following.since} THEN {shift.quarters}" for shift, following in pairwise(shifts)
    )
    return f"CASE {cases} ELSE {shifts[-1].quarters} END"


def _time(column: str, local: str) -> str:
    if column == "day":
        return f"{local} / {QUARTERS_A_DAY}"
    if column == "hour":
        return f"{local} % {QUARTERS_A_DAY} / 4"
    return f"({local} / {QUARTERS_A_DAY} + 3) % 7 + 1"  # 1970 began on a Thursday
