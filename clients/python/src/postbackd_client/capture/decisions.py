"""What is kept of a visit, and for how long.  No framework, no input or output; the clock is handed in.

A visit is judged in this order: may anything be kept (consent, Sec-GPC); what does the address hold; what is kept
already; which of the two stays.  `visit` carries the outcome to the visitor.
"""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Callable, Optional, Union

from postbackd_client.capture import shapes, tokens
from postbackd_client.capture.landing import parameters
from postbackd_client.capture.tokens import CLICK_ID, Entry, Record

_LOG = logging.getLogger("postbackd_client.capture")

NAMES = ("click_id", "clickid")
"""The parameters that hold the click id unless others are named.  Short ones such as `cid` are left to those who
know that their shop means nothing else by them."""
AD_CLICK_IDS = (
    "gclid",
    "gbraid",
    "wbraid",
    "fbclid",
    "ttclid",
    "msclkid",
    "twclid",
    "li_fat_id",
    "sccid",
    "epik",
)
"""The parameters of Google, Meta, TikTok, Microsoft, X, LinkedIn, Snapchat and Pinterest, to be given as `also`."""

_SHORTEST_SECRET = 16
_LONGEST_LIFE = timedelta(days=400)
_CLOCK_SKEW_S = 3_600
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_COOKIE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_DOMAIN = re.compile(r"\.?[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?")
_HOST_PREFIX = "__Host-"
_SECURE_PREFIX = "__Secure-"

GRANTED = "granted"
DENIED = "denied"
UNKNOWN = "unknown"
"""May something be kept?  Unknown: the shop's `consent` failed; nothing is kept, and nothing deleted."""


STORE = "store"
"""The one change a landing makes; deleting needs no decision beyond the permission."""


class CaptureError(Exception):
    """The shop's own program uses the capture in a way that cannot work; never raised for what a visitor sends."""


@dataclass(frozen=True)
class Captured:
    """What is known of the click that brought a visitor."""

    click_id: Optional[str]
    captured_at: Optional[int]
    """Seconds since 1970; ``None`` without a click id."""
    others: Mapping[str, str]
    """Ids of ad platforms under their own names, such as ``gclid``."""


@dataclass(frozen=True)
class Landing:
    """What the address of one request holds."""

    found: Mapping[str, str]
    """Usable ids, by the name under which they are kept."""
    refused: Sequence[tuple[str, str]]
    """Parameter and reason of each value that is no id."""


@dataclass(frozen=True)
class Decision:
    """What a visit changes."""

    record: Record
    """What is known from now on."""
    change: Optional[str] = None
    """``STORE`` or nothing."""


