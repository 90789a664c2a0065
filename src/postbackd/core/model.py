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

from postbackd.core.senders import ANYBODY, Senders


class Channel(IntEnum):
    """How a postback reached us.  The values are bits: a conversion keeps the union of its channels."""

    S2S = 1
    PIXEL = 2
    IMPORT = 4
    """A row of a partner's export that an operator took in (see ``reports.importing``).  Only the conversion that it
    counted bears this bit."""


class ClickKind(IntEnum):
    """Only ``COUNTED`` clicks appear in reports; every kind can be matched."""

    COUNTED = 0
    HEAD = 1
    PREFETCH = 2
    BOT = 3
    """The visitor says that it is a program (``core.bots``)."""


KIND_BITS = 0x0F
"""Those of a click's ``kind`` that are its ``ClickKind``."""

ERASED_BIT = 0x10
"""In a click's ``kind``: its data was erased, and what postbacks bring for it is kept without theirs."""

NO_CONSENT_BIT = 0x20
"""In a click's ``kind``: its visitor did not consent to be tracked, so little of it is kept and some are not told."""

CONSENT_BIT = 0x40
"""In a click's ``kind``: its visitor said a clear yes (``core.consent``).  Without either bit nothing is known."""


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
    senders: Senders = ANYBODY
    """Who may send, beyond whoever knows the key."""
    personal_data: str = "replace"
    """What becomes of personal data in its postbacks: ``replace`` it by a keyed hash, ``drop`` it, ``refuse`` them."""


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


class RequestForm(Struct, frozen=True, omit_defaults=True):
    """A request as it is written down, with macros (see ``core.outgoing``)."""

    url: str
    method: str = "GET"
    body_type: str = ""
    """Empty (no body), ``form`` or ``json``."""
    body: str = ""
    """``form``: ``name=value&...`` with macros in the values; ``json``: a document with macros inside its strings."""
    headers: dict[str, str] = {}


class How(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a target is told something."""

    kind: str = "postback"
    """``postback``, ``webhook``, or a platform (see ``core.platforms``)."""
    requests: dict[str, RequestForm] = {}
    """Word of a ``Message`` -> request.  Without one for retractions or adjustments the source cannot take them."""
    on_empty: str = "drop"
    """A parameter whose macro has no value: ``drop`` it, or send it ``empty``."""
    types: dict[str, str] = {}
    """Our conversion type -> the source's word, macro ``{goal}``; others go as they are."""
    statuses: dict[str, str] = {}
    """Our status -> the source's word, macro ``{status}``."""
    success: tuple[str, ...] = ()
    """Regular expressions; where there are any, a 2xx answer is a success only if one is found in its body."""
    failure: tuple[str, ...] = ()
    """Regular expressions; a 2xx answer in whose body one is found is a failure."""
    final: tuple[int, ...] = ()
    """HTTP statuses by which this target says that trying again is useless."""
    fresh_s: int = 0
    """Older than this is not sent any more; 0: whatever its age."""
    fresh_from: str = "conversion"
    """What the age counts from: ``conversion`` or ``click``."""
    schedule_s: tuple[int, ...] = ()
    """Pauses before each attempt; empty: the usual ones (see ``core.retry``)."""
    connect_ms: int = 2000
    total_ms: int = 5000
    concurrency: int = 32
    """Requests to this target at the same time."""
    options: dict[str, str] = {}
    """What a platform wants to know, such as ``pixel_id`` or ``test_event_code``; nothing secret."""


class Target(Struct, frozen=True, kw_only=True):
    """Where deliveries go: an endpoint of a traffic source, and how it wants to be told."""

    id: int
    name: str
    preset: str | None = None
    how: How = How()
    secrets: dict[str, str] = {}
    """Name -> sealed value (see ``core.sealing``), used as ``{account.NAME}``."""


class Rule(Struct, frozen=True, kw_only=True):
    """Which conversions a target is told of.

    It is of a source or of a campaign.  A campaign that has rules of its own follows these instead of its source's.
    """

    id: int
    name: str
    source: int | None = None
    campaign: int | None = None
    target: int
    condition: str = ""
    """See ``core.conditions``; empty: every approved conversion."""
    delay_s: int = 0
    payout: str = ""
    """Empty: the value as received; ``fixed 2.50 USD``; or ``80%``."""
    on_change: str = "ignore"
    """``adjust`` or ``ignore``, when the value of a conversion changes that the source was told of."""
    on_reversal: str = "ignore"
    """``retract``, ``adjust`` (to 0) or ``ignore``, when the conversion is none any more."""


CatalogEntry = Network | Source | Offer | Campaign | Target | Rule


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
    removed_offers: tuple[Offer, ...] = ()
    """Taken out of the catalog; their clicks still convert, within their windows."""
    campaigns: tuple[Campaign, ...] = ()
    removed_campaigns: tuple[Campaign, ...] = ()
    """Taken out of the catalog; their sources are still told of their conversions."""
    targets: tuple[Target, ...] = ()
    rules: tuple[Rule, ...] = ()
    signing_keys: tuple[SigningKey, ...] = ()
    privacy_key: bytes = b""


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


class Terms(Struct, frozen=True, gc=False):
    """What a postback says beside its ids and its time.

    Many postbacks of a network say the same, so that one record serves them all (see ``core.terms``).  The texts
    are as received, personal data replaced: they may be written and logged.
    """

    type_text: str | None
    value_text: str | None
    currency_text: str | None
    status_text: str | None
    type: str = "conversion"
    value_micros: int = 0
    currency: str = ""
    status: int = 0
    verdict: int = 0
    """0: usable.  Otherwise what becomes of every postback that says this."""
    reason: int = 0
    """Why it is not usable; a warning when it is."""
    finds: tuple[tuple[str, str], ...] = ()
    """(field, kind) of personal data that was in it."""

    @property
    def status_given(self) -> bool:
        return bool(self.status_text)

    @property
    def value_given(self) -> bool:
        return bool(self.value_text)


class Postback(Struct, frozen=True, gc=False):
    """One postback as judged before the database was asked (see ``core.rules.judge``)."""

    request: Request
    parameters: int
    click: ClickRef
    click_text: str | None
    """The click id as received, kept only when it does not verify as it stands."""
    terms: Terms
    transaction_text: str | None
    time_text: str | None
    transaction_id: str = ""
    """Empty when the sender gave none."""
    time_ms: int = 0
    """The sender's time of the event, 0 when it gave none."""
    verdict: int = 0
    """0: the database decides.  Otherwise final."""
    reason: int = 0
    """A warning while ``verdict`` is 0."""
    replay: bool = False
    """The row is in the postback log already: a late match or a replay."""
    observed: int | None = None
    """What observed steps would have refused it for, as bits (``core.sender_rules.read_observed``)."""
    sender: str | None = None
    """The network it came from, truncated; kept only where something is wrong with the sender."""
    finds: tuple[tuple[str, str], ...] = ()
    """(field, kind) of personal data that was in it."""
    trace: str | None = None
    """The trace that its request named (``core.tracing``); only for what follows from it."""
