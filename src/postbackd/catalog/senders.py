"""Who may send for a network: changing it step by step, and replacing what a network shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from postbackd.catalog.accounts import Seal, check_sender_secret, make_sender_secret, make_token
from postbackd.catalog.entries import make_key
from postbackd.catalog.errors import EntryError, NotNow
from postbackd.core.client_address import write_range
from postbackd.core.model import Network
from postbackd.core.moments import write_moment
from postbackd.core.sender_rules import hash_token
from postbackd.core.senders import STEPS, FormerKey, Mode, Scheme, Secret, Senders, Token, modes
from postbackd.presets import find_signing, load_signings
from postbackd.reports.period import read_duration
from postbackd.store.sealed import SENDER_SECRET

Step = Literal["token", "ip", "signature", "all"]
What = Literal["key", "token", "secret"]

_SPELLED = re.compile(r"(?P<keyed>hmac-)?(?P<hash>md5|sha1|sha256|sha512):(?P<template>.+)", re.IGNORECASE)
_OVER_ALL = re.compile(r"(?P<kind>url|query):(?P<hash>md5|sha1|sha256|sha512)", re.IGNORECASE)

Duration = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,9} ?[smhdwSMHDW]$",
        description="A number and s, m, h, d or w, such as 30d.",
        examples=["30d"],
    ),
]


class SendersChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of who may send; what is left out stays."""

    token: (
        Annotated[bool, Meta(description="true: have one made, which is shown once; false: take all away.")]
        | UnsetType
    ) = UNSET
    allow_ip: (
        Annotated[list[str], Meta(description="All addresses and ranges it may send from.", max_length=1000)]
        | UnsetType
    ) = UNSET
    signature: (
        Annotated[
            str | None,
            Meta(
                description="How it signs: hmac, the name of a known sender, HASH:TEMPLATE, hmac-HASH:TEMPLATE, "
                "url:HASH, query:HASH; null: not at all."
            ),
        ]
        | UnsetType
    ) = UNSET
    signature_parameter: str | UnsetType = UNSET
    signed_url: str | UnsetType = UNSET
    window: Duration | UnsetType = UNSET
    secret: (
        Annotated[str, Meta(description="The signing secret; sealed at once and never shown.", min_length=1)]
        | UnsetType
    ) = UNSET
    modes: (
        Annotated[dict[Step, Mode], Meta(description="Step -> off, observe (note only) or enforce.")]
        | UnsetType
    ) = UNSET
    pixel: Literal["checked", "open"] | UnsetType = UNSET


class Made(Struct, frozen=True):
    """What was made and is shown this once."""

    token: str = ""
    secret: str = ""

    def document(self) -> dict[str, str]:
        """What there is of it."""
        found = {"token": self.token, "signing_secret": self.secret}
        return {name: text for name, text in found.items() if text}


def change_senders(network: Network, change: SendersChange, seal: Seal, base: str) -> tuple[Senders, Made]:
    """Who may send, with the change applied; not checked yet.  ``base``: what the network's URLs begin with.

    Raises ``EntryError``.
    """
    senders, token = _change_token(network.senders, change.token)
    if change.allow_ip is not UNSET:
        senders = _change_ips(senders, change.allow_ip)
    senders, secret = _change_signature(senders, change, seal, base)
    if change.pixel is not UNSET:
        senders = replace(senders, pixel=change.pixel)
    wanted: Mapping[Step, Mode] = change.modes or {}
    order: Sequence[Mode] = ("off", "observe", "enforce")
    for mode in order:
        senders = _set_modes(senders, [step for step, its in wanted.items() if its == mode], mode)
    return senders, Made(token, secret)


def _set_modes(senders: Senders, steps: Sequence[str], mode: Mode) -> Senders:
    """The ladder with these steps in this mode; ``all``: of every step that is looked at, or can be."""
    if "all" in steps:
        has = {"token": senders.tokens, "ip": senders.ips, "signature": senders.secrets}
        steps = [step for step in STEPS if has[step] or mode == "off"]
    return replace(senders, **{f"{step}_mode": mode for step in steps})


