"""The cookie in HTTP: found in a request's header, written for an answer, and what that means for caches.

An answer with our cookie, or one for which the session was written, is one visitor's alone.  A shared cache (a CDN,
nginx, Varnish) that stored it would hand one visitor's click to the next, so such an answer says `private`, and headers
that speak to CDNs past Cache-Control (RFC 9213) are taken out.  `Vary: Cookie` would not do that: a first visit has no
cookie, and all first visits would still share one stored answer; it would only spoil the cache for pages that set
nothing.  Those are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

_LONGEST_HEADER = 65_536
_MOST_VALUES = 8
"""Cookies of our name that are looked at: another host of the domain may have set some beside ours."""
_DIRECTIVE = re.compile(r'[^\s,="]+(?:=(?:"[^"]*"|[^\s,"]*))?')
_OVERRIDES = ("cdn-cache-control", "surrogate-control", "x-accel-expires")


@dataclass(frozen=True)
class SetCookie:
    """A cookie to be set; one with ``max_age_s`` 0 is to be deleted."""

    name: str
    value: str
    max_age_s: int
    domain: Optional[str]
    secure: bool

    def header(self) -> str:
        """The value of the Set-Cookie header."""
        text = f"{self.name}={self.value}; Max-Age={self.max_age_s}; Path=/; HttpOnly; SameSite=Lax"
        if self.domain is not None:
            text += f"; Domain={self.domain}"
        return text + "; Secure" if self.secure else text


def values(header: Optional[str], name: str) -> Iterator[str]:
    """The values of all cookies with this name, in the order of the header; browsers put the most specific first."""
    if not header or name not in header:
        return
    found = 0
    for pair in header[:_LONGEST_HEADER].split(";"):
        given, mark, value = pair.partition("=")
        if mark and given.strip() == name:
            yield value.strip().strip('"')
            found += 1
            if found == _MOST_VALUES:
                return


def is_override(header_name: str) -> bool:
    """Whether a header tells a shared cache to store what Cache-Control forbids."""
    return header_name.lower().endswith(_OVERRIDES)


def private(cache_control: Optional[str]) -> str:
    """A Cache-Control that keeps an answer out of shared caches and changes nothing else of what the shop wants."""
    directives = _DIRECTIVE.findall(cache_control or "")
    if {"private", "no-store"} & {directive.lower() for directive in directives}:
        return ", ".join(directives)
    kept = [
        one for one in directives if one.partition("=")[0].lower() not in ("public", "s-maxage", "private")
    ]
    return ", ".join([*kept, "private"])


def shielded(headers: Sequence[tuple[str, str]], cookie: Optional[SetCookie]) -> list[tuple[str, str]]:
    """The headers of one visitor's answer, with the cookie, and without what would let a shared cache store it."""
    cache_control = ", ".join(value for name, value in headers if name.lower() == "cache-control")
    kept = [(n, v) for n, v in headers if n.lower() != "cache-control" and not is_override(n)]
    kept.append(("Cache-Control", private(cache_control)))
    return kept if cookie is None else [*kept, ("Set-Cookie", cookie.header())]
