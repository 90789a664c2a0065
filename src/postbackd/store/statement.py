"""What a named read-only statement is (see ``store.queries``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from postbackd.core.click_id import MAX_STAMP


class Statement(NamedTuple):
    """One question: what it answers, how, and what its parameters are when not given."""

    sentence: str
    sql: str
    defaults: Mapping[str, Any]


ALL_TIME: Mapping[str, Any] = {"since": 0, "until": MAX_STAMP}
