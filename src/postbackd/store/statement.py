"""What a named read-only statement is (see ``store.queries``)."""

from __future__ import annotations

from collections.abc import Mapping
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


ALL_TIME: Mapping[str, Any] = {"since": 0, "until": MAX_STAMP}
