"""The report for people: the same figures as the document, in aligned columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postbackd.core.rollups import HEALTHY_MATCH_RATE


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, figures to the right, everything else to the left."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [
        bool(rows) and all(row[column].strip("-+.,% ").isdigit() or row[column] == "-" for row in rows)
        for column in range(len(header))
    ]
    lines = []
    for row in cells:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def percent(rate: float | None) -> str:
    """A share as people read it."""
    return "-" if rate is None else f"{rate * 100:.1f}%"


def format_report(report: dict[str, Any]) -> str:
    """The whole report as text."""
    span = f"{report['since'] or 'the beginning'} to {report['until'] or 'now'}"
    parts = [f"postbackd report, {span}", _format_totals(report)]
    if report["postbacks"]["by_reason"]:
        parts.append(_format_counts("reason", report["postbacks"]["by_reason"]))
    if report["postbacks"]["would_be_refused"]:
        parts.append(
            _format_counts("sender would be refused (observed)", report["postbacks"]["would_be_refused"])
        )
    if report["refusals"]:
        parts.append(_format_counts("refused at the door", report["refusals"]))
    if report["deliveries"]["total"]:
        parts.append(_format_deliveries(report["deliveries"]))
    if "groups" in report:
        parts.append(_format_groups(report["by"], report["groups"]))
    return "\n\n".join(parts)


def _format_totals(report: dict[str, Any]) -> str:
    postbacks, conversions = report["postbacks"], report["conversions"]
    channels, times, sizes = report["channels"], report["response_ms"], report["request_bytes"]
    verdicts = ", ".join(f"{count} {word}" for word, count in postbacks["by_verdict"].items() if count)
    statuses = ", ".join(f"{count} {word}" for word, count in conversions["by_status"].items() if count)
    rows = [
        ("clicks", str(report["clicks"])),
        ("postbacks", f"{postbacks['total']}" + (f" ({verdicts})" if verdicts else "")),
        ("conversions", f"{conversions['count']}" + (f" ({statuses})" if statuses else "")),
        *((f"value {code}", _format_value(value)) for code, value in conversions["value"].items()),
        ("match rate", f"{percent(report['match_rate'])}  {mark_health(report['match_rate'])}".rstrip()),
        ("duplicate rate", percent(report["duplicate_rate"])),
        ("postback success", percent(report["postback_success_rate"])),
        ("response time", _format_times(times)),
        ("request size", _format_sizes(sizes, report["share_over_10_parameters"])),
        ("channels", _format_channels(channels)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)


def mark_health(match_rate: float | None) -> str:
    """On which side of the 90 % line a match rate lies."""
    if match_rate is None:
        return ""
    if match_rate >= HEALTHY_MATCH_RATE:
        return "healthy (90% or more)"
    return "BELOW 90%: see the reasons here, and 'postbackd doctor' for what to do"


def _format_value(value: dict[str, str]) -> str:
    return ", ".join(f"{amount} {status}" for status, amount in value.items())


def _format_times(times: dict[str, Any]) -> str:
    if not times["count"]:
        return "-"
    return f"{times['average']:.2f} ms average, p50 {times['p50']:.2f}, p95 {times['p95']:.2f}, p99 {times['p99']:.2f}"


def _format_sizes(sizes: dict[str, Any], over_10: float | None) -> str:
    if sizes["average"] is None:
        return "-"
    return (
        f"{sizes['average']:.0f} bytes average, {percent(sizes['share_under_200'])} under 200 bytes, "
        f"{percent(over_10)} with more than 10 parameters"
    )


def _format_channels(channels: dict[str, int]) -> str:
    return (
        f"{channels['s2s']} S2S ({channels['only_s2s']} only S2S), "
        f"{channels['pixel']} pixel ({channels['only_pixel']} only pixel), {channels['both']} both"
        + (f"; {channels['imported']} imported" if channels["imported"] else "")
    )


def _format_deliveries(figures: dict[str, Any]) -> str:
    rows = [("all", figures)]
    for kind in ("source", "target"):
        rows += [(f"{kind} {group[kind] or '(unknown)'}", group) for group in figures[f"by_{kind}"]]
    header = (
        "deliveries",
        "success",
        "delivered",
        "dead",
        "waiting",
        "cancelled",
        "attempts each",
        "p50",
        "p95",
    )
    return format_table(header, [(name, *_delivery_cells(group)) for name, group in rows])


def _delivery_cells(figures: dict[str, Any]) -> list[str]:
    states = [str(figures["by_state"][state]) for state in ("delivered", "dead", "waiting", "cancelled")]
    each = "-" if figures["attempts_each"] is None else f"{figures['attempts_each']:.2f}"
    times = [_format_seconds(figures["seconds"][name]) for name in ("p50", "p95")]
    return [percent(figures["success_rate"]), *states, each, *times]


def _format_seconds(seconds: float | None) -> str:
    """As people read it: ``12 ms``, ``3.4 s``, ``5.0 min``, ``2.5 h``."""
    if seconds is None:
        return "-"
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.0f} ms"


def _format_counts(title: str, counts: dict[str, int]) -> str:
    return format_table((title, "count"), [(name, str(count)) for name, count in counts.items()])


def _format_groups(by: str, groups: list[dict[str, Any]]) -> str:
    header = (
        by,
        "clicks",
        "postbacks",
        "accepted",
        "duplicate",
        "unmatched",
        "rejected",
        "match rate",
        "conversions",
    )
    rows = []
    for group in groups:
        verdicts, conversions = group["postbacks"]["by_verdict"], group["conversions"]
        rows.append(
            (
                str(group[by] or "(unknown)"),
                "-" if group["clicks"] is None else str(group["clicks"]),
                str(group["postbacks"]["total"]),
                *(str(verdicts[word]) for word in ("accepted", "duplicate", "unmatched", "rejected")),
                percent(group["match_rate"]),
                "-" if conversions is None else str(conversions["count"]),
                "" if conversions is None else _format_money(conversions["value"]),
            )
        )
    return format_table((*header, "value"), rows)


def _format_money(value: dict[str, dict[str, str]]) -> str:
    """Approved and pending money by currency; what was rejected or reversed is not earned."""
    parts = []
    for currency, by_status in value.items():
        parts += [f"{by_status[s]} {currency} {s}" for s in ("approved", "pending") if s in by_status]
    return ", ".join(parts)
