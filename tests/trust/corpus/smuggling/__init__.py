"""Malformed and ambiguous requests, each of which hides a second one (T18).

Every case is one connection's worth of bytes: an *outer* request whose end is debatable, and an *inner*
request with a transaction id of its own placed where a careless parser finds a request of its own.  Whatever
a server makes of the outer request, the inner one must never be executed: either it is part of a body, or the
connection had to be closed before it.

Sources of the families: RFC 9112 sections 2.2, 3, 5, 6, 7, 9 and 11; RFC 9110 sections 5, 7.2 and 8.6; and
the classes of public request-smuggling research (CL.TE, TE.CL, TE.TE, chunk extensions, bare CR and LF,
hop-by-hop abuse).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.trust.corpus.smuggling import chunks, legal, lengths, lines
from tests.trust.corpus.smuggling.draft import Draft


@dataclass(frozen=True)
class Target:
    """What the requests aim at: a network's endpoint and the id of a click that exists."""

    key: str
    click_id: str
    prefix: str = "direct"
    """Keeps the transaction ids of several routes to one server apart; letters only."""

    def path(self, transaction_id: str) -> bytes:
        """A postback that would be counted as a conversion, were it executed."""
        return f"/p/{self.key}?click_id={self.click_id}&txid={transaction_id}".encode()


@dataclass(frozen=True)
class Malformed:
    """One connection's worth of bytes."""

    family: str
    name: str
    raw: bytes
    outer: str
    """Transaction id of the request in front."""
    inner: str
    """Transaction id of the hidden request: seeing it stored is a smuggled request."""
    refuse: bool
    """The server must refuse the outer request and close; otherwise it may also execute the outer one."""
    closes: bool
    """The connection must end after the first answer."""


def corpus(target: Target) -> list[Malformed]:
    """Every case, in a fixed order, at least 400; the names are unique."""
    return [_finish(draft, number, target) for number, draft in enumerate(_drafts())]


def _drafts() -> Iterator[Draft]:
    yield from lengths.drafts()
    yield from chunks.drafts()
    yield from lines.drafts()
    yield from legal.drafts()


def _finish(draft: Draft, number: int, target: Target) -> Malformed:
    outer, inner = f"{target.prefix}-outer-{number:04d}", f"{target.prefix}-inner-{number:04d}"
    hidden = b"GET " + target.path(inner) + b" HTTP/1.1\r\nHost: inner.example\r\n\r\n"
    raw = draft.build(target.path(outer), hidden)
    return Malformed(draft.family, draft.name, raw, outer, inner, draft.refuse, draft.closes)
