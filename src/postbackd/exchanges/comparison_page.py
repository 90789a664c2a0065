"""A comparison as one HTML page that needs nothing beside it: it can be mailed, and opened from a disk.

Texts of the outside (names of endpoints, what they answered) are escaped where they are put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from postbackd.core.exchange import PHASE_WORDS, PHASES
from postbackd.core.percentiles import Spread, write_ms
from postbackd.exchanges.charts import bars, dots
from postbackd.exchanges.comparing import WINDOWS_MS, Compared
from postbackd.exchanges.page import number_cell, table, write_document
from postbackd.exchanges.plan import Schedule

_PERCENTS = ((50, "p50"), (95, "p95"), (99, "p99"))


def write_page(found: Sequence[Compared], schedule: Schedule, at: str) -> str:
    """The whole page."""
    sections = (_latency(found), _windows(found), _behaviour(found), _tls(found), _sources(found))
    about = (
        f"{schedule.conversions} conversions to each endpoint, {schedule.rate:g} a second, over kept connections, "
        f"time limit {schedule.timeout_ms} ms; {at}. A percentile is shown when there are enough tries: "
        "p50 from 3, p95 from 20, p99 from 100."
    )
    return write_document(f"Comparison of {len(found)} endpoints", about, sections)


def _latency(found: Sequence[Compared]) -> str:
    rows = []
    for one in found:
        total = one.phases.get("total") or Spread()
        rows.append((one.name, [(name, getattr(total, name)) for _, name in _PERCENTS]))
    heads = [
        "endpoint",
        "tries",
        "answered",
        "taken",
        *(PHASE_WORDS[phase] for phase in PHASES),
        "p95",
        "p99",
        "most",
    ]
    return (
        f"<h2>Latency</h2>{bars('Latency of each endpoint in milliseconds', rows, 'ms')}"
        f"{dots('Every try', [(one.name, one.times_ms) for one in found], WINDOWS_MS, 'ms')}"
        "<p>Medians of each phase, then percentiles of the whole exchange, in milliseconds. DNS, connect and TLS are "
        f"of the tries that opened a connection.</p>{table(heads, [_latency_cells(one) for one in found])}"
    )


def _latency_cells(one: Compared) -> list[str]:
    total = one.phases.get("total") or Spread()
    cells = [f"<td>{escape(one.name)}</td>"]
    cells += [number_cell(str(value)) for value in (one.tries, len(one.times_ms), one.taken)]
    for phase in PHASES:
        spread = one.phases.get(phase)
        cells.append(number_cell(write_ms(spread.p50, spread.tries, 50) if spread else "-"))
    cells += [
        number_cell(write_ms(getattr(total, name), total.tries, percent)) for percent, name in _PERCENTS[1:]
    ]
    return [*cells, number_cell(write_ms(total.most, 0))]


def _windows(found: Sequence[Compared]) -> str:
    rows = [
        (
            one.name,
            [(f"in {window} ms", 100 * one.within.get(str(window), 0) / one.tries) for window in WINDOWS_MS],
        )
        for one in found
        if one.tries
    ]
    return (
        "<h2>In the time that senders wait</h2><p>Share of tries that were answered in time; the rest a sender takes "
        f"for a failure, and may send again.</p>{bars('Share of tries answered in time', rows, '%')}"
    )


def _behaviour(found: Sequence[Compared]) -> str:
    names = list(dict.fromkeys(checked.check for one in found for checked in one.checks))
    rows = []
    for name in names:
        cells = [f"<th>{escape(name)}</th>"]
        for one in found:
            checked = next((each for each in one.checks if each.check == name), None)
            kind = {True: "right", False: "wrong", None: "soft"}[checked.ok if checked else None]
            text = f"{checked.word}: {checked.detail}" if checked else "-"
            cells.append(f'<td class="{kind}">{escape(text)}</td>')
        rows.append(cells)
    return f"<h2>Behaviour</h2>{table(['', *(one.name for one in found)], rows)}"


def _tls(found: Sequence[Compared]) -> str:
    rows = [
        [
            f"<td>{escape(one.name)}</td>",
            f"<td>{escape(one.grade.letter)}</td>",
            f"<td>{escape('; '.join(one.grade.reasons))}</td>",
        ]
        for one in found
    ]
    return f"<h2>TLS</h2>{table(['endpoint', 'grade', 'why no better'], rows)}"


def _sources(found: Sequence[Compared]) -> str:
    rows = []
    for one in found:
        outcomes = ", ".join(f"{count} {word}" for word, count in one.outcomes.items())
        ids = "test ids" if one.test else "ids of its own: conversions were counted"
        more = [
            ids,
            *([f"not sent: {', '.join(one.left_out)}"] if one.left_out else []),
            *([one.example] if one.example else []),
        ]
        cells = (one.name, one.url, ", ".join(one.addresses), f"{one.rate:g}/s", outcomes, "; ".join(more))
        rows.append([f"<td>{escape(cell)}</td>" for cell in cells])
    return f"<h2>What was sent</h2>{table(['endpoint', 'URL', 'connected to', 'rate', 'outcomes', ''], rows)}"
