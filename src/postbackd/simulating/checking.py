"""Holds what a server says against the truth: one line a figure, with the difference, and every conversion by itself.

``Said`` is what the server says, in the documents of ``reports`` (which the API answers with the same fields).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import read_unverified
from postbackd.core.model import Channel
from postbackd.core.money import read_micros, write_micros
from postbackd.core.statuses import Status
from postbackd.market.cast import NETWORKS
from postbackd.market.faults import Fault
from postbackd.market.misconfigurations import MISCONFIGURATIONS
from postbackd.reports.delivery_figures import share
from postbackd.simulating.catalog import MARK
from postbackd.simulating.ledger import Books, Ledger, Range, SaleState, open_books

_SHOWN = 3
"""Examples that a line names."""


class Said(Struct, frozen=True, kw_only=True):
    """What the server says of the time of a run."""

    by_network: Mapping[str, Any]
    by_campaign: Mapping[str, Any]
    unmatched: Mapping[str, Any]
    conversions: Sequence[Mapping[str, Any]] | None = None
    """Rows (``network`` by name) of the simulated networks; ``None``: they cannot be seen from here."""


class Check(Struct, frozen=True):
    """One line of the comparison."""

    what: str
    where: str
    truth: str
    said: str
    difference: str
    """Empty: none."""

    @property
    def ok(self) -> bool:
        return not self.difference


class FaultCheck(Struct, frozen=True, kw_only=True):
    """Whether one planted fault is named."""

    fault: str
    where: str
    expected: str
    postbacks: int
    """Answered ones that show it."""
    named: int
    """Of them, under the expected reason."""
    otherwise: str
    shown_by: str
    """``doctor``, or ``report`` where it is counted all the same; ``nothing``; ``-``: there is nothing to show."""
    ok: bool


def compare(ledger: Ledger, said: Said) -> list[Check]:
    """All lines; those of what never happened are left out."""
    networks = {group["network"]: group for group in said.by_network["groups"] if group["network"]}
    campaigns = {group["campaign"]: group for group in said.by_campaign["groups"] if group["campaign"]}
    findings = _read_findings(said.unmatched)
    lines = [*_check_answers(ledger), _check_landings(ledger)]
    lines.append(_check("clicks", "all", ledger.all.clicks, said.by_network["clicks"]))
    for role in NETWORKS:
        books = ledger.networks.get(role.name) or open_books()
        name = role.name + MARK
        lines += _check_network(name, books, networks.get(name, {}), findings.get(name, Counter()))
    for name in sorted({*ledger.campaigns, *campaigns}):
        books = ledger.campaigns.get(name) or open_books()
        lines += _check_campaign(name, books, campaigns.get(name, {}))
    if said.conversions is not None:
        lines += _check_rows(ledger, said.conversions)
    return [line for line in lines if (line.truth, line.said) != ("0", "0")]


def _check(what: str, where: str, truth: Range, said: int) -> Check:
    return Check(what, where, _write_range(truth), f"{said:,}", _differ(truth, said))


def _differ(truth: Range, said: int) -> str:
    if truth.low <= said <= truth.high:
        return ""
    return f"{said - (truth.low if said < truth.low else truth.high):+,}"


def _write_range(truth: Range) -> str:
    return f"{truth.low:,}" if truth.low == truth.high else f"{truth.low:,} to {truth.high:,}"


def _check_answers(ledger: Ledger) -> Iterator[Check]:
    unlike = Counter(one.network + MARK for one in ledger.unlike)
    answered = sum(books.postbacks.low for books in ledger.networks.values())
    yield Check("answers as they must be", "all", f"{answered:,}", f"{answered - unlike.total():,}", "")
    for network, count in unlike.items():
        first = next(one for one in ledger.unlike if one.network + MARK == network)
        yield Check(
            "answers unlike the truth", network, "0", f"{count:,}",
            f"+{count:,}: postback {first.postback} was answered {first.said}, not {' or '.join(first.expected)}",
        )  # fmt: skip


def _check_landings(ledger: Ledger) -> Check:
    astray = ledger.visits["astray"]
    return Check("visitors sent astray", "all", "0", f"{astray:,}", f"+{astray:,}" if astray else "")


def _check_network(
    name: str, books: Books, group: Mapping[str, Any], findings: Counter[tuple[str, str]]
) -> Iterator[Check]:
    postbacks = group.get("postbacks", _NO_POSTBACKS)
    yield _check("postbacks", name, books.postbacks, postbacks["total"])
    yield from _check_all("verdict ", name, books.verdicts, postbacks["by_verdict"])
    yield from _check_all("reason ", name, books.reasons, postbacks["by_reason"])
    doctor = {f"{verdict} ({reason})": count for (verdict, reason), count in findings.items()}
    known = {f"{verdict} ({reason or 'none'})": count for (verdict, reason), count in books.findings.items()}
    yield from _check_all("doctor: ", name, known, doctor)
    yield _check_rate("match rate", name, books.matched, books.carried, group.get("match_rate"))
    yield from _check_conversions(name, books, group)
    channels = group.get("channels") or {}
    heard = {word: channels.get(word, 0) for word in ("s2s", "pixel", "only_s2s")}
    for word, label in (("s2s", "heard of by S2S"), ("pixel", "heard of by pixel")):
        yield _check(label, name, books.channels[word], heard[word])
    loss = share(heard["only_s2s"], heard["s2s"])
    yield _check_rate("pixel loss", name, books.channels["only_s2s"], books.channels["s2s"], loss)


_NO_POSTBACKS: Mapping[str, Any] = {"total": 0, "by_verdict": {}, "by_reason": {}}


def _check_campaign(name: str, books: Books, group: Mapping[str, Any]) -> Iterator[Check]:
    yield _check("clicks", name, books.clicks, group.get("clicks") or 0)
    yield from _check_conversions(name, books, group)


def _check_conversions(name: str, books: Books, group: Mapping[str, Any]) -> Iterator[Check]:
    conversions = group.get("conversions") or {"count": 0, "by_status": {}, "value": {}}
    yield _check("conversions", name, books.conversions, conversions["count"])
    yield from _check_all("status ", name, books.statuses, conversions["by_status"])
    value = {
        (currency, status): read_micros(text, currency) or 0
        for currency, statuses in conversions["value"].items()
        for status, text in statuses.items()
    }
    for currency, status in sorted({*books.money, *value}):
        truth, said = books.money[currency, status], value.get((currency, status), 0)
        low, high = write_micros(truth.low), write_micros(truth.high)
        differs = (
            "" if truth.low <= said <= truth.high else _write_signed(said - truth.high, said - truth.low)
        )
        yield Check(
            f"value {status}, {currency}", name, low if low == high else f"{low} to {high}", write_micros(said), differs
        )  # fmt: skip


def _write_signed(above: int, below: int) -> str:
    return f"+{write_micros(above)}" if above > 0 else f"-{write_micros(-below)}"


def _check_all(
    label: str, where: str, truth: Mapping[str, Range], said: Mapping[str, int]
) -> Iterator[Check]:
    for word in sorted({*truth, *said}):
        yield _check(f"{label}{word}", where, truth.get(word) or Range(), said.get(word, 0))


def _check_rate(what: str, where: str, part: Range, whole: Range, said: float | None) -> Check:
    """A rate of what lies within bounds does so too."""
    low, high = share(part.low, whole.high), share(part.high, whole.low)
    if said is None or low is None:
        fits = said is None and not whole.low
        shown = "0" if said is None else f"{said:.2%}"
        return Check(what, where, "0" if fits else "some", shown, "" if fits else shown)
    top = 1.0 if high is None else min(1.0, high)
    truth = f"{low:.2%}" if low == top else f"{low:.2%} to {top:.2%}"
    differs = "" if low <= said <= top else f"{said - (low if said < low else top):+.2%}"
    return Check(what, where, truth, f"{said:.2%}", differs)


def _read_findings(unmatched: Mapping[str, Any]) -> Mapping[str, Counter[tuple[str, str]]]:
    found: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for group in unmatched["groups"]:
        found[group["network"]][group["verdict"], group["reason"]] += group["count"]
    return found


# --- every conversion by itself ----------------------------------------------------------------------------------


def _check_rows(ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    by_click: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_click[row["click_id"]].append(row)
    missing, twice, never, differing = [], [], [], []
    must = there = 0
    for state in ledger.sales.values():
        found = by_click.pop(_stamp_of(state.click_id), [])
        possible = state.possible()
        counted = [one for one in possible if one.status]
        must += len(counted) == len(possible)
        there += bool(found)
        if not found and len(counted) == len(possible):
            missing.append(state)
        elif len(found) > 1:
            twice.append(state)
        elif found and not counted:
            never.append(state)
        elif found and not any(_agrees(found[0], state, one.status, one.channels) for one in counted):
            differing.append(state)
    strange = [row for click_rows in by_click.values() for row in click_rows]
    yield Check("conversions one by one", "all", f"{must:,} at least", f"{there:,}", "")
    for label, states in (
        ("missing conversions", missing),
        ("conversions counted more than once", twice),
        ("conversions that nothing told of", never),
        ("conversions with another status, value or channel", differing),
    ):
        yield Check(label, "all", "0", f"{len(states):,}", _name_examples([one.click_id for one in states]))
    yield Check(
        "conversions of clicks that never bought", "all", "0", f"{len(strange):,}",
        _name_examples([str(row["click_id"]) for row in strange]),
    )  # fmt: skip


def _name_examples(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"+{len(names):,}: click {', '.join(names[:_SHOWN])}{more}"


def _stamp_of(click_id: str) -> int:
    number = read_unverified(click_id)
    return -1 if number is None else number >> 64


def _agrees(row: Mapping[str, Any], state: SaleState, status: str, channels: int) -> bool:
    sale = state.sale
    both = int(Channel.S2S | Channel.PIXEL)
    return (
        Status(row["status"]).word == status
        and row["channels"] & both == channels
        and (row["value_micros"], row["currency"], row["type"])
        == (sale.value_micros, sale.currency, sale.type)
        and row["network"] == sale.network + MARK
    )


# --- planted faults ----------------------------------------------------------------------------------------------


def check_faults(ledger: Ledger, said: Said) -> list[FaultCheck]:
    """For every planted fault: its reason, how many of its postbacks bear it, and who shows it."""
    return [_check_fault(ledger, said, fault) for fault in ledger.began.plan.faults]


def _check_fault(ledger: Ledger, said: Said, fault: Fault) -> FaultCheck:
    one = MISCONFIGURATIONS[fault.name]
    figures = {
        network: found
        for (name, network), found in ledger.faults.items()
        if name == fault.name and (one.kind != "network" or network == fault.where)
    }
    named = sum(found.as_expected for found in figures.values())
    answered = sum(found.answered for found in figures.values())
    otherwise: Counter[str] = sum((found.otherwise for found in figures.values()), Counter())
    shown_by = "-"
    if one.reason and answered:
        shown_by = _find_shown(said, one.reason, {network + MARK for network in figures})
    wanted = "doctor" if one.verdict else "report"
    return FaultCheck(
        fault=fault.name,
        where=fault.where,
        expected=one.reason or "-",
        postbacks=answered,
        named=named,
        otherwise=", ".join(f"{word} {count:,}" for word, count in otherwise.most_common()),
        shown_by=shown_by,
        ok=named == answered and shown_by in ("-", wanted),
    )


def _find_shown(said: Said, reason: str, networks: set[str]) -> str:
    if any(group["network"] in networks and group["reason"] == reason for group in said.unmatched["groups"]):
        return "doctor"
    groups = (group for group in said.by_network["groups"] if group["network"] in networks)
    return "report" if any(group["postbacks"]["by_reason"].get(reason) for group in groups) else "nothing"


def count_differences(checks: Iterable[Check], faults: Iterable[FaultCheck]) -> int:
    """How many lines are not as they must be."""
    return sum(not one.ok for one in checks) + sum(not one.ok for one in faults)
