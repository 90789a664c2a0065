"""Charts as SVG, to stand inside of a page: no script, no address, every text escaped.

Colours are those of the page (``var(--…)``), so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from postbackd.core.percentiles import write_figure

WIDTH = 720
_LABEL, _ROW, _GAP = 170, 22, 10
_SERIES = ("--a", "--b", "--c", "--right")
_PLOT = WIDTH - _LABEL - 130


def bars(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float | None]]]], unit: str) -> str:
    """Bars beside each other: for each row its label, and a name and a value a bar; ``None`` is not drawn but said."""
    most = max((value for _, values in rows for _, value in values if value is not None), default=0.0) or 1.0
    parts = []
    top = 0
    for label, values in rows:
        parts.append(_text(_LABEL - 8, top + _ROW * len(values) / 2 + 4, label, "end"))
        for number, (name, value) in enumerate(values):
            y = top + number * _ROW
            if value is None:
                parts.append(_text(_LABEL, y + 15, f"{name}: too few tries", "start", "soft"))
                continue
            width = max(1.0, value / most * _PLOT)
            colour = _SERIES[number % len(_SERIES)]
            parts.append(
                f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" rx="2" fill="var({colour})"/>'
            )
            parts.append(_text(_LABEL + width + 6, y + 15, f"{name} {write_figure(value)} {unit}", "start"))
        top += _ROW * len(values) + _GAP
    return _picture(title, top, parts)


def stacks(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str) -> str:
    """One bar a row, made of its values one after the other; every part is named below and where it is pointed at."""
    most = max((sum(value for _, value in values) for _, values in rows), default=0.0) or 1.0
    parts = []
    for number, (label, values) in enumerate(rows):
        y, x = number * (_ROW + _GAP), float(_LABEL)
        parts.append(_text(_LABEL - 8, y + 15, label, "end"))
        for part, (name, value) in enumerate(values):
            width = value / most * _PLOT
            colour = _SERIES[part % len(_SERIES)]
            told = escape(f"{name} {write_figure(value)} {unit}")
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 4}" fill="var({colour})">'
                f"<title>{told}</title></rect>"
            )
            x += width
        parts.append(
            _text(x + 6, y + 15, f"{write_figure(sum(value for _, value in values))} {unit}", "start")
        )
    top = len(rows) * (_ROW + _GAP)
    names = [name for name, _ in rows[0][1]] if rows else []
    for part, name in enumerate(names):
        x = _LABEL + part * 110.0
        parts.append(
            f'<rect x="{x}" y="{top + 4}" width="10" height="10" fill="var({_SERIES[part % len(_SERIES)]})"/>'
        )
        parts.append(_text(x + 16, top + 13, name, "start", "soft"))
    return _picture(title, top + 20, parts)


def dots(title: str, rows: Sequence[tuple[str, Sequence[float]]], marks: Sequence[float], unit: str) -> str:
    """Every value of each row as a dot, on a logarithmic scale; ``marks``: lines across all rows."""
    values = [max(value, 0.01) for _, found in rows for value in found]
    low, high = min([*values, 1.0]), max([*values, *marks])
    span = log10(high) - log10(low) or 1.0

    def place(value: float) -> float:
        return _LABEL + (log10(max(value, low)) - log10(low)) / span * _PLOT

    height = len(rows) * (_ROW + _GAP)
    parts = []
    for mark in marks:
        x = place(mark)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="var(--line)" stroke-dasharray="4 3"/>'
        )
        parts.append(_text(x, height + 14, f"{write_figure(mark)} {unit}", "middle", "soft"))
    for number, (label, found) in enumerate(rows):
        y = number * (_ROW + _GAP) + _ROW / 2
        parts.append(_text(_LABEL - 8, y + 4, label, "end"))
        parts += [
            f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="3.5" fill="var(--a)" fill-opacity="0.45"/>'
            for value in found
        ]
    if values:
        parts.append(_text(_LABEL, height + 14, f"{write_figure(low)} {unit}", "start", "soft"))
    return _picture(title, height + 20, parts)


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {max(height, 1):.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    shown = text if len(text) <= 40 else f"{text[:39]}…"
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(shown)}</text>'
