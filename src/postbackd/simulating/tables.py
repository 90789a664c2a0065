"""What a run and its check print for people."""

from __future__ import annotations

from collections.abc import Sequence

from postbackd.reports.table import format_table
from postbackd.simulating.checking import Check, FaultCheck
from postbackd.simulating.ledger import Ledger
from postbackd.simulating.savings import Savings, share_lost, write_lost


def format_run(ledger: Ledger) -> str:
    """What was sent, in a few lines."""
    visits = ledger.visits
    clicks = sum(count for kind, count in visits.items() if kind not in ("lost", "astray"))
    lines = [
        f"visits            {clicks:,}, {clicks - visits['counted']:,} of them by programs",
        f"did not arrive    {visits['lost']:,}",
        f"sales             {len(ledger.sales):,}",
        f"answered          {ledger.all.postbacks.low:,} postbacks and pixels",
        f"not stored        {ledger.not_stored:,} requests: no connection, or refused at the door",
        f"unknown           {ledger.unknown:,} requests, which may be stored or not",
        f"given up          {ledger.given_up:,} postbacks, by their networks",
    ]
    if ledger.switched_off:
        lines.append(f"switched us off   {', '.join(ledger.switched_off)}")
    if ledger.took_us:
        took = sorted(ledger.took_us)
        p50, p99 = took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]
        lines.append(f"answered within   {p50 / 1000:.1f} ms (p50), {p99 / 1000:.1f} ms (p99)")
    return "\n".join(lines)


def format_checks(checks: Sequence[Check], *, all_lines: bool) -> str:
    """The comparison; without ``all_lines`` what is right of one place is one line."""
    rows = [
        (one.what, one.where, one.truth, one.said, one.difference, "ok" if one.ok else "NOT OK")
        for one in checks
        if all_lines or not one.ok or one.where == "all" or one.what in _KEPT
    ]
    return format_table(("what", "where", "truth", "server", "difference", ""), rows)


_KEPT = frozenset(
    {"postbacks", "conversions", "match rate", "heard of by S2S", "heard of by pixel", "pixel loss"}
)
"""What is shown of every network and campaign."""


def format_faults(checks: Sequence[FaultCheck]) -> str:
    """Planted faults and how they are named."""
    rows = [
        (
            one.fault, one.where, one.expected, f"{one.postbacks:,}", f"{one.named:,}", one.otherwise or "-",
            one.shown_by, "ok" if one.ok else "NOT OK",
        )
        for one in checks
    ]  # fmt: skip
    return format_table(
        ("fault", "where", "must be named", "postbacks", "named so", "named otherwise", "shown by", ""), rows
    )


def format_savings(savings: Sequence[Savings]) -> str:
    """What S2S saves over the pixel."""
    truth = savings[0]
    rows = [
        (
            _LABELS[one.way], f"{one.sales:,}", f"{truth.sales - one.sales:,}", f"{share_lost(truth, one):.1%}",
            ", ".join(f"{money} {currency}" for currency, money in write_lost(truth, one).items()),
        )
        for one in savings
    ]  # fmt: skip
    return format_table(("", "conversions", "lost", "share lost", "money lost"), rows)


_LABELS = {"truth": "really sold", "S2S": "counted by S2S", "pixel": "counted by pixel"}


def format_sweep(points: Sequence[tuple[float, Sequence[Savings]]]) -> str:
    """The same at other rates of blockers."""
    rows = []
    for rate, (truth, s2s, pixel) in points:
        rows.append(
            (
                f"{rate:.0%}", f"{truth.sales:,}", f"{s2s.sales:,}", f"{pixel.sales:,}",
                f"{share_lost(truth, s2s):.1%}", f"{share_lost(truth, pixel):.1%}",
                ", ".join(f"{money} {currency}" for currency, money in write_lost(truth, pixel).items()),
            )
        )  # fmt: skip
    return format_table(
        ("blockers", "sold", "S2S", "pixel", "lost by S2S", "lost by pixel", "money that the pixel loses"),
        rows,
    )
