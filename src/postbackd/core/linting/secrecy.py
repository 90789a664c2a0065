"""What a URL tells that it should not: personal data, secrets, keys where browsers show them.

URLs stand in logs, histories and the headers of other requests; what is in one is told to all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from postbackd.core.linting.kinds import OWN_PATH, is_own
from postbackd.core.linting.records import Edit, Flaw, Kind, Known, Severity, flaw
from postbackd.core.linting.url_parts import Parameter, Parts
from postbackd.core.linting.words import field_of, names_of
from postbackd.core.macro_syntax import Found, bare
from postbackd.core.macros import looks_like_macro
from postbackd.core.params import decode
from postbackd.core.privacy import Masker

_FIREWALL = Masker(b"finding needs no key")

_PERSONAL = (
    "email emailaddress useremail mail phone phonenumber telephone mobile msisdn ip ipaddress userip clientip "
    "remoteip firstname lastname fullname username birthdate dob postcode zipcode street idfa idfv gaid gpsadid "
    "androidid imei deviceid advertisingid useruid useragent clickuseragent latitude longitude"
)
_PERSONAL_WORDS = frozenset(_PERSONAL.split())
"""Bare words of macros and parameters that carry what belongs to a person."""

_SECRETS = (
    "secret password passwd pwd passphrase accesstoken apikey apisecret apitoken privatekey authtoken clientsecret "
    "secretkey appsecret bearer refreshtoken"
)
_SECRET_WORDS = frozenset(_SECRETS.split())
_TOKENS = "token key auth authkey securitytoken securekey securitykey"
_TOKEN_WORDS = frozenset(_TOKENS.split())
_TOKEN = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_\-.~+/=]{16,}")
_SECRET_FORMS = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\."  # JSON Web Token (RFC 7519)
    r"|whsec_[A-Za-z0-9+/=]{16,}"  # Standard Webhooks
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"  # Stripe
    r"|gh[pousr]_[A-Za-z0-9]{30,}"  # GitHub
    r"|AKIA[0-9A-Z]{16}(?![0-9A-Z])"  # Amazon Web Services
)
_POSTBACK_INSIDE = re.compile(r"/p/([0-9a-z]{20,40})(?![0-9a-z])")


def find_personal(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Values by the firewall that guards the database, macros and parameters by their names and by the preset."""
    for value in parts.values:
        kind_of_data = None if value.macros else _FIREWALL.find(decode(value.value))
        if kind_of_data is not None:
            yield _personal(
                parts,
                value,
                (value.start, value.end),
                known,
                kind,
                Severity.ERROR,
                f"It holds personal data ({kind_of_data}), the same for everybody and in every log on the way.",
            )
            continue
        for macro in value.macros:
            if _is_personal(macro, value, known):
                yield _personal(
                    parts,
                    value,
                    (macro.start, macro.end),
                    known,
                    kind,
                    Severity.WARNING,
                    f"{macro.text} is filled with what belongs to a person or is secret, in every log on the way.",
                )
                break


def _is_personal(macro: Found, value: Parameter, known: Known) -> bool:
    if known.partner is not None and macro.text in known.partner.withheld:
        return True
    if known.partner is not None and macro.text in known.partner.macros:
        return False
    return bare(macro.word) in _PERSONAL_WORDS or (bool(value.name) and bare(value.name) in _PERSONAL_WORDS)


def _personal(
    parts: Parts,
    value: Parameter,
    place: tuple[int, int],
    known: Known,
    kind: Kind,
    severity: Severity,
    cause: str,
) -> Flaw:
    """On our own URLs, a parameter that no field claims can be left out: nothing reads it."""
    unread = is_own(parts, kind) and bool(value.name) and value.name not in known.asked
    unread = unread and field_of(value, names_of(kind, known)) is None
    return flaw(
        "personal_data",
        severity=severity,
        place=place,
        cause=cause,
        fix="Leave the parameter out." if value.name else "Leave it out.",
        edit=_take_out(parts, value) if value.name else None,
        safe=unread,
    )


def _take_out(parts: Parts, value: Parameter) -> Edit:
    if value.end < parts.fragment_at:
        return Edit(value.start, value.end + 1, "")
    return Edit(value.start - 1, value.end, "")


def find_secrets(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Passwords and tokens that are written out; a macro is filled later, and the token of a network belongs there."""
    for value in parts.parameters:
        if value.macros or not value.value or (kind.is_theirs and value.name in known.asked):
            continue
        text = unquote(value.value)
        word = bare(value.name)
        named = word in _SECRET_WORDS or (word in _TOKEN_WORDS and _TOKEN.fullmatch(text) is not None)
        if looks_like_macro(text) or not (named or _SECRET_FORMS.search(text)):
            continue
        if kind is Kind.TARGET:
            cause = (
                f"{value.name} looks like a secret, and stands in the open in the catalog and in every log."
            )
            fix = f"Give it as an account value and write {{account.{_account_name(value.name)}}}."
        else:
            cause = f"{value.name} looks like a secret, and everybody sees it who sees the URL."
            fix = "Take it away, and replace the secret: it is known now."
        shown = kind in (Kind.CLICK, Kind.OFFER)
        yield flaw(
            "secret",
            severity=Severity.ERROR if shown else Severity.WARNING,
            place=(value.start, value.end),
            cause=cause,
            fix=fix,
        )


def _account_name(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def find_keys(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """The key of a postback URL where a browser shows it: whoever reads it can send conversions."""
    own = OWN_PATH.fullmatch(parts.path)
    if own is not None and own[3] and is_own(parts, kind):
        start = parts.path_at + own.start(2)
        yield flaw(
            "key_shown",
            severity=Severity.ADVICE,
            place=(start, start + len(own[2])),
            cause="The pixel shows the network's key to whoever looks at the page.",
            fix="Give the pixel a network of its own, or ask the sender for a token or signature, too.",
        )
    if kind not in (Kind.CLICK, Kind.OFFER):
        return
    for value in parts.values:
        text = value.value
        for _ in range(3):
            text = unquote(text)
        found = _POSTBACK_INSIDE.search(text)
        if (found is not None and value.name) or any(key in text for key in known.keys or ()):
            yield flaw(
                "key_shown",
                severity=Severity.ERROR if found is None else Severity.WARNING,
                place=(value.at, value.end),
                cause="Every visitor's browser shows the key of a postback URL in it.",
                fix="Set the URL in the network's own settings, or ask its sender for a token or signature, too.",
            )
