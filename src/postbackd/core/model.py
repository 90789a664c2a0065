"""Records that the parts of postbackd hand to each other.

A record is made once and never changed.  Nothing here reads a clock, a socket or a database.

Units are in the names: ``*_ms`` is milliseconds since 1970-01-01 UTC, ``*_micros`` is millionths of a
currency unit, ``*_s`` is seconds.  A *stamp* is the first 64 bits of a click id (see ``core.click_id``):
time-ordered, unique in one deployment, and the integer that the database stores for clicks, requests
and conversions.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Channel(IntEnum):
    """How a postback reached us.  The values are bits: a conversion keeps the union of its channels."""

    S2S = 1
    PIXEL = 2


class ClickKind(IntEnum):
    """Only ``COUNTED`` clicks appear in reports; every kind can be matched."""

    COUNTED = 0
    HEAD = 1
    PREFETCH = 2


class Dedup(IntEnum):
    """What a network wants done with a repeat that carries no transaction id (see ``core.rules``)."""

    IGNORE = 0
    UPDATE = 1
    ADD = 2
    HOLD = 3


class Network(Struct, frozen=True, kw_only=True):
    """An affiliate network or advertiser: it sends postbacks to us under its unguessable ``key``."""

    id: int
    name: str
    key: str
    preset: str | None = None
    currency: str = "USD"
    dedup: str = "ignore"
    strict: bool = False
    answer: str = "json"
    """``json`` (default), ``ok`` (the body ``OK``) or ``204``."""
    fields: dict[str, tuple[str, ...]] = {}
    """Canonical field -> parameter names, first found wins; a field not named keeps its default names."""
    types: tuple[str, ...] = ()
    """Conversion types that may be sent; empty means any."""
    statuses: dict[str, str] = {}
    """The network's own status words -> pending, approved, rejected or reversed."""


class Source(Struct, frozen=True, kw_only=True):
    """A traffic source: it sends visitors."""

    id: int
    name: str
    preset: str | None = None
    fields: dict[str, tuple[str, ...]] = {}
    """Canonical click field (source_click_id, cost, country, sub1..sub10) -> parameter names."""


class Offer(Struct, frozen=True, kw_only=True):
    """A destination URL of a network."""

    id: int
    name: str
    network: int
    url: str
    window_min_s: int = 0
    window_max_s: int = 30 * 86400


class WeightedOffer(Struct, frozen=True, array_like=True):
    offer: int
    weight: int = 1


class Campaign(Struct, frozen=True, kw_only=True):
    """One tracked link: a source plus one or more weighted offers."""

    id: int
    name: str
    slug: str
    source: int
    offers: tuple[WeightedOffer, ...]


CatalogEntry = Network | Source | Offer | Campaign


class SigningKey(Struct, frozen=True, kw_only=True):
    """Signs the click ids whose time is ``active_from_ms`` or later, until a newer key takes over."""

    id: int
    secret: bytes
    active_from_ms: int
    retired: bool = False


class Catalog(Struct, frozen=True, kw_only=True):
    """Everything that ingest must know to decide; an immutable snapshot, swapped as a whole."""

    generation: int
    networks: tuple[Network, ...] = ()
    sources: tuple[Source, ...] = ()
    offers: tuple[Offer, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    signing_keys: tuple[SigningKey, ...] = ()
    privacy_key: bytes = b""
    node: int = 0


class Click(Struct, frozen=True, gc=False):
    """One visit through a campaign."""

    stamp: int
    campaign: int
    offer: int
    kind: int
    source_click_id: str | None = None
    cost_micros: int | None = None
    country: str | None = None
    ip_prefix: str | None = None
    own_id: str | None = None
    """The caller's own click id, when a server registered the click with one."""
    subs: tuple[str | None, ...] = ()
    """sub1..sub10 in order; shorter when the last ones are absent."""


class Fields(Struct, frozen=True, gc=False):
    """The canonical fields of one postback as received: text, not yet judged, ``None`` when absent.

    Personal data has been replaced before a ``Fields`` is made; it may be written and logged as it is.
    """

    click_id: str | None = None
    type: str | None = None
    value: str | None = None
    currency: str | None = None
    transaction_id: str | None = None
    status: str | None = None
    time: str | None = None


class Request(Struct, frozen=True, gc=False):
    """What is known of a postback request beside its parameters."""

    request_id: int
    network: int
    channel: int
    body_bytes: int
    """Bytes of query and body."""
    now_ms: int


class ClickRef(Struct, frozen=True, gc=False):
    """Which click a postback speaks of, as far as its parameters tell."""

    click_id: int | None = None
    """Stamp of the click, when the id verified."""
    campaign: int | None = None
    own_id: str | None = None
    """Set when the id is not one of ours but may be a caller's own."""
    reason: int = 0
    """What is wrong with the id, or how it was repaired."""
    found_in: str | None = None
    """The parameter that held the click id, when it was not one that is mapped to it."""


class Event(Struct, frozen=True, gc=False):
    """What happened, in canonical values."""

    type: str
    transaction_id: str
    """Empty when the sender gave none."""
    value_micros: int
    value_given: bool
    currency: str
    status: int
    status_given: bool
    time_ms: int
    """The sender's time of the event, 0 when it gave none."""


class Postback(Struct, frozen=True, gc=False):
    """One postback as judged before the database was asked (see ``core.rules.judge``)."""

    request: Request
    parameters: int
    fields: Fields
    click: ClickRef
    event: Event | None
    """``None`` when the postback is settled already."""
    verdict: int = 0
    """0: the database decides.  Otherwise final."""
    reason: int = 0
    """A warning while ``verdict`` is 0."""
    replay: bool = False
    """The row is in the postback log already: a late match or a replay."""
