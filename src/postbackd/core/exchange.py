"""One timed request and its answer, and what the answer says of a postback.

Verdicts are known of endpoints that name them (ours, in headers and JSON).  Of any other a status and a body are known;
what those mean is not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from postbackd.core.replies import excerpt
from postbackd.core.verdicts import Verdict

Phase = Literal["dns", "connect", "tls", "first_byte", "total"]
PHASES: tuple[Phase, ...] = ("dns", "connect", "tls", "first_byte", "total")
PHASE_WORDS: Mapping[Phase, str] = {
    "dns": "DNS",
    "connect": "connect",
    "tls": "TLS",
    "first_byte": "first byte",
    "total": "total",
}

ODD, DNS, CONNECT, CERTIFICATE, TLS = "not sendable", "DNS", "connect", "certificate", "TLS"
TIMEOUT, CUT, MALFORMED = "time-out", "connection lost", "not HTTP"
"""Kinds of errors, in the order in which a request meets them."""

VERDICTS = frozenset(verdict.word for verdict in Verdict)
COUNTED = frozenset({Verdict.ACCEPTED.word, Verdict.UPDATED.word, Verdict.QUEUED.word})
TAKEN = COUNTED | {Verdict.DUPLICATE.word, Verdict.HELD.word}
"""Verdicts after which a sender has nothing to mend."""

_LONGEST_WORD = 60


class Exchange(Struct, frozen=True, kw_only=True):
    """A request that was sent, or could not be; times are those of one phase each, ``None`` where there was none."""

    address: str = ""
    """The numeric address that was connected to."""
    port: int = 0
    reused: bool = False
    """Whether it went over a connection that was there already."""
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    """From the moment the request was written to the first byte of the answer."""
    total_ms: float = 0.0
    sent: bool = False
    """Whether the request was written: what became of it is unknown then, if there is no answer."""
    status: int = 0
    """0: no answer that could be read."""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    wire_bytes: int = 0
    """Of the answer, head and body, as sent."""
    tls: str = ""
    """The version that was agreed on."""
    error: str = ""
    kind: str = ""
    """What kind of error: ``DNS``, ``TIMEOUT`` and the like."""

    def phase_ms(self, phase: Phase) -> float | None:
        """The time of a phase."""
        value: float | None = getattr(self, f"{phase}_ms")
        return value

    @property
    def ok(self) -> bool:
        """Whether there is a whole answer of the class 2xx."""
        return not self.error and 200 <= self.status < 300

    @property
    def family(self) -> str:
        """``IPv4``, ``IPv6``, or nothing when no address was tried."""
        return ("IPv6" if ":" in self.address else "IPv4") if self.address else ""


class Said(Struct, frozen=True, kw_only=True):
    """What an answer says of a postback; empty is what it does not say."""

    verdict: str = ""
    reason: str = ""
    conversion: str = ""
    request: str = ""
    hint: str = ""
    """What to do about it, in the endpoint's words."""

    @property
    def is_test(self) -> bool:
        return self.reason == "test_event"


def read_said(exchange: Exchange) -> Said:
    """Read the headers of our own answers, and the JSON of anybody's that names a ``verdict``."""
    document = _read_object(exchange.body)
    headers = exchange.headers
    verdict = _word(headers.get("postbackd-verdict") or document.get("verdict"))
    return Said(
        verdict=verdict if verdict in VERDICTS else "",
        reason=_word(headers.get("postbackd-reason") or document.get("reason")),
        conversion=_word(document.get("conversion")),
        request=_word(headers.get("x-request-id") or document.get("request")),
        hint=excerpt(fix) if isinstance(fix := document.get("fix"), str) else "",
    )


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _word(value: object) -> str:
    return excerpt(value, _LONGEST_WORD) if isinstance(value, str) else ""


def describe(exchange: Exchange) -> str:
    """What became of a request, in a few words."""
    if exchange.error:
        told = f" (after HTTP {exchange.status})" if exchange.status else ""
        return f"{exchange.kind}: {exchange.error}{told}"
    said = read_said(exchange)
    words = f"{said.verdict}{f' ({said.reason})' if said.reason else ''}" if said.verdict else ""
    return f"HTTP {exchange.status}{f', {words}' if words else ''}"
