"""Asks a request for the steps of its network's ladder (``core.senders``): token, address, signature.

A step that is observed refuses nobody; what it would have refused is noted with the postback.  A request is refused for
the first enforced step that it fails.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from msgspec import Struct

from postbackd.core.client_address import AddressRanges
from postbackd.core.diagnosis import Reason
from postbackd.core.senders import Senders, modes
from postbackd.core.signature import Signed, Verified, check_scheme, verify

TOKEN_PARAMETER = "token"  # noqa: S105 - a name
TOKEN_HEADER = b"x-postback-token"

_DONE = {"observe": "observed", "enforce": "enforced"}

OBSERVABLE = (
    Reason.TOKEN_MISSING,
    Reason.TOKEN_INVALID,
    Reason.SENDER_IP_NOT_ALLOWED,
    Reason.SIGNATURE_MISSING,
    Reason.SIGNATURE_INVALID,
    Reason.TIMESTAMP_OUT_OF_RANGE,
)
"""What a step can find.  The places are stored, as bits of a number: append, never change the order."""

_BITS = {reason: 1 << place for place, reason in enumerate(OBSERVABLE)}

_LONGEST_TOKEN = 256


class Sender(Struct, frozen=True):
    """A request as the steps see it."""

    signed: Signed
    address: str
    """Of the client, empty when it is not known."""


class Finding(Struct, frozen=True):
    """What the steps found."""

    refused: int = 0
    """0, or the ``Reason`` why the request is refused."""
    observed: int = 0
    """What would have refused it, as bits (``read_observed``)."""
    signed_ms: int = 0
    print: str = ""


NOTHING = Finding()


class SenderRules:
    """A network's ladder, ready to be asked."""

    __slots__ = ("_names", "_scheme", "_secrets", "_steps", "_tokens", "addresses", "enforces", "pixel_open")

    def __init__(
        self,
        senders: Senders,
        open_secret: Callable[[str], str],
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``open_secret`` opens a sealed secret; what it raises is the caller's.  ``names``: see ``verify``."""
        self._names = names or {}
        self.pixel_open = senders.pixel == "open"
        self._tokens = tuple((bytes.fromhex(token.hash), token.until_ms) for token in senders.tokens)
        self._scheme = senders.scheme
        self._secrets = tuple((open_secret(s.sealed), s.until_ms) for s in senders.secrets)
        self.addresses = AddressRanges(senders.ips)
        steps: tuple[tuple[str, Callable[[Sender, int], Verified]], ...] = (
            (senders.token_mode, self._check_token),
            (senders.ip_mode, self._check_address),
            (senders.signature_mode, self._check_signature),
        )
        self._steps = tuple((mode == "enforce", check) for mode, check in steps if mode != "off")
        self.enforces = any(enforced for enforced, _ in self._steps)

    def check(self, sender: Sender, now_ms: int) -> Finding:
        """Promise: never raises for anything that a sender can send."""
        refused = observed = signed_ms = 0
        shortened = ""
        for enforced, look in self._steps:
            found = look(sender, now_ms)
            if not found.reason:
                signed_ms, shortened = found.signed_ms or signed_ms, found.print or shortened
            elif not enforced:
                observed |= _BITS[Reason(found.reason)]
            elif not refused:
                refused = found.reason
        if not (refused or observed or signed_ms or shortened):
            return NOTHING
        return Finding(refused, observed, signed_ms, shortened)

    def _check_token(self, sender: Sender, now_ms: int) -> Verified:
        given = find_token(sender.signed)
        if not given:
            return Verified(Reason.TOKEN_MISSING)
        digest = sha256(given[: _LONGEST_TOKEN + 1]).digest()
        found = False
        for right, until_ms in self._tokens:
            found |= hmac.compare_digest(digest, right) and (not until_ms or now_ms < until_ms)
        return Verified(0 if found else Reason.TOKEN_INVALID)

    def _check_address(self, sender: Sender, _now_ms: int) -> Verified:
        return Verified(0 if sender.address in self.addresses else Reason.SENDER_IP_NOT_ALLOWED)

    def _check_signature(self, sender: Sender, now_ms: int) -> Verified:
        assert self._scheme is not None  # nothing else can be stored
        secrets = [text for text, until_ms in self._secrets if not until_ms or now_ms < until_ms]
        return verify(self._scheme, secrets, sender.signed, now_ms, self._names)


def find_token(signed: Signed) -> bytes:
    """The token that a request carries, empty when there is none: of a header before that of the parameter."""
    scheme, _, bearer = signed.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and bearer.strip():
        return bearer.strip()
    header = signed.headers.get(TOKEN_HEADER, b"").strip()
    return header or signed.fields.get(TOKEN_PARAMETER, "").encode("utf-8", "surrogatepass")


def hash_token(token: str) -> str:
    """What is kept of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read_observed(observed: int | None) -> list[Reason]:
    """The reasons that bits stand for, in the order of the steps."""
    return [reason for reason, bit in _BITS.items() if (observed or 0) & bit]


def write_observed(reasons: Sequence[Reason]) -> int:
    """The bits of reasons."""
    return sum(_BITS[reason] for reason in reasons)


def check_senders(senders: Senders) -> None:
    """Raise ``ValueError`` when the ladder cannot be followed; says what to do."""
    AddressRanges(senders.ips)
    if senders.scheme is not None:
        check_scheme(senders.scheme)
    lacking = {
        "token": not senders.tokens and "there is no token; make one with --token",
        "ip": not senders.ips and "no address is allowed, so nobody could send; add one with --allow-ip",
        "signature": (senders.scheme is None and "it is not said how it signs; choose it with --signature")
        or (not senders.secrets and "there is no signing secret; give it with --secret"),
    }
    for step, mode in modes(senders).items():
        if mode != "off" and lacking[step]:
            raise ValueError(f"{step} cannot be {_DONE[mode]}: {lacking[step]}")
    for kind, entries in (
        ("key", senders.former_keys),
        ("token", senders.tokens),
        ("secret", senders.secrets),
    ):
        former = [one for one in entries if one.until_ms]
        current = len(entries) - len(former)
        if len(former) > 1 or current > 1 or (kind != "key" and former and not current):
            raise ValueError(f"of each {kind} there is one current and at most one former")
