"""Who may send for a network, as a file and a command print it: nothing of it is a secret in the clear.

Of tokens there is the hash, from which nobody finds the token; signing secrets are only counted; former keys go where
the key goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.catalog.errors import EntryError
from postbackd.core.moments import write_moment
from postbackd.core.senders import FormerKey, Mode, Scheme, Secret, Senders, Token
from postbackd.reports.period import read_moment


class TokenRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A token, by its hash."""

    sha256: str
    until: str | None = None


class FormerKeyRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A key that was replaced."""

    key: str
    until: str


class SendersRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[network.senders]``; ``None`` is what is stored."""

    token: Mode = "off"  # noqa: S105 - a mode
    tokens: list[TokenRow] | None = None
    ip: Mode = "off"
    allow_ip: list[str] = []
    signature: Mode = "off"
    scheme: Scheme | None = None
    secrets: list[str] = []
    """What secrets there are, for whoever reads the file; the secrets themselves stay where they are."""
    pixel: str = "checked"
    former_keys: list[FormerKeyRow] | None = None


def read_senders(row: SendersRow | None, stored: Senders, sealed: str | None) -> Senders:
    """Who may send, of a row.  ``sealed``: a new signing secret.  Raises ``EntryError``.

    It is not checked yet (``catalog.entries.check_entry``).
    """
    secrets = stored.secrets if sealed is None else (Secret(sealed),)
    if row is None:
        return msgspec.structs.replace(stored, secrets=secrets)
    if row.pixel not in ("checked", "open"):
        raise EntryError("senders", f"pixel must be checked or open, not {row.pixel!r}")
    tokens, former = stored.tokens, stored.former_keys
    if row.tokens is not None:
        tokens = tuple(Token(_read_hash(one.sha256), _read_until(one.until)) for one in row.tokens)
    if row.former_keys is not None:
        former = tuple(FormerKey(one.key, _read_until(one.until)) for one in row.former_keys)
    return Senders(
        former_keys=former,
        token_mode=row.token,
        tokens=tokens,
        ip_mode=row.ip,
        ips=tuple(row.allow_ip),
        signature_mode=row.signature,
        scheme=row.scheme,
        secrets=secrets if row.scheme is not None else (),
        pixel="open" if row.pixel == "open" else "checked",
    )


def _read_hash(text: str) -> str:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise EntryError(
            "senders", "sha256 of a token is 64 hexadecimal digits; 'postbackd export' writes it"
        )
    return text


def _read_until(text: str | None) -> int:
    if not text:
        return 0
    try:
        until_ms = read_moment(text, 0)
    except ValueError as error:
        raise EntryError("senders", f"until: {error}") from error
    if not until_ms:
        raise EntryError("senders", f"until: {text!r} is no date; write it like 2026-11-23T14:00")
    return until_ms


def write_senders(senders: Senders, *, with_keys: bool) -> dict[str, Any]:
    """The row of a file; empty where the key alone decides."""
    row: dict[str, Any] = {
        "token": senders.token_mode,
        "tokens": [{"sha256": token.hash, **_until(token.until_ms)} for token in senders.tokens],
        "ip": senders.ip_mode,
        "allow_ip": list(senders.ips),
        "signature": senders.signature_mode,
        "scheme": None if senders.scheme is None else _write_scheme(senders.scheme),
        "secrets": write_ends(senders.secrets),
        "pixel": senders.pixel,
    }
    if with_keys:
        row["former_keys"] = [{"key": one.key, **_until(one.until_ms)} for one in senders.former_keys]
    return {name: value for name, value in row.items() if value not in (None, [], "off", "checked")}


def _write_scheme(scheme: Scheme) -> dict[str, Any]:
    return {"kind": scheme.kind, "hash": scheme.hash, **msgspec.to_builtins(scheme)}


def write_ends(entries: Sequence[Secret | Token]) -> list[str]:
    """``current``, and until when the former one goes on."""
    return [f"former, until {write_moment(one.until_ms)}" if one.until_ms else "current" for one in entries]


def describe_senders(senders: Senders) -> dict[str, Any]:
    """What ``network show`` prints."""
    row = write_senders(senders, with_keys=False)
    if senders.tokens:
        row["tokens"] = write_ends(senders.tokens)
    if senders.former_keys:
        row["former_key_until"] = write_moment(senders.former_keys[0].until_ms)
    return row


def _until(until_ms: int) -> Mapping[str, str]:
    return {"until": write_moment(until_ms)} if until_ms else {}