def _begin(senders: Senders, step: str) -> Senders:
    """A step that has just been given what it needs is observed first."""
    return _set_modes(senders, [step], "observe") if modes(senders)[step] == "off" else senders


def _change_token(senders: Senders, wanted: bool | UnsetType) -> tuple[Senders, str]:
    if wanted is UNSET:
        return senders, ""
    if not wanted:
        return replace(senders, tokens=(), token_mode="off"), ""  # noqa: S106 - a mode
    if any(not token.until_ms for token in senders.tokens):
        raise EntryError("token", "there is a token; replace it with 'postbackd network rotate NAME token'")
    made = make_token()
    return _begin(replace(senders, tokens=(Token(hash_token(made)),)), "token"), made


def read_ranges(texts: Sequence[str], field: str = "allow_ip") -> tuple[str, ...]:
    """Addresses and ranges as they are stored, each once.  Raises ``EntryError``."""
    try:
        return tuple(dict.fromkeys(write_range(part) for text in texts for part in text.split(",")))
    except ValueError as error:
        raise EntryError(field, str(error)) from error


def _change_ips(senders: Senders, wanted: Sequence[str]) -> Senders:
    ips = read_ranges(wanted)
    is_longer = bool(set(ips) - set(senders.ips))
    senders = replace(senders, ips=ips)
    return _begin(senders, "ip") if is_longer else senders


def needs_secret(senders: Senders, change: SendersChange) -> bool:
    """Whether the change cannot be made without a secret that the network has to tell."""
    if change.secret is not UNSET or not change.signature:
        return False
    scheme = read_scheme(change.signature)
    is_another = senders.scheme is None or senders.scheme.kind != scheme.kind
    return scheme.kind != "request" and (is_another or not senders.secrets)


def _change_signature(senders: Senders, change: SendersChange, seal: Seal, base: str) -> tuple[Senders, str]:
    wanted = change.signature
    if wanted is None or (wanted is not UNSET and wanted.casefold() == "none"):
        return replace(senders, scheme=None, secrets=(), signature_mode="off"), ""
    scheme = senders.scheme if wanted is UNSET else read_scheme(wanted)
    changes = _scheme_changes(change)
    if scheme is None:
        if changes or change.secret is not UNSET:
            raise EntryError(
                "signature", "it is not said how the network signs; add --signature, such as hmac"
            )
        return senders, ""
    if scheme.kind == "url" and not scheme.base:
        changes.setdefault("base", base)
    before = senders.scheme
    if before is None or before.kind != scheme.kind:  # another secret, and not trusted blindly
        senders = replace(senders, secrets=(), signature_mode="off")
    senders = replace(senders, scheme=replace(scheme, **changes))
    given, made = None if change.secret is UNSET else change.secret, ""
    if given is None and not senders.secrets:
        if scheme.kind != "request":
            raise EntryError("secret", "the network makes this secret; give it with --secret -")
        given = made = make_sender_secret()
    if given is not None:
        senders = replace(senders, secrets=(Secret(seal_sender_secret(given, seal)),))
    return _begin(senders, "signature"), made


def _scheme_changes(change: SendersChange) -> dict[str, Any]:
    given = {"parameter": change.signature_parameter, "base": change.signed_url}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not UNSET}
    if change.window is not UNSET:
        try:
            changes["window_s"] = read_duration(change.window)
        except ValueError as error:
            raise EntryError("window", str(error)) from error
    return changes


def seal_sender_secret(secret: str, seal: Seal) -> str:
    """A signing secret as it is stored."""
    check_sender_secret(secret)
    return seal({"secret": secret}, SENDER_SECRET)["secret"]


