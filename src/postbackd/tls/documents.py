"""The documents on the shelf: what they hold, and how they are read and written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from postbackd.core.acme_steps import HTTP, Kind
from postbackd.core.certificates import Window
from postbackd.store.base import StoreUnavailable
from postbackd.store.shelf import Shelf
from postbackd.tls.pair import Pair, UnusablePair, read_pair

CERTIFICATE, ORDER, CHALLENGES = "certificate.pem", "order.json", "challenges.json"
TLS_CHALLENGES = "tls-challenges.json"
TROUBLE, RENEWAL = "trouble.json", "renewal.json"

_FROM = b"From the authority "

D = TypeVar("D", bound=Struct)


class Binding(Struct, frozen=True):
    """What binds our account at an authority to one that an operator has there (RFC 8555 section 7.3.4)."""

    kid: str
    key: bytes


class Plan(Struct, frozen=True):
    """Which certificate is wanted, and how it is obtained."""

    directory: str
    """Address of the authority's directory."""
    domains: Sequence[str]
    email: str | None = None
    challenge: str = HTTP
    """The kind that is answered."""
    binding: Binding | None = None

    @property
    def means(self) -> str:
        """How it is obtained, without what is secret: what failed with other means may be tried with these."""
        return f"{self.challenge} {self.binding.kid if self.binding else ''}".rstrip()

    @property
    def account_name(self) -> str:
        """The document of the account; every authority has one of its own, so that trying one out loses none."""
        return f"account-{hashlib.sha256(self.directory.encode()).hexdigest()[:12]}.json"


class AccountDocument(Struct, frozen=True):
    """Our account at an authority."""

    directory: str
    key: str
    """PEM."""
    url: str | None = None
    """``None``: registered not yet, or it is not known."""


class OrderDocument(Struct, frozen=True):
    """The order that is under way.  The key is kept before anything is asked for it."""

    directory: str
    domains: Sequence[str]
    key: str
    """PEM, of the certificate to come."""
    url: str | None = None
    lost: int = 0
    """Orders before it that had come to nothing when a process that was killed was followed by another."""

    def is_for(self, plan: Plan) -> bool:
        return self.directory == plan.directory and sorted(self.domains) == sorted(plan.domains)


class Trouble(Struct, frozen=True):
    """The last failure, until a certificate is obtained."""

    kind: Kind
    what: str
    fix: str
    failures: int
    """In a row."""
    at_ms: int
    next_ms: int
    directory: str
    domains: Sequence[str]
    means: str = HTTP

    def holds_back(self, plan: Plan, now_ms: int) -> bool:
        """Whether to wait.  Not when something else is wanted now, nor after a clock was set back."""
        same = self.directory == plan.directory and sorted(self.domains) == sorted(plan.domains)
        return same and self.means == plan.means and self.at_ms <= now_ms < self.next_ms


class Renewal(Struct, frozen=True):
    """What the authority suggests for one certificate."""

    fingerprint: str
    window: Window | None
    look_again_ms: int


class Held(Struct, frozen=True):
    """The certificate that is on the shelf."""

    pair: Pair
    directory: str


async def load_document(shelf: Shelf, name: str, kind: type[D]) -> D | None:
    """A document; one that cannot be read counts as none, because whoever needs it makes another."""
    text = await shelf.load(name)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def save_document(shelf: Shelf, name: str, document: Struct) -> None:
    """ASCII JSON."""
    text = msgspec.json.encode(document)
    await shelf.save(name, text if text.isascii() else _as_ascii(text))


def _as_ascii(text: bytes) -> bytes:
    """Words of an authority may be of any language; documents are kept as ASCII."""
    return "".join(
        character if character.isascii() else "?" for character in text.decode("utf-8", "replace")
    ).encode("ascii")


async def load_challenges(shelf: Shelf, name: str = CHALLENGES) -> dict[str, str]:
    """Key authorizations, by token; of ``TLS_CHALLENGES`` by the domain that is to be proved."""
    text = await shelf.load(name)
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.DecodeError:
        return {}


def write_certificate(pair: Pair, directory: str) -> bytes:
    """Key and chain in one file, so that they can only be replaced together; a first line says where they are from."""
    return _FROM + directory.encode("ascii", "replace") + b"\n" + pair.pem


def read_certificate(text: bytes | None) -> Held | None:
    """Raises ``StoreUnavailable`` when there is one that cannot be read."""
    if not text:
        return None
    first, _, _ = text.partition(b"\n")
    try:
        pair = read_pair(text)
    except UnusablePair as error:
        raise StoreUnavailable(f"{CERTIFICATE} is damaged: {error}") from error
    return Held(pair, first.removeprefix(_FROM).decode("ascii", "replace"))
