"""The truth of a run as one document: what was planned, what was sent, what should be counted."""

from __future__ import annotations

from typing import Any

import msgspec

from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.simulating.ledger import Books, Ledger, Range
from postbackd.simulating.savings import count_savings, describe_savings


def describe_run(ledger: Ledger) -> dict[str, Any]:
    """The document.  A figure that is not known for certain is two: the least and the most."""
    began, ended = ledger.began, ledger.ended
    return {
        "server": began.server,
        "began": write_moment(began.at_ms),
        "ended": None if ended is None else write_moment(ended.at_ms),
        "why_ended": "killed" if ended is None else ended.why,
        "plan": msgspec.to_builtins(began.plan),
        "visits": dict(ledger.visits),
        "sales": len(ledger.sales),
        "not_stored": ledger.not_stored,
        "unknown": ledger.unknown,
        "given_up": ledger.given_up,
        "switched_off": ledger.switched_off,
        "unlike_the_truth": [msgspec.to_builtins(one) for one in ledger.unlike],
        "all": _describe(ledger.all),
        "networks": {name: _describe(books) for name, books in sorted(ledger.networks.items())},
        "campaigns": {name: _describe(books) for name, books in sorted(ledger.campaigns.items())},
        "savings": describe_savings(count_savings(ledger)),
    }


def _describe(books: Books) -> dict[str, Any]:
    value: dict[str, dict[str, str | list[str]]] = {}
    for (currency, status), micros in sorted(books.money.items()):
        value.setdefault(currency, {})[status] = (
            write_micros(micros.low)
            if micros.low == micros.high
            else [write_micros(micros.low), write_micros(micros.high)]
        )
    return {
        "clicks": _write(books.clicks),
        "postbacks": _write(books.postbacks),
        "by_verdict": {word: _write(count) for word, count in sorted(books.verdicts.items())},
        "by_reason": {word: _write(count) for word, count in sorted(books.reasons.items())},
        "conversions": {
            "count": _write(books.conversions),
            "by_status": {word: _write(count) for word, count in sorted(books.statuses.items())},
            "value": value,
        },
        "channels": {word: _write(count) for word, count in books.channels.items()},
    }


def _write(truth: Range) -> int | list[int]:
    return truth.low if truth.low == truth.high else [truth.low, truth.high]
