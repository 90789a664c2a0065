"""The trace that a request belongs to (W3C Trace Context): read strictly, carried to the deliveries that follow.

What cannot be read in just one way is ignored, as the recommendation asks: a broken header costs nobody a conversion.
``tracestate`` is not carried: it speaks to vendors, and may say anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from postbackd.core.deliveries import Delivery, Outgoing

HEADER = "traceparent"

_VERSION_0 = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_SAMPLED = 1
"""The only flag of version 00; others must be sent as zero."""


def read_trace(header: bytes) -> str | None:
    """The trace of a ``traceparent`` header: its id and flags, as ``within_trace`` takes them; ``None``: not usable.

    Of version 00 (section 3.2): lower-case hexadecimal digits, neither id all zeros, nothing behind the flags.
    """
    match = _VERSION_0.fullmatch(header)
    if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
        return None
    return f"{match[1].decode()}-{int(match[3], 16) & _SAMPLED:02x}"


def within_trace(request: Outgoing, deliveries: Sequence[Delivery], draw: Callable[[int], str]) -> Outgoing:
    """With the trace of the postback that the only delivery in it follows from; one that several share is of none.

    ``draw``: that many random bytes as hexadecimal digits; each request is a span of its own.  A header of this name
    that the operator has written stays.
    """
    trace = deliveries[0].owed.facts.trace
    if trace is None or len(deliveries) > 1 or any(name.lower() == HEADER for name, _ in request.headers):
        return request
    return replace(request, headers=(*request.headers, (HEADER, carry_trace(trace, draw(8)))))


def carry_trace(trace: str, span_id: str) -> str:
    """The header of a request of ours within the trace; ``span_id``: 16 hexadecimal digits, new for each request."""
    trace_id, _, flags = trace.partition("-")
    return f"00-{trace_id}-{span_id}-{flags}"
