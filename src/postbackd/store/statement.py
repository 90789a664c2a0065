"""What a named read-only statement is (see ``store.queries``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from postbackd.core.click_id import MAX_STAMP

CLICK_OF_POSTBACK = "k.click_id = p.click_id"

REQUEST_OF_POSTBACK = "k.request_id = p.request_id"
"""The joins of two large tables: a distributed database wants to be told, too, that both rows are on one shard."""


class Statement(NamedTuple):
    """One question: what it answers, how, and what its parameters are when not given."""

    sentence: str
    sql: str
    defaults: Mapping[str, Any]


def rung(value: str, ladder: Sequence[int], first: str = "") -> str:
    """SQL for the number of the rung that a value is on: how many bounds it is not below.

    ``first``: a ``WHEN`` that comes before.
    """
    rungs = " ".join(f"WHEN {value} < {bound} THEN {number}" for number, bound in enumerate(ladder))
    return f"CASE {first} {rungs} ELSE {len(ladder)} END"


NOT_IMPORTED = "p.channel <> 4"
"""What an operator imported says nothing about how a network sends (``model.Channel.IMPORT``)."""

ALL_TIME: Mapping[str, Any] = {"since": 0, "until": MAX_STAMP}

LOG_COLUMNS = """
SELECT p.request_id, p.network, n.name AS network_name, p.channel, p.verdict, p.reason, p.click_id, p.campaign,
       m.name AS campaign_name, p.conversion_id, p.click_text, p.type, p.value, p.currency, p.transaction_id,
       p.status, p.time, p.found_in, p.bytes, p.parameters, p.first_verdict, p.first_reason, p.observed, p.sender
"""
"""Of a row of the postback log ``p``, with the names of its network and campaign."""

LOG_NAMES = """
LEFT JOIN networks AS n ON n.id = p.network
LEFT JOIN campaigns AS m ON m.id = p.campaign
"""
"""Where these names are."""
