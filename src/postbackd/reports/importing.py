"""Taking in the rows of an export that are missing here, as postbacks on a channel of their own.

There is one write path.  A missing row becomes a postback as if the network had sent it late: judged by the same rules
(``core.rules.judge``), matched to its click, held to the offer's window by its own time, and offered to the same unique
key.  So an import can be repeated, can run twice at once, and a postback that comes late is a duplicate of it, or the
other way round.  An import never changes a conversion that is counted already.

A page of rows is first tried in a transaction that is rolled back; only what would be counted is written, and the rest
is told by verdict and reason.  Three kinds of rows are left out before that, because with them one sale could be
counted twice:

- ``no_click``: without a click id there is nothing to attribute;
- ``other_transaction``: their click has a conversion under a transaction id that is not in the file, so the file's ids
  may be others than the network sends;
- ``type_unknown``: the file does not say the type, and this network's conversions here are of several.

Where none of the network's postbacks carries a transaction id, imported rows carry none either, for the same reason.

Sources are not told of what is imported unless that is asked for: it is old, and was often made up for otherwise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.click_id import StampMint
from postbackd.core.model import Channel, Network, Postback, Request
from postbackd.core.money import write_micros
from postbackd.core.params import Received
from postbackd.core.reconciling import Bucket, is_money
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.core.terms import DEFAULT_TYPE
from postbackd.core.verdicts import Verdict
from postbackd.reports.replaying import verdict_words
from postbackd.store.base import Batch, Outcome, Store
from postbackd.store.reconcile_file import ReconcileFile

_PAGE = 200
"""Rows of one transaction: short enough for a running server to get its turn."""

Turns = Callable[[int], AbstractAsyncContextManager[StampMint]]
"""At a time in milliseconds since 1970: the right to make request ids, until it is left (``upkeep.import_turns``)."""


class Wish(Struct, frozen=True, kw_only=True):
    """What is to be imported, and how."""

    network: Network
    deliver: bool = False
    """Whether the rules are asked, and sources told, as of a postback."""
    doubtful: bool = False
    """Whether ``other_transaction`` rows are taken in, too."""
    only_try: bool = False
    """Nothing is written."""


class Imported(Struct, frozen=True, kw_only=True):
    """What an import came to, or would come to."""

    rows: int
    """Missing rows that were looked at."""
    counted: int
    """New conversions."""
    value: dict[str, str]
    """By currency, what of them is earned or may be."""
    refused: dict[str, int]
    """Verdict, and reason in brackets -> rows that are not counted."""
    left_out: dict[str, int]
    """``no_click``, ``other_transaction``, ``type_unknown`` -> rows."""
    type: str | None
    """The type of rows that name none."""
    transaction_ids: bool
    """Whether rows are counted under their transaction ids."""
    deliver: bool
    tried: bool
    """Whether nothing was written."""


class _Policy(Struct, frozen=True):
    """What the conversions here say of how rows must be taken in."""

    type: str | None
    types: frozenset[str]
    with_transactions: bool


async def take_in(
    store: Store,
    rulebook: Rulebook,
    file: ReconcileFile,
    wish: Wish,
    turns: Turns,
    clock: Callable[[], int],
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Imported:
    """Import the missing rows of a finished reconciliation, or say what that would do.

    ``clock``: milliseconds since 1970, asked for every page.  Raises what ``Store.write`` raises; what was written
    until then stays, and the same import again goes on.
    """
    if not wish.deliver:  # without rules, nothing is owed to anybody
        rulebook = Rulebook(msgspec.structs.replace(rulebook.catalog, rules=()))
    policy = _find_policy(file, wish.network)
    left_out: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    money: Counter[str] = Counter()
    done = counted = 0
    total = file.count(Bucket.MISSING_HERE)
    async for page in _pages(file):
        usable = []
        for row in page:
            why = _find_obstacle(row, policy, wish)
            if why:
                left_out[why] += 1
            else:
                usable.append(row)
        outcomes = await _write_page(store, rulebook, usable, policy, wish, turns, clock) if usable else []
        for row, outcome in outcomes:
            if outcome.verdict is Verdict.ACCEPTED:
                counted += 1
                if is_money(row["status"]):
                    money[row["currency"]] += row["value_micros"] or 0
            else:
                refused[verdict_words(outcome.verdict, outcome.reason)] += 1
        done += len(page)
        progress("trying" if wish.only_try else "importing", done, total)
    return Imported(
        rows=done,
        counted=counted,
        value={code: write_micros(micros) for code, micros in sorted(money.items())},
        refused=dict(refused.most_common()),
        left_out=dict(left_out.most_common()),
        type=policy.type,
        transaction_ids=policy.with_transactions,
        deliver=wish.deliver,
        tried=wish.only_try,
    )


async def _pages(file: ReconcileFile) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    after = 0
    while rows := file.page(Bucket.MISSING_HERE, after, _PAGE):
        yield rows
        after = rows[-1]["place"]
        await asyncio.sleep(0)


def _find_policy(file: ReconcileFile, network: Network) -> _Policy:
    types = file.our_types()
    allowed = {word.casefold() for word in network.types}
    known = {*types, *allowed}
    type_ = next(iter(known)) if len(known) == 1 else (None if known else DEFAULT_TYPE)
    named, unnamed = file.our_transactions()
    return _Policy(type_, frozenset(known), named > 0 or unnamed == 0)


def _find_obstacle(row: Mapping[str, Any], policy: _Policy, wish: Wish) -> str:
    if row["click"] is None and row["own_id"] is None:
        return "no_click"
    if row["other"] is not None and not wish.doubtful:
        return "other_transaction"
    if _type_of(row, policy) is None:
        return "type_unknown"
    return ""


def _type_of(row: Mapping[str, Any], policy: _Policy) -> str | None:
    named: str | None = row["type"]
    if named is not None and (not policy.types or named in policy.types):
        return named
    return policy.type


async def _write_page(
    store: Store,
    rulebook: Rulebook,
    rows: Sequence[Mapping[str, Any]],
    policy: _Policy,
    wish: Wish,
    turns: Turns,
    clock: Callable[[], int],
) -> list[tuple[Mapping[str, Any], Outcome]]:
    now_ms = clock()
    async with turns(now_ms) as mint:
        postbacks = [
            _make_postback(row, policy, wish.network, rulebook, mint.mint(now_ms), now_ms) for row in rows
        ]
        rehearsed = (await store.rehearse(Batch(postbacks=postbacks), rulebook)).outcomes
        outcomes = list(rehearsed)
        chosen = [i for i, outcome in enumerate(rehearsed) if outcome.verdict is Verdict.ACCEPTED]
        if chosen and not wish.only_try:
            batch = Batch(postbacks=[postbacks[i] for i in chosen])
            written = await store.write(batch, rulebook, patience_s=10)
            for i, outcome in zip(chosen, written.outcomes, strict=True):
                outcomes[i] = outcome
    return list(zip(rows, outcomes, strict=True))


def _make_postback(
    row: Mapping[str, Any],
    policy: _Policy,
    network: Network,
    rulebook: Rulebook,
    request_id: int,
    now_ms: int,
) -> Postback:
    click = row["own_id"] if row["click"] is None else rulebook.keys.write(row["click"], row["campaign"])
    value = row["value_micros"]
    texts = [
        click,
        _type_of(row, policy),
        None if value is None else write_micros(value),
        row["currency"] if value is not None else None,
        (row["transaction_id"] or None) if policy.with_transactions else None,
        row["status_text"],
        None if row["utc_ms"] is None else _write_time(row["utc_ms"]),
    ]
    received = Received(texts, sum(text is not None for text in texts))
    request = Request(request_id, network.id, Channel.IMPORT, 0, now_ms)
    return judge(received, rulebook.networks[network.id], rulebook.keys, rulebook.masker, request)


def _write_time(utc_ms: int) -> str:
    return datetime.fromtimestamp(utc_ms / 1000, UTC).isoformat(timespec="milliseconds")
