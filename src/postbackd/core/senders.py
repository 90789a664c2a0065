"""Who may send postbacks for a network, as the catalog keeps it.

A ladder of steps, each off, observed or enforced.  The key in the path is the first step and always there; above it
stand a token, a list of addresses and a signature.  ``core.sender_rules`` asks them.  Of a token only the SHA-256 is
kept: it is 32 random bytes, which nobody finds by trying.  What replaces something (a key, a token, a secret) lets
the former one go on to a date, so that a network can be told in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Mode = Literal["off", "observe", "enforce"]
STEPS = ("token", "ip", "signature")
"""The steps above the key, in the order in which a request has to pass them."""

SIGNATURE = "sig"
"""The parameter that holds a signature, unless a scheme names another one."""

WINDOW_S = 300
"""How far a signed time may be from ours."""


class Scheme(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a network signs."""

    kind: Literal["request", "fields", "url", "query"] = "request"
    hash: Literal["md5", "sha1", "sha256", "sha512"] = "sha256"
    keyed: bool = True
    """HMAC under the secret; otherwise a plain hash, and ``template`` says where in it the secret stands."""
    template: str = ""
    """Of ``fields``: names of parameters and ``secret`` in braces, such as ``{sub_id}{txid}{secret}``."""
    parameter: str = SIGNATURE
    header: str = ""
    """Where the signature is, instead of the parameter."""
    encoding: Literal["hex", "base64"] = "hex"
    window_s: int = WINDOW_S
    """Of ``request``: how far the signed time may be from ours."""
    base: str = ""
    """Of ``url``: scheme and host as the network calls us, such as ``https://track.example``."""


class FormerKey(Struct, frozen=True):
    """An endpoint key that was replaced."""

    key: str
    until_ms: int


class Token(Struct, frozen=True, omit_defaults=True):
    """A token, of which nobody can say what it is."""

    hash: str
    """SHA-256 in hex."""
    until_ms: int = 0
    """When it ends; 0: it is the current one."""


class Secret(Struct, frozen=True, omit_defaults=True):
    """A signing secret, sealed."""

    sealed: str
    until_ms: int = 0


class Senders(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may send, as the catalog keeps it; at most one former of each, and the newest first."""

    former_keys: tuple[FormerKey, ...] = ()
    token_mode: Mode = "off"  # noqa: S105 - a mode
    tokens: tuple[Token, ...] = ()
    ip_mode: Mode = "off"
    ips: tuple[str, ...] = ()
    signature_mode: Mode = "off"
    scheme: Scheme | None = None
    secrets: tuple[Secret, ...] = ()
    pixel: Literal["checked", "open"] = "checked"
    """``open``: the browser pixel need not pass; browsers can neither sign nor come from a known address."""


ANYBODY = Senders()


def modes(senders: Senders) -> Mapping[str, Mode]:
    """Step -> mode."""
    return {"token": senders.token_mode, "ip": senders.ip_mode, "signature": senders.signature_mode}


def is_guarded(senders: Senders) -> bool:
    """Whether any step above the key is looked at."""
    return any(mode != "off" for mode in modes(senders).values())