@dataclass(frozen=True)
class Capture:
    """How a shop keeps click ids.  Made once, when the program starts; shared by all threads and requests."""

    secret: Union[bytes, str, Sequence[Union[bytes, str]], None] = field(default=None, repr=False)
    """Signs the cookie: 16 bytes or more, or several, the newest first.  Leave an old one in until `life` is over."""
    names: Sequence[str] = NAMES
    """Parameters of the landing URL that may hold the click id; the first with a usable value wins."""
    also: Sequence[str] = ()
    """Parameters that are kept beside it under their own names, `AD_CLICK_IDS` for example."""
    life: timedelta = timedelta(days=90)
    """How long an id is believed after the click."""
    keep: str = "last"
    """Which click counts, "last" or "first"."""
    foreign: bool = True
    """Whether ids of other trackers are kept; otherwise only those with the shape of postbackd's."""
    consent: Optional[Callable[[Any], bool]] = None
    """Asked with the framework's request; only ``True`` lets anything be kept, ``False`` deletes what is kept."""
    honour_gpc: bool = True
    """Whether `Sec-GPC: 1` (Global Privacy Control) counts as a refusal: nothing is kept, what is kept is deleted, and
    `click_id` says ``None``.  Switched off, `consent` alone decides."""
    storage: str = "cookie"
    """Where ids are kept: "cookie" of our own, or the framework's "session"."""
    cookie: str = "pbk"
    """Name of the cookie (or of the session's entry).  With `__Host-` in front no other host can set it."""
    domain: Optional[str] = None
    """Lets the subdomains read the cookie too: "example.com" for www and checkout."""
    secure: bool = True
    """Only over https; switch it off only where a shop is tried out over plain http."""
    clock: Callable[[], float] = field(default=time.time, repr=False)
    signer: Optional[tokens.Signer] = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Raises ``CaptureError`` for settings that cannot work, with what to do instead."""
        _check_choices(self)
        _check_names(self)
        _check_cookie(self)
        _check_consent(self.consent)
        if self.storage == "cookie":
            object.__setattr__(self, "signer", tokens.Signer(_secrets(self.secret), self.cookie))

    @property
    def lasts_s(self) -> int:
        """`life` in seconds."""
        return int(self.life.total_seconds())

    def now(self) -> int:
        """The time, in whole seconds since 1970."""
        return int(self.clock())

    def permission(self, request: object, gpc: Optional[str]) -> str:
        """Whether something may be kept of a visitor: ``GRANTED``, ``DENIED`` or ``UNKNOWN``."""
        if self.honour_gpc and gpc is not None and gpc.strip() == "1":
            return DENIED
        if self.consent is None:
            return GRANTED
        try:
            answer: object = self.consent(request)
        except Exception:  # noqa: BLE001 - a visitor's broken consent cookie must not break the page
            _LOG.exception("consent() failed: nothing is kept of this visit")
            return UNKNOWN
        if answer is True:
            return GRANTED
        if answer is False or answer is None:
            return DENIED
        # A text such as "no" is true to Python, and so is a coroutine that nobody awaited.
        _LOG.error(
            "consent() answered with %s, not with True or False: nothing is kept", type(answer).__name__
        )
        return UNKNOWN

    def landing(self, query: Union[bytes, str, None]) -> Landing:
        """The ids in the query of an address.  Never raises, whatever the query."""
        if not query:
            return _NOTHING
        ranks = {name.lower(): rank for rank, name in reversed(list(enumerate(self.names)))}
        others = {name.lower(): name for name in self.also}
        best = len(ranks)
        found: dict[str, str] = {}
        refused: list[tuple[str, str]] = []
        for parameter, value in parameters(query, ranks.keys() | others.keys()):
            reason = self.refusal(value) if parameter in ranks else None
            if parameter in ranks and reason is None and ranks[parameter] < best:
                best, found[CLICK_ID] = ranks[parameter], value
            name = others.get(parameter)
            if name is not None:
                reason = shapes.refusal(value, shapes.LONGEST_OTHER_ID)
                if reason is None:
                    found.setdefault(name, value)
            if reason is not None:
                refused.append((parameter, reason))
        return Landing(found, refused)

    def refusal(self, text: str) -> Optional[str]:
        """Why a text is not kept as a click id: a word, or ``None`` when it is."""
        reason = shapes.refusal(text)
        if reason is None and not self.foreign and not shapes.is_postbackd(text):
            return shapes.NOT_POSTBACKD
        return reason

    def decide(self, held: Record, landed: Landing, now: int) -> Decision:
        """Which ids stay: those of this landing or those that are held; each name for itself."""
        record = dict(held)
        for name, value in landed.found.items():
            before = record.get(name)
            # The same id again is the same click: its time stays, so reloading a page prolongs nothing.
            if before is None or (self.keep == "last" and before.value != value):
                record[name] = Entry(value, now)
        return Decision(record, STORE if record != dict(held) else None)

    def encode(self, record: Record) -> str:
        """The record as the text that is kept."""
        body = tokens.write(record)
        return body if self.signer is None else self.signer.sign(body)

    def decode(self, text: object, now: int) -> Record:
        """What is still believed of a kept text: signed by us, not too old, of a name that is asked for."""
        if self.signer is not None:
            text = self.signer.verify(text) if isinstance(text, str) else None
        wanted = {CLICK_ID, *self.also}
        earliest, latest = now - self.lasts_s, now + _CLOCK_SKEW_S
        return {
            name: entry
            for name, entry in tokens.read(text).items()
            if name in wanted and earliest < entry.at <= latest
        }

    def captured(self, record: Record) -> Optional[Captured]:
        """A record for those who ask at checkout; ``None`` when nothing is known."""
        if not record:
            return None
        click = record.get(CLICK_ID)
        others = {name: entry.value for name, entry in record.items() if name != CLICK_ID}
        return Captured(click.value if click else None, click.at if click else None, others)


_NOTHING = Landing({}, ())


def _check_choices(capture: Capture) -> None:
    for name, choices in (("keep", ("last", "first")), ("storage", ("cookie", "session"))):
        if getattr(capture, name) not in choices:
            raise CaptureError(f'{name} is "{choices[0]}" or "{choices[1]}", not {getattr(capture, name)!r}')
    life: object = capture.life
    if not isinstance(life, timedelta) or not timedelta(seconds=1) <= life <= _LONGEST_LIFE:
        raise CaptureError(
            "life is a timedelta between one second and 400 days: browsers keep no cookie longer"
        )


def _check_names(capture: Capture) -> None:
    for setting, names in (("names", capture.names), ("also", capture.also)):
        if isinstance(names, str):
            raise CaptureError(f'{setting} is a list of parameters: write {setting}=("{names}",)')
        given: Sequence[object] = names
        for name in given:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise CaptureError(
                    f"{setting} holds {name!r}: a parameter's name has letters, digits and _ . - alone"
                )
    if not capture.names:
        raise CaptureError('names is empty: name the parameter that holds the click id, such as "click_id"')
    if CLICK_ID in capture.also:
        raise CaptureError('"click_id" belongs into names: in also stand ids that are kept beside it')


def _check_cookie(capture: Capture) -> None:
    if not _COOKIE.fullmatch(capture.cookie):
        raise CaptureError(
            f"{capture.cookie!r} cannot be a cookie's name: use letters, digits and _ . - alone"
        )
    if capture.domain is not None and not _DOMAIN.fullmatch(capture.domain):
        raise CaptureError(f'domain is a host name such as "example.com", not {capture.domain!r}')
    if capture.cookie.startswith((_HOST_PREFIX, _SECURE_PREFIX)) and not capture.secure:
        raise CaptureError(
            f"browsers refuse {capture.cookie} without Secure: leave secure=True, or rename it"
        )
    if capture.cookie.startswith(_HOST_PREFIX) and capture.domain is not None:
        raise CaptureError(f"browsers refuse {capture.cookie} with a domain: leave domain out, or rename it")


def _check_consent(consent: Optional[Callable[[Any], bool]]) -> None:
    if consent is None:
        return
    if not callable(consent):
        raise CaptureError("consent is a function that is asked with the request and answers True or False")
    if inspect.iscoroutinefunction(consent):
        raise CaptureError(
            "consent must answer at once: make it a plain function that reads a cookie or the session"
        )


def _secrets(secret: Union[bytes, str, Sequence[Union[bytes, str]], None]) -> Sequence[bytes]:
    given: Iterable[Union[bytes, str]] = [secret] if isinstance(secret, (bytes, str)) else (secret or ())
    secrets = [one.encode() if isinstance(one, str) else bytes(one) for one in given]
    if not secrets or any(len(one) < _SHORTEST_SECRET for one in secrets):
        raise CaptureError(
            f"the cookie is signed with a secret of {_SHORTEST_SECRET} bytes or more; make one with "
            'python -c "import secrets; print(secrets.token_hex(32))" and keep it where your other secrets are'
        )
    return secrets