def read_scheme(text: str) -> Scheme:
    """The scheme that a text names or spells.  Raises ``EntryError``."""
    known = find_signing(text)
    if known is not None:
        return known.scheme
    if spelled := _SPELLED.fullmatch(text.strip()):
        hash_: Any = spelled["hash"].lower()
        return Scheme(
            kind="fields", hash=hash_, keyed=spelled["keyed"] is not None, template=spelled["template"]
        )
    if over := _OVER_ALL.fullmatch(text.strip()):
        kind: Any = over["kind"].lower()
        of_url: Any = over["hash"].lower()
        return Scheme(kind=kind, hash=of_url)
    names = ", ".join(one.id for one in load_signings())
    raise EntryError(
        "signature",
        f"{text!r} is not known; known are {names}, and HASH:TEMPLATE, hmac-HASH:TEMPLATE, url:HASH, query:HASH with "
        "md5, sha1, sha256 or sha512",
    )


# --- replacing what a network shows --------------------------------------------------------------------------------


def end_former(network: Network, what: What) -> Network:
    """Only the current one is good from now on."""
    senders = network.senders
    if what == "key":
        senders = replace(senders, former_keys=())
    elif what == "token":
        senders = replace(senders, tokens=tuple(one for one in senders.tokens if not one.until_ms))
    else:
        senders = replace(senders, secrets=tuple(one for one in senders.secrets if not one.until_ms))
    return replace(network, senders=senders)


def rotate(
    network: Network, what: What, now_ms: int, until_ms: int, given: str | None, seal: Seal
) -> tuple[Network, Made]:
    """Another key, token or signing secret; the former one is good until ``until_ms``.

    ``given``: the secret that the network made.  Raises ``NotNow`` and ``EntryError``.
    """
    senders = network.senders
    if what == "key":
        _refuse_third(senders.former_keys, what, network.name, now_ms)
        former = (FormerKey(network.key, until_ms),)
        return replace(network, key=make_key(), senders=replace(senders, former_keys=former)), Made()
    if what == "token":
        _refuse_third(senders.tokens, what, network.name, now_ms)
        current = [one for one in senders.tokens if not one.until_ms]
        if not current:
            raise NotNow(f"network {network.name!r} has no token; make one: {_set(network, '--token')}")
        made = make_token()
        tokens = (Token(hash_token(made)), *(replace(one, until_ms=until_ms) for one in current))
        return replace(network, senders=replace(senders, tokens=tokens)), Made(token=made)
    return _rotate_secret(network, now_ms, until_ms, given, seal)


def _rotate_secret(
    network: Network, now_ms: int, until_ms: int, given: str | None, seal: Seal
) -> tuple[Network, Made]:
    senders = network.senders
    _refuse_third(senders.secrets, "secret", network.name, now_ms)
    if senders.scheme is None:
        raise NotNow(
            f"network {network.name!r} does not sign; begin with: {_set(network, '--signature hmac')}"
        )
    if given is None and senders.scheme.kind != "request":
        raise EntryError("secret", "the network makes this secret; give it with --secret -")
    made = make_sender_secret() if given is None else ""
    sealed = Secret(seal_sender_secret(given or made, seal))
    old = (replace(one, until_ms=until_ms) for one in senders.secrets if not one.until_ms)
    return replace(network, senders=replace(senders, secrets=(sealed, *old))), Made(secret=made)


def _refuse_third(entries: Sequence[Any], what: str, name: str, now_ms: int) -> None:
    """Whoever still uses the former one must not be cut off by accident."""
    for one in entries:
        if one.until_ms > now_ms:
            end = shlex.join(["postbackd", "network", "rotate", name, what, "--end-former"])
            raise NotNow(
                f"the former {what} is good until {write_moment(one.until_ms)}, and two at a time are enough; "
                f"end it first: {end}"
            )


def _set(network: Network, option: str) -> str:
    return f"postbackd network set {shlex.quote(network.name)} {option}"
