"""What a named statement is (see ``store.queries``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Statement(NamedTuple):
    """One question: what it answers, how, and what its parameters are when not given."""

    sentence: str
    sql: str
    defaults: Mapping[str, Any]
