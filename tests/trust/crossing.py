"""The clicks wait in one node's spool, their postbacks in another's, and both come back at the same moment.

The node with the clicks has written them and not committed yet when the other one writes the postbacks: neither sees
what the other one brings.  All the same every postback must be counted in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.ledger import CLICK, CONVERSION, QUEUED, Answer, Ledger, Order
from tests.trust.nodes import NodeStage, cluster
from tests.trust.oracle import Tally
from tests.trust.postgres import Database
from tests.trust.server import wait_until
from tests.trust.wire import parse_answer, write_order

_PAIRS = 50
_BACK = "the database is back"
_MATCHED_S = 15


def cross(place: Path, version: int, away_s: float) -> Tally:
    """Let them meet after an outage of so many seconds; then the oracle."""
    with (
        Database(version) as database,
        cluster(place, database, 2, linked=True) as nodes,
        Ledger(place / "ledger") as ledger,
    ):
        (clicks, postbacks), (first, second) = nodes.stages(), nodes.links
        for link in nodes.links:
            link.take_down()
        began = time.monotonic()
        told = _tell(
            clicks, ledger, [Order(CLICK, f"visit-{_word(n)}", value_micros=n) for n in range(_PAIRS)]
        )
        sales = [
            Order(CONVERSION, f"sale-{_word(number)}", answer.click_id, value_micros=1_000_000 + number)
            for number, answer in enumerate(told)
        ]
        told = _tell(postbacks, ledger, sales)
        wait_until(lambda: time.monotonic() - began >= away_s, away_s + 10, "the end of the outage")
        first.hold_commits()
        first.put_up()
        first.wait_held()
        second.put_up()
        # It has looked for what it missed, too, when it says so.
        wait_until(lambda: _BACK in postbacks.server.stderr_tail(3), 30, "the second node being back")
        first.release()
        nodes.wait_drained()
        return _judge(database, ledger, told)


def _judge(database: Database, ledger: Ledger, told: Sequence[Answer]) -> Tally:
    try:
        database.wait_matched(_MATCHED_S)
    except TimeoutError:
        pass  # the oracle says which
    tally = database.check(ledger, late=True)
    if any(answer.verdict != QUEUED for answer in told):
        tally.find("wrong", "the postbacks were not kept in the spool")
    return tally


def _tell(stage: NodeStage, ledger: Ledger, orders: Sequence[Order]) -> list[Answer]:
    ledger.sent(orders)
    requests = [write_order(order, stage.catalog.key, stage.catalog.slug) for order in orders]
    answers = asyncio.run(_ask(stage, requests))
    ledger.answer(zip(orders, answers, strict=True))
    return answers


async def _ask(stage: NodeStage, requests: Sequence[bytes]) -> list[Answer]:
    connection = await wire.Connection.open(stage.address)
    answers = await connection.ask(requests)
    connection.close()
    return [parse_answer(answer.head.decode("latin-1"), answer.body) for answer in answers]


def _word(number: int) -> str:
    """Digits could be taken for a phone number."""
    return chr(97 + number // 26) + chr(97 + number % 26)
