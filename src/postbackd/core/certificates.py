"""Decisions about a certificate: whether it fits, and when to renew it.

Nothing here reads a certificate, a clock or a file: what is in one comes as a ``Term``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

TWO_THIRDS = 2 / 3
"""The part of its life after which a certificate is renewed when the authority suggests nothing."""

JITTER = 1 / 30
"""So much earlier at most: certificates that were issued together are not renewed together."""

LATEST = 11 / 12
"""A suggestion that lies later in its life than this is not waited for: something has to be left for failures."""

_HOUR_MS = 3_600_000
LOOK_AGAIN_MS = 6 * _HOUR_MS
"""How often the authority is asked for its suggestion when it does not say (RFC 9773 section 4.3.2)."""

SHORTEST_LOOK_MS, LONGEST_LOOK_MS = 60_000, 24 * _HOUR_MS


class Term(Struct, frozen=True):
    """For whom and for how long a certificate is good."""

    names: tuple[str, ...]
    from_ms: int
    until_ms: int

    @property
    def life_ms(self) -> int:
        return max(0, self.until_ms - self.from_ms)


class Window(Struct, frozen=True):
    """When the authority suggests to renew (RFC 9773)."""

    start_ms: int
    end_ms: int


def matches(name: str, host: str) -> bool:
    """Whether a name of a certificate is the host's; ``*`` stands for one label (RFC 6125 section 6.4.3)."""
    name, host = name.lower(), host.lower().rstrip(".")
    if name.startswith("*."):
        return "." in host and name[2:] == host.partition(".")[2]
    return name == host


def missing_names(names: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """The hosts for which the certificate is not good."""
    return [host for host in hosts if not any(matches(name, host) for name in names)]


def renew_at_ms(term: Term, window: Window | None, draw: float) -> int:
    """When to renew.

    ``draw``: from 0 up to 1, the same for one certificate whenever it is asked, so that the choice within a window
    stands still.
    """
    latest = term.from_ms + int(term.life_ms * LATEST)
    if window is not None and window.end_ms > window.start_ms:
        return min(window.start_ms + int((window.end_ms - window.start_ms) * draw), latest)
    return term.from_ms + int(term.life_ms * (TWO_THIRDS - JITTER * draw))


def look_again_ms(retry_after_ms: int) -> int:
    """How long until the authority is asked for its suggestion again."""
    return min(max(retry_after_ms or LOOK_AGAIN_MS, SHORTEST_LOOK_MS), LONGEST_LOOK_MS)


def is_due(term: Term | None, hosts: Sequence[str], window: Window | None, draw: float, now_ms: int) -> bool:
    """Whether a new certificate is wanted now: there is none, it lacks a name, or its time has come."""
    if term is None or missing_names(term.names, hosts):
        return True
    return now_ms >= renew_at_ms(term, window, draw)


def clock_is_wrong(term: Term, now_ms: int) -> bool:
    """Whether a certificate that was issued this moment is not good by our clock, or hardly any more.

    An hour of grace: authorities date certificates back by as much, and a clock may be slow by a little.
    """
    return now_ms < term.from_ms - _HOUR_MS or now_ms > term.from_ms + int(
        term.life_ms * (TWO_THIRDS - JITTER)
    )
