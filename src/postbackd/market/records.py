"""What happens in the market: one record an event.  Names, not ids: whoever plays them knows the catalog.

Times are ``*_ms`` since 1970, money is ``*_micros`` or the text that a network sends (see ``core.model``).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from postbackd.core.model import Channel, ClickKind
from postbackd.market.tracker import Message


class Visit(Struct, frozen=True, gc=False):
    """A visitor came through a campaign."""

    at_ms: int
    number: int
    """Its place among all visits, from 0: what the postbacks about it refer to."""
    campaign: str
    offer: str
    kind: ClickKind
    source_click_id: str
    cost_micros: int
    country: str
    subs: tuple[str, ...]
    """Placement, creative, device, browser."""
    converts: bool
    """Whether any postback will speak of it: of others the click id need not be remembered."""


class Spelling(StrEnum):
    """In which form a postback carries the click id."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    ALTERED = "altered"
    CAPITALS = "capitals"
    DOUBLE_ENCODED = "double_encoded"
    ABSENT = "absent"
    """The query holds what the network sends instead."""


class Call(Struct, frozen=True, gc=False):
    """A network, or a visitor's browser, sent a postback."""

    at_ms: int
    network: str
    channel: Channel
    visit: int
    """Number of the visit that it is about."""
    query: str
    """As it is sent; ``{id}`` stands for the click id."""
    spelling: Spelling
    took_us: int
    """How long the answer took."""
    sale: int
    """Number of the sale that it is about; 0: of none."""
    verdict: str
    """What a tracker that is right answers."""
    reason: str
    """And why; empty for none."""
    says: Message = Message()
    """What it says, for whoever judges it in another order."""
    fault: str = ""
    """Name of the misconfiguration that it shows."""


class Refused(Struct, frozen=True, gc=False):
    """Somebody knocked who was refused at the door: a scanner, a malformed request."""

    at_ms: int
    kind: str


class Sale(Struct, frozen=True, gc=False):
    """What really happened at an advertiser, whatever we hear of it."""

    at_ms: int
    number: int
    """From 1."""
    visit: int
    campaign: str
    network: str
    offer: str
    type: str
    value_micros: int
    currency: str
    lost_by: str
    """Name of the fault that keeps its click id from us; empty for none."""
    no_pixel: str = ""
    """Why its pixel was never asked for (``blocked``, ``abandoned``); empty: it was, or there is none."""


class Standing(Struct, frozen=True, gc=False):
    """From now on a tracker that is right counts a sale with this status."""

    at_ms: int
    sale: int
    status: str
    value_micros: int
    currency: str


Event = Visit | Call | Refused | Sale | Standing

TRUNCATED_TO = 20
"""Characters that the network which truncates ids keeps."""


def write_query(call: Call, click_id: str) -> str:
    """The query of a postback; ``click_id``: that of its visit."""
    if call.spelling is Spelling.ABSENT:
        return call.query
    if call.spelling is Spelling.TRUNCATED:
        click_id = click_id[:TRUNCATED_TO]
    elif call.spelling is Spelling.ALTERED:
        click_id = click_id[:-1] + ("7" if click_id[-1] != "7" else "8")
    elif call.spelling is Spelling.CAPITALS:
        click_id = click_id.upper()
    elif call.spelling is Spelling.DOUBLE_ENCODED:
        click_id = f"%2522{click_id}%2522"  # an id in quotes, encoded twice on its way
    return call.query.replace("{id}", click_id)
