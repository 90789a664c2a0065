"""What a tracker that is right makes of the messages about one sale: the rules of the promises, written once more.

It shares nothing with ``core.rules``, so that the two can be held against each other.  One sale is one key (click,
type, transaction id); everything that is heard of it comes here in the order in which it arrived.
"""

from __future__ import annotations

from msgspec import Struct

from postbackd.core.model import Channel

_RANK = {"pending": 1, "approved": 2, "rejected": 3, "reversed": 4}
"""Without times, or with times in this order, a status only goes up."""


class Message(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What one postback says, as it is understood."""

    verdict: str = ""
    """Of what can be decided without the conversion (no id, a value that cannot be read); empty: it can be counted."""
    reason: str = ""
    """Of that verdict, or what was remarked although it is counted."""
    status: str = "approved"
    given: bool = False
    """Whether the sender wrote the status."""
    finds: bool = True
    """Whether it leads to its click."""


class Counted(Struct, frozen=True, gc=False):
    """A sale as it is counted so far."""

    status: str = ""
    """Empty: not yet."""
    channels: int = 0


def settle(
    before: Counted, message: Message, channel: Channel, *, holds_repeats: bool
) -> tuple[Counted, str, str]:
    """What is counted afterwards, the verdict and the reason.

    ``holds_repeats``: the network wants a person to decide about repeats, and names no transactions.
    """
    if message.verdict:
        return before, message.verdict, message.reason
    if not before.status:
        return Counted(message.status, channel), "accepted", message.reason
    after = Counted(_move(before, message, channel), before.channels | channel)
    if after.status != before.status:
        return after, "updated", message.reason
    pixel_after_server = channel == Channel.PIXEL and before.channels & Channel.S2S
    if holds_repeats and after.channels == before.channels and not pixel_after_server:
        return after, "held", "repeat_without_transaction_id"
    return after, "duplicate", message.reason


def _move(before: Counted, message: Message, channel: Channel) -> str:
    """The status after a further message: what the network says replaces what only the pixel said."""
    if channel == Channel.PIXEL and before.channels & Channel.S2S:
        return before.status
    if channel == Channel.S2S and before.channels == Channel.PIXEL:
        return message.status
    if message.given and _RANK[message.status] > _RANK[before.status]:
        return message.status
    return before.status
