"""Rows that are money, each with its checksum: conversions, and what changed them."""

from __future__ import annotations

import msgspec

from postbackd.core.checksum import carry, checksum
from postbackd.core.model import Postback
from postbackd.core.rules import Conversion
from postbackd.store.transaction import Key, Row, StoredClick


def history_row(key: Key, postback: Postback, word: str | None, before: Conversion, after: Conversion) -> Row:
    columns = (
        postback.request.request_id, before.conversion_id, before.status, after.status,
        word, before.value_micros, after.value_micros,
    )  # fmt: skip
    return (key[0], *columns, checksum(columns))


def conversion_row(key: Key, postback: Postback, click: StoredClick) -> Row:
    request, terms = postback.request, postback.terms
    columns = (
        *key, request.request_id, request.network, click[0], click[1], terms.status, terms.value_micros,
        terms.currency, request.channel, postback.time_ms,
    )  # fmt: skip
    return (*columns, checksum(columns))


def columns_of(key: Key, stored: Conversion) -> Row:
    """What the checksum of a stored conversion covers."""
    return (
        *key, stored.conversion_id, stored.network, stored.campaign, stored.offer, stored.status,
        stored.value_micros, stored.currency, stored.channels, stored.status_time_ms,
    )  # fmt: skip


def resealed(key: Key, before: Conversion, after: Conversion) -> Conversion:
    sealed = carry(before.checksum, columns_of(key, before), columns_of(key, after))
    return msgspec.structs.replace(after, checksum=sealed)
