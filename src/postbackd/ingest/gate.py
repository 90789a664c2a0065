"""The gate before a network's endpoint: asks the steps of its ladder, and marks what they found.

From outside a refusal looks like a key that nobody has: the same answer, given at once.  Inside it is a row of the
postback log, with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from postbackd.core.model import Dedup, Network, Postback
from postbackd.core.params import FieldMap
from postbackd.core.privacy import truncate_ip
from postbackd.core.sender_rules import Finding, Sender, SenderRules
from postbackd.core.senders import is_guarded
from postbackd.core.signature import Signed
from postbackd.core.verdicts import Verdict
from postbackd.ingest.exchange import Exchange

log = logging.getLogger("postbackd.ingest")


class Guard(Struct, frozen=True):
    """A network's ladder at its endpoint."""

    rules: SenderRules | None
    """``None``: a secret cannot be opened, so nobody can be told from anybody else."""
    adds: bool
    """Whether the network counts repeats without a transaction id."""

    def check(self, exchange: Exchange, path: str, query: str, now_ms: int) -> Finding:
        """What the steps say of a request."""
        assert self.rules is not None
        signed = Signed(
            exchange.method.decode("ascii"),
            path,
            query,
            exchange.body,
            exchange.headers,
            exchange.content_type,
        )
        return self.rules.check(Sender(signed, exchange.client), now_ms)


def make_guard(network: Network, fields: FieldMap, open_secret: Callable[[str], str]) -> Guard | None:
    """The guard of a network; ``None`` where its key alone decides."""
    if not is_guarded(network.senders):
        return None
    adds = network.dedup == Dedup.ADD.name.lower()
    try:
        return Guard(SenderRules(network.senders, open_secret, fields.names), adds)
    except ValueError as error:
        log.error(  # noqa: TRY400 - the cause is in the message
            "postbacks of network %r cannot be verified (%s); answering them 503", network.name, error
        )
        return Guard(None, adds)


def refuse(postback: Postback, finding: Finding, address: str) -> Postback:
    """The postback of a sender that may not send: whatever it says, it is rejected."""
    return replace(
        postback,
        verdict=Verdict.REJECTED,
        reason=finding.refused,
        observed=finding.observed or None,
        sender=truncate_ip(address),
    )


def mark(postback: Postback, finding: Finding, guard: Guard, address: str, number: int = 0) -> Postback:
    """The postback of a sender that may send, with what was found about it.

    A signed time stands for the time that a sender did not give, so that an older message which is sent again changes
    nothing.  Where repeats without a transaction id count, the signature takes its place: the same request again is the
    same conversion.  ``number``: the place in a batch.
    """
    changes: dict[str, Any] = {}
    if finding.observed:
        changes |= {"observed": finding.observed, "sender": truncate_ip(address)}
    if finding.signed_ms and not postback.time_ms and not postback.verdict:
        changes["time_ms"] = finding.signed_ms
    if finding.print and guard.adds and not postback.transaction_id:
        changes["transaction_id"] = f"#{finding.print}.{number}"
    return replace(postback, **changes) if changes else postback
