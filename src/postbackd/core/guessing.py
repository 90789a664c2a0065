"""How often somebody may try to sign in: whoever guesses is slowed, and memory is bounded.

Each attempt is taken from three buckets: of the network it comes from, of the account it names, and of all.  An account
can be kept busy by strangers, but not closed: from a network that its owner has signed in from before, attempts come
from a bucket of that network and account alone.  Nobody is locked out until somebody unlocks them, and the answer is
the same whether the account exists or not.
"""

from __future__ import annotations

from postbackd.core.rate import RateLimit

_MOST = 4096
"""Networks, and accounts, that have a bucket of their own; see ``core.rate``."""

PER_PREFIX, PER_ACCOUNT = 10, 10
"""At once: nobody mistypes a password ten times."""

PREFIX_EVERY_S, ACCOUNT_EVERY_S = 30.0, 60.0
"""One more after so long: 1,440 guesses a day at one password, wherever they come from."""

ALL_EVERY_S, ALL_AT_ONCE = 1.0, 60
"""In all, from networks that are not known: a hash takes a core's tenth of a second."""


class Guesses:
    """The attempts of one process.  Time is an argument, in seconds."""

    def __init__(self) -> None:
        self._prefixes = RateLimit(1 / PREFIX_EVERY_S, _MOST, PER_PREFIX)
        self._accounts = RateLimit(1 / ACCOUNT_EVERY_S, _MOST, PER_ACCOUNT)
        self._known = RateLimit(1 / PREFIX_EVERY_S, _MOST, PER_ACCOUNT)
        self._all = RateLimit(1 / ALL_EVERY_S, 1, ALL_AT_ONCE)

    def take(self, name: str, prefix: str, now_s: float, *, is_known: bool) -> float:
        """0 when somebody may try, else the seconds after which they may."""
        if is_known:
            return self._known.take(f"{prefix} {name[:64]}", now_s)
        return (
            self._prefixes.take(prefix, now_s)
            or self._accounts.take(name[:64], now_s)
            or self._all.take("", now_s)
        )

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._prefixes) + len(self._accounts) + len(self._known) + len(self._all)
