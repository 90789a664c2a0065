"""What becomes of a delivery: before it is sent, and after an attempt.  Decisions only; times are arguments."""

from __future__ import annotations

from postbackd.core.deliveries import (
    Attempt,
    Delivery,
    DeliveryState,
    Message,
    Settled,
    is_put_aside,
)
from postbackd.core.model import How
from postbackd.core.replies import Judged, Outcome
from postbackd.core.retry import next_attempt
from postbackd.core.shipping import Shipper

CHANGED = "the conversion changed before it was sent"
NEVER_TOLD = "the source was never told of the conversion"

PUT_ASIDE = "what it was to say could not be stored; the next change of the conversion is told"

_DELAYED_MS = 1000
"""A first attempt that is due so long after the delivery was made was delayed, by its rule or its target."""


def was_delayed(delivery: Delivery) -> bool:
    """Whether it has waited without having been sent: what it says may not be so any more.

    One that may have been sent is not asked about again: if it must be taken back, the retraction does that.
    """
    owed = delivery.owed
    return (
        owed.message == Message.CONVERSION
        and not delivery.attempts
        and not delivery.unsure
        and owed.due_ms - owed.created_ms >= _DELAYED_MS
    )


def settle_unsent(delivery: Delivery, shipper: Shipper, now_ms: int) -> Settled | None:
    """``None`` when it is to be sent."""
    owed = delivery.owed
    if is_put_aside(owed):
        return Settled(delivery, DeliveryState.DEAD, 0, PUT_ASIDE)
    if owed.expires_ms and now_ms > owed.expires_ms:
        return Settled(delivery, DeliveryState.DEAD, 0, "it is too old for this target")
    if owed.message != Message.CONVERSION and not delivery.told:
        return cancelled(delivery, NEVER_TOLD)
    if (
        owed.message == Message.CONVERSION
        and delivery.outdated
        and not (delivery.attempts or delivery.unsure)
    ):
        return cancelled(delivery, CHANGED)
    reason = shipper.refusal(delivery, now_ms)
    return Settled(delivery, DeliveryState.DEAD, 0, reason) if reason else None


def cancelled(delivery: Delivery, reason: str) -> Settled:
    """It is not sent, because there is nothing to tell."""
    return Settled(delivery, DeliveryState.CANCELLED, 0, reason)


def settle_attempt(
    delivery: Delivery, attempt: Attempt, verdict: Judged, how: How, now_ms: int, jitter: float
) -> Settled:
    """Delivered, dead, or to be tried again.  ``jitter``: random, from 0 to 1."""
    if verdict.outcome is Outcome.DELIVERED:
        return Settled(delivery, DeliveryState.DELIVERED, now_ms, "", attempt)
    if verdict.outcome is Outcome.DEAD:
        return Settled(delivery, DeliveryState.DEAD, now_ms, attempt.error, attempt)
    due_ms = next_attempt(attempt.attempt, now_ms, jitter, how.schedule_s, verdict.retry_after_ms)
    if due_ms is None:
        reason = f"given up after {attempt.attempt} attempts: {attempt.error}"
        return Settled(delivery, DeliveryState.DEAD, now_ms, reason, attempt)
    if delivery.owed.expires_ms and due_ms > delivery.owed.expires_ms:
        reason = f"the next attempt would be too late for this target: {attempt.error}"
        return Settled(delivery, DeliveryState.DEAD, now_ms, reason, attempt)
    return Settled(delivery, DeliveryState.WAITING, due_ms, "", attempt)
