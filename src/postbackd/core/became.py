"""What became of a postback that was sent, as its sender sees it.

*Settled* is what need not be sent again: the endpoint took it and said so (2xx).  Whether that is *good* is another
question: a ``rejected`` postback is settled, and somebody has to look at it.  What was not settled may have been
counted all the same, if it was sent; so it is sent again under the same transaction id only.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from postbackd.core.exchange import ODD, TAKEN, Exchange, read_said
from postbackd.core.replies import BODY_BYTES, compile_patterns, read_retry_after

DELIVERED = "delivered"
"""A 2xx of an endpoint that names no verdict."""
REFUSED = "refused"
"""A 2xx whose body says that it was not taken."""
TEST = "test"
"""Recognised as a test, and counted nowhere."""

_ASK_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE_MS = 60_000


class Became(Struct, frozen=True, kw_only=True):
    """What became of one postback."""

    word: str
    """A verdict, ``delivered``, ``refused``, ``test``, ``HTTP 404`` or the kind of an error."""
    settled: bool
    good: bool
    reason: str = ""
    """Why not, in a few words."""
    again: bool = False
    """Whether the same request may do better in a moment."""
    pause_ms: int = 0
    """How long the endpoint asks to wait."""


def judge(
    exchange: Exchange, success: Sequence[str] = (), failure: Sequence[str] = (), now_ms: int = 0
) -> Became:
    """What an answer, or the lack of one, means.  ``success``, ``failure``: patterns of the body (``core.replies``)."""
    status = exchange.status
    if exchange.error:
        reason = f"{exchange.kind}: {exchange.error}"
        return Became(
            word=exchange.kind,
            settled=False,
            good=False,
            reason=reason,
            again=exchange.kind != ODD,
        )
    if not 200 <= status < 300:
        pause_ms = min(read_retry_after(exchange.headers.get("retry-after", ""), now_ms), _LONGEST_PAUSE_MS)
        word = f"HTTP {status}"
        return Became(
            word=word, settled=False, good=False, reason=_say_status(exchange), again=status in _ASK_AGAIN,
            pause_ms=pause_ms,
        )  # fmt: skip
    return _judge_success(exchange, success, failure)


def _say_status(exchange: Exchange) -> str:
    said = read_said(exchange)
    words = f"HTTP {exchange.status}"
    if 300 <= exchange.status < 400:
        words += ": redirects are not followed; use the address that it leads to"
    elif exchange.status == 404:
        words += ": no such endpoint, or a key, token or signature that is not right"
    elif said.reason:
        words += f": {said.reason}"
    return words


def _judge_success(exchange: Exchange, success: Sequence[str], failure: Sequence[str]) -> Became:
    said = read_said(exchange)
    if said.verdict:
        good = said.verdict in TAKEN
        if said.is_test:
            return Became(word=TEST, settled=True, good=True)
        reason = "" if good else f"{said.verdict}{f': {said.reason}' if said.reason else ''}"
        return Became(word=said.verdict, settled=True, good=good, reason=reason)
    text = exchange.body[:BODY_BYTES].decode("utf-8", "replace")
    if any(pattern.search(text) for pattern in compile_patterns(tuple(failure))):
        return Became(
            word=REFUSED, settled=True, good=False, reason=f"HTTP {exchange.status}, but the body says no"
        )
    wanted = compile_patterns(tuple(success))
    if wanted and not any(pattern.search(text) for pattern in wanted):
        reason = f"HTTP {exchange.status}, but the body does not say that it was taken"
        return Became(word=REFUSED, settled=True, good=False, reason=reason)
    return Became(word=DELIVERED, settled=True, good=True)
