"""What probes of several places found, as one HTML page: a stacked bar a place, the table, and the words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from postbackd.core.exchange import PHASE_WORDS, PHASES
from postbackd.core.percentiles import Spread, write_ms
from postbackd.exchanges.charts import stacks
from postbackd.exchanges.page import number_cell, table, write_document
from postbackd.exchanges.places import HOPS, Merged, Row, compare_places, slowest_hop


def write_places_page(found: Sequence[Merged], places: Sequence[str]) -> str:
    """The whole page."""
    about = f"Measured from {', '.join(places)}. Each bar is made of the medians of its phases, over new connections."
    return write_document("Endpoints by place", about, [_section(merged) for merged in found])


def _section(merged: Merged) -> str:
    rows = [
        (f"{row.place} {row.series.family}", [(PHASE_WORDS[hop], row.median(hop) or 0.0) for hop in HOPS])
        for row in merged.rows
    ]
    words = [
        f"From {row.place} ({row.series.family}) {said}."
        for row in merged.rows
        if (said := slowest_hop(row.series))
    ]
    words += [f"Nothing was answered to {line}." for line in merged.unseen]
    if said := compare_places(merged):
        words.append(f"{said[:1].upper()}{said[1:]}.")
    heads = [
        "p50, ms",
        *(PHASE_WORDS[phase] for phase in PHASES),
        "total p95",
        "total p99",
        "tries",
        "errors",
    ]
    return (
        f"<h2>{escape(merged.url)}</h2>{stacks('Medians of the phases by place', rows, 'ms')}"
        f"{''.join(f'<p>{escape(line)}</p>' for line in words)}{table(heads, [_cells(row) for row in merged.rows])}"
    )


def _cells(row: Row) -> list[str]:
    series = row.series
    total = series.phases.get("total") or Spread()
    cells = [f"<td>{escape(row.place)} {escape(series.family)}</td>"]
    for phase in PHASES:
        spread = series.phases.get(phase)
        cells.append(number_cell(write_ms(spread.p50, spread.tries) if spread else "-"))
    cells.append(number_cell(write_ms(total.p95, total.tries, 95)))
    cells.append(number_cell(write_ms(total.p99, total.tries, 99)))
    return [*cells, number_cell(str(series.tries)), number_cell(str(sum(series.errors.values())))]
