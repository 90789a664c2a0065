"""Lanes: one a target, so that a slow or dead one keeps nobody else waiting.

A lane holds the deliveries that were claimed for its target and are not on their way yet.  Targets on one host share
its breaker and its pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex

from postbackd.core.deliveries import Delivery, Outgoing
from postbackd.core.model import Target
from postbackd.core.platforms.base import ACCESS_TOKEN, Token
from postbackd.core.privacy import Masker
from postbackd.core.replies import excerpt
from postbackd.core.shipping import Hider, Names, Shipper, make_shipper
from postbackd.core.tracing import within_trace
from postbackd.delivery.breaker import Breaker, BreakerState, Pace
from postbackd.delivery.settling import was_delayed

_MOST_CLAIMED = 2000
"""Deliveries that one lane holds at most: a lease has to be long enough for all of them."""


class Host:
    """Where requests go, as far as its targets share it."""

    def __init__(self, name: str, concurrency: int) -> None:
        self.name = name
        self.breaker = Breaker()
        self.pace = Pace(concurrency)
        self.sending = 0
        """Requests that are on their way."""

    def may_send(self, now_ms: int) -> bool:
        """Whether one more request may go out now."""
        if not self.breaker.allows(now_ms):
            return False
        return self.sending < (self.pace.at_once if self.breaker.state is BreakerState.CLOSED else 1)


class Lane:
    """One target and what was claimed for it."""

    def __init__(self, target: Target, shipper: Shipper, accounts: Mapping[str, str], host: Host) -> None:
        self.target = target
        self.shipper = shipper
        self.accounts = accounts
        self.hider = Hider(accounts)
        self.host = host
        self.waiting: deque[Delivery] = deque()
        self.sending = 0
        """Deliveries that are on their way."""
        self.paused = False
        self.token = Token("", 0)
        self.not_before_ms = 0
        """The target asked for a pause."""

    def follow(self, new: Lane) -> None:
        """Serve the target as it is now.  The lane stays: what is on its way must be counted off where it was added."""
        if new.accounts != self.accounts or new.target.how.kind != self.target.how.kind:
            self.token = Token("", 0)
        self.target, self.shipper, self.host = new.target, new.shipper, new.host
        self.accounts = new.accounts
        self.use_token(self.token)

    def use_token(self, token: Token) -> None:
        """Use an access token; from now on it is a secret like the others."""
        self.token = token
        own = {ACCESS_TOKEN: token.text} if token.text else {}
        self.hider = Hider({**self.accounts, **own})

    def hide(self, masker: Masker, text: str, longest: int, *, addresses: bool = False) -> str:
        """A text of the outside as it may be kept: without secrets and personal data, cut and printable.

        ``addresses``: as in ``Masker.mask_words``.
        """
        cut = excerpt(self.hider.hide(text), longest) if text else ""
        return masker.mask_words(cut, addresses=addresses)

    @property
    def full(self) -> bool:
        """Whether it holds all that it may."""
        return len(self.waiting) + self.sending >= self._most

    @property
    def _most(self) -> int:
        """Twice what is on its way at most, so that an answer is followed by the next request at once."""
        return min(2 * self.host.pace.at_once * self.shipper.most, _MOST_CLAIMED)

    def room(self, now_ms: int) -> int:
        """How many deliveries to claim now."""
        if not self.open(now_ms):
            return 0
        if self.host.breaker.state is not BreakerState.CLOSED:
            return 1 if not self.waiting and not self.host.sending else 0
        return max(0, self._most - len(self.waiting) - self.sending)

    def open(self, now_ms: int) -> bool:
        """Whether anything may be sent to the target now."""
        return not self.paused and now_ms >= self.not_before_ms and self.host.breaker.allows(now_ms)

    def take(self, now_ms: int) -> Sequence[Delivery]:
        """Deliveries for the next request; empty when none may go now.

        One that failed before goes alone, so that it cannot take its neighbours with it; so does one that was delayed,
        because it has to be looked at once more.  A request holds messages of one kind: a platform may take corrections
        at another address than conversions.
        """
        if not self.waiting or not self.open(now_ms) or not self.host.may_send(now_ms):
            return ()
        batch = [self.waiting.popleft()]
        while self.waiting and len(batch) < self.shipper.most:
            if _goes_alone(batch[0]) or _goes_alone(self.waiting[0]):
                break
            if self.waiting[0].owed.message != batch[0].owed.message:
                break
            batch.append(self.waiting.popleft())
        return batch

    def make(self, batch: Sequence[Delivery], now_ms: int) -> Outgoing:
        """The request for what was taken."""
        return within_trace(self.shipper.make(batch, now_ms, self.token.text), batch, token_hex)

    def give_back(self) -> Sequence[Delivery]:
        """Everything that is not on its way yet."""
        given = list(self.waiting)
        self.waiting.clear()
        return given


def make_lane(
    target: Target, names: Names, open_secret: Callable[[str], str], hosts: dict[str, Host]
) -> Lane:
    """A lane for a target, at its host.  Raises ``ShippingError``, and what ``open_secret`` does."""
    accounts = {name: open_secret(sealed) for name, sealed in target.secrets.items()}
    shipper = make_shipper(target, accounts, names)
    host = hosts.setdefault(shipper.host, Host(shipper.host, target.how.concurrency))
    host.pace.set_most(target.how.concurrency)
    return Lane(target, shipper, accounts, host)


def _goes_alone(delivery: Delivery) -> bool:
    return bool(delivery.attempts) or was_delayed(delivery)
