"""Personal data is replaced before anything is written or logged.

Values that hold or look like an e-mail address, a phone number, a payment card number or a full IP address
become ``hashed:`` and 16 hexadecimal digits of a keyed hash: equal values stay equal (so that deduplication
still works) and nobody without the key can find out what they were.  Amounts, dates, timestamps, versions,
UUIDs and ordinary order ids are left alone; where digits alone do not tell, the rules ask for more (a card
number must have the prefix of a brand and pass the Luhn check).

Every pattern is linear on hostile input: repetitions are bounded, or a look-behind allows one start a run.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from enum import StrEnum
from hashlib import blake2b
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote

MASK_PREFIX = "hashed:"
"""What every replaced value starts with."""

ERASED_PREFIX = "erased:"
"""What every id that was erased starts with."""

_CONCEALED = re.compile(rf"{ERASED_PREFIX}[0-9a-f]{{32}}")

_SHORTEST = 6
"""``a@b.co``; nothing shorter is personal by these rules."""

_LONGEST_NUMBER = 17
"""``00`` and 15 digits (ITU-T E.164); cards have 16.  Digits alone are judged between 10 and this."""

_SUSPECT = re.compile(
    r"[@%:+(0-9](?:(?<![0-9])|(?<![0-9A-Za-z][0-9])(?<![0-9A-Za-z][-._][0-9])[0-9 .-]{6}|\.[0-9]{1,3}\.[0-9])"
)
"""What every value holds that a rule could replace, unless it is letters and digits alone.

Written to start with one set of characters, which the regular expression engine skips to: half the time.
"""

# Not in the middle of a word or number, nor a later part of an id (A-555-123-4567, 0.4111111111111111).
_START = r"(?<![0-9A-Za-z])(?<![0-9A-Za-z][-._])"
_END = r"(?![0-9A-Za-z])(?![-._/][0-9A-Za-z])"

_EMAIL = re.compile(r"[^\s@]@[^\s@]*[^\s@.]\.(?:xn--|[^\W\d_]{2})")
_FORMATTED_PHONE = re.compile(
    # +44 20 7946 0958, +1 (555) 123-4567
    r"(?<![0-9A-Za-z+])\+[1-9](?:[ ().\-/]{0,3}[0-9]){7,14}(?![0-9A-Za-z])"
    # 0044 20 7946 0958: with a separator; the bare form is below
    rf"|{_START}00(?=[0-9]{{0,15}}[ (\-])[ \-]?[1-9](?:[ ().\-/]{{0,3}}[0-9]){{7,14}}{_END}"
    # (555) 123-4567, 555-123-4567, 1-555-123-4567
    rf"|{_START}(?:1[ .\-]?)?\([0-9]{{3}}\)[ .\-]?[0-9]{{3}}[ .\-]?[0-9]{{4}}{_END}"
    rf"|{_START}(?:1[ .\-])?[0-9]{{3}}([ .\-])[0-9]{{3}}\1[0-9]{{4}}{_END}"
)
_BARE_PHONE = re.compile(
    rf"{_START}(?:1[2-9][0-9]{{2}}[2-9][0-9]{{6}}|00[1-9][0-9]{{7,14}}){_END}"
    # A plus that was sent unencoded arrives as a space.  13 digits from 1 on are a time in milliseconds.
    r"|^ (?!1[0-9]{12}$)[1-9][0-9]{10,14}$"
)
_CARD = re.compile(
    rf"(?<!{MASK_PREFIX}){_START}(?:[0-9]{{13,16}}|[0-9]{{4}}([ -])(?:[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,4}}"
    rf"|[0-9]{{6}}\1[0-9]{{4,5}})){_END}"
)
_CARD_BRAND = re.compile(
    r"4[0-9]{12}(?:[0-9]{3})?"  # Visa
    r"|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners Club
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2}|2[0-9]{2})[0-9]{12}"  # Discover, UnionPay
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_IPV4_INSIDE = re.compile(rf"(?<![0-9A-Za-z.]){_IPV4.pattern}(?![0-9A-Za-z]|\.[0-9])")
_IPV6_CANDIDATE = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f:]{2,39}(?:[0-9.]{7,15})?(?![0-9A-Za-z:])")
_SHORTEST_IPV6 = 7
"""``fe80::1``.  Shorter ones (``a::b``) are more often ids than addresses of a person."""


class Kind(StrEnum):
    """Kinds of personal data.  The word is stored, the value never."""

    EMAIL = "e-mail"
    PHONE = "phone"
    CARD = "card"
    IP = "IP address"
    HASH = "hash of an e-mail"
    """64 hexadecimal digits: the SHA-256 of an address, which whoever has a list of addresses turns back."""


_SHORTEST_HIDDEN = 12
"""``a@bc.com`` in base64."""

_LONGEST_HIDDEN = 4096

_SHA256 = re.compile(r"[0-9a-f]{64}|[0-9A-F]{64}")

_BASE64 = re.compile(r"(?:[A-Za-f][A-Za-z0-9+/_-]{3}){3}")
"""The first bytes of three groups are ASCII: what most ids are not, so that nothing more is asked of them."""

_BASE64_WHOLE = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")

_BETWEEN = re.compile(r"""([\s"'<>{}()\[\],;&=?]+)""")
"""What stands between the words of a text."""


class Masker:
    """Replaces values that are personal data by a hash under the deployment's privacy key."""

    __slots__ = ("_concealer", "_hasher")

    def __init__(self, key: bytes) -> None:
        """``key``: 1 to 64 secret bytes; another key gives other hashes for the same values."""
        if not 1 <= len(key) <= 64:
            raise ValueError("the privacy key must have 1 to 64 bytes")
        self._hasher = blake2b(key=key, digest_size=8)
        self._concealer = blake2b(key=key, digest_size=16, person=b"erased")

    def mask(self, text: str) -> str:
        """The text itself, or the hash that stands for it when it holds personal data."""
        if len(text) < _SHORTEST or self.find(text) is None:
            return text
        return self._hash(_plain(text))

    def find(self, text: str) -> Kind | None:
        """What personal data the text holds."""
        size = len(text)
        if size < _SHORTEST:
            return None
        if size >= _SHORTEST_HIDDEN and (kind := _hidden_kind(text)) is not None:
            return kind
        if text.isalnum():
            return _bare_kind(text) if text.isdigit() else None
        if _SUSPECT.search(text) is None:
            return None
        plain = _plain(text)
        if plain is not text and (kind := _hidden_kind(plain)) is not None:
            return kind
        return _formatted_kind(plain) or _bare_kind(plain)

    def mask_words(self, text: str, *, addresses: bool = False) -> str:
        """A longer text, such as an answer, in which each word that is personal data is replaced.

        When that leaves personal data (a telephone number in groups), the whole text is replaced.  ``addresses``: IP
        addresses in it are those of machines that we call, and stay.
        """
        if self.mask(text) == text:
            return text
        parts = [
            part if index % 2 or (addresses and _is_address(part)) else self.mask(part)
            for index, part in enumerate(_BETWEEN.split(text))
        ]
        judged = "".join(part for part in parts if not (addresses and _is_address(part)))
        return "".join(parts) if self.mask(judged) == judged else self._hash(_plain(text))

    def mask_opaque(self, text: str) -> str:
        """The same for ids that an ad network must get back unchanged: digits alone and hashes are never replaced."""
        if len(text) < _SHORTEST or self.find_opaque(text) is None:
            return text
        return self._hash(_plain(text))

    def find_opaque(self, text: str) -> Kind | None:
        """What ``mask_opaque`` replaces."""
        size = len(text)
        if size < _SHORTEST:
            return None
        if size >= _SHORTEST_HIDDEN and (kind := _encoded_kind(text)) is not None:
            return kind
        if text.isalnum() or _SUSPECT.search(text) is None:
            return None
        plain = _plain(text)
        if plain is not text and (kind := _encoded_kind(plain)) is not None:
            return kind
        return _formatted_kind(plain) or _grouped_card_kind(plain)

    def conceal(self, stamp: int, text: str) -> str:
        """What stands for an erased id of the click with this stamp: equal ids stay equal, under one click only.

        Concealing twice changes nothing more; no id stays none.
        """
        if not text or _CONCEALED.fullmatch(text):
            return text
        hasher = self._concealer.copy()
        hasher.update(stamp.to_bytes(8, "big", signed=True) + text.encode("utf-8", "surrogatepass"))
        return ERASED_PREFIX + hasher.hexdigest()

    def _hash(self, plain: str) -> str:
        hasher = self._hasher.copy()
        hasher.update(plain.strip().casefold().encode("utf-8", "surrogatepass"))
        return MASK_PREFIX + hasher.hexdigest()


def _plain(text: str) -> str:
    """Percent-encoding taken off, twice at most: ``user%2540shop.example`` is an address too."""
    return unquote(unquote(text)) if "%" in text else text


def _formatted_kind(text: str) -> Kind | None:
    """An e-mail address, a phone number written as one or an IP address: known by form, not by digits."""
    if "@" in text and _EMAIL.search(text) is not None:
        return Kind.EMAIL
    if _FORMATTED_PHONE.search(text) is not None:
        return Kind.PHONE
    if ("." in text and _IPV4_INSIDE.search(text) is not None) or (":" in text and _holds_ipv6(text)):
        return Kind.IP
    return None


def _bare_kind(text: str) -> Kind | None:
    """A phone or card number that is digits alone, or nearly so."""
    if not 10 <= len(text) <= _LONGEST_NUMBER and text.isdigit():
        return None
    if _BARE_PHONE.search(text):
        return Kind.PHONE
    return Kind.CARD if any(_is_card(found.group()) for found in _CARD.finditer(text)) else None


def _grouped_card_kind(text: str) -> Kind | None:
    """A card number that is written as one, in groups."""
    found = (found.group() for found in _CARD.finditer(text))
    return Kind.CARD if any(not card.isdigit() and _is_card(card) for card in found) else None


def _hidden_kind(text: str) -> Kind | None:
    """Personal data that does not look like any."""
    if len(text) == 64 and _SHA256.fullmatch(text):
        return Kind.HASH
    return _encoded_kind(text)


def _encoded_kind(text: str) -> Kind | None:
    """The same in base64, of the usual or the URL-safe alphabet, padded or not."""
    if _BASE64.match(text) is None or len(text) > _LONGEST_HIDDEN or _BASE64_WHOLE.fullmatch(text) is None:
        return None
    bare = text.rstrip("=")
    if "-" in bare or "_" in bare:  # the URL-safe alphabet
        bare = bare.replace("-", "+").replace("_", "/")
    try:
        decoded = a2b_base64(bare + "=" * (-len(bare) % 4))
    except ValueError:
        return None
    if not decoded.isascii():  # most ids; all that is looked for is ASCII
        return None
    plain = decoded.decode("ascii")
    if not plain.isprintable():
        return None
    return _formatted_kind(plain) or _bare_kind(plain)


def _is_card(written: str) -> bool:
    digits = written.replace(" ", "").replace("-", "")
    return _CARD_BRAND.fullmatch(digits) is not None and _passes_luhn(digits)


def _passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _is_address(text: str) -> bool:
    return _IPV4.fullmatch(text) is not None or _read_ipv6(text) is not None


def _holds_ipv6(text: str) -> bool:
    for found in _IPV6_CANDIDATE.finditer(text):
        candidate = found.group()
        if (
            len(candidate) >= _SHORTEST_IPV6
            and candidate.count(":") >= 2
            and _read_ipv6(candidate) is not None
        ):
            return True
    return False


def _read_ipv6(text: str) -> IPv6Address | None:
    try:
        return IPv6Address(text)
    except AddressValueError:
        return None


def truncate_ip(address: str) -> str | None:
    """The network an address is in: ``203.0.113.0/24`` or ``2001:db8:1::/48``; ``None`` if unreadable.

    An IPv4 address mapped into IPv6 (``::ffff:203.0.113.7``) gives its IPv4 network.
    """
    if _IPV4.fullmatch(address):
        return address[: address.rindex(".")] + ".0/24"
    ipv6 = _read_ipv6(address)
    if ipv6 is None:
        return None
    if ipv6.ipv4_mapped is not None:
        return truncate_ip(str(ipv6.ipv4_mapped))
    return f"{IPv6Address(int(ipv6) >> 80 << 80)}/48"


def mask_password(address: str) -> str:
    """The address of a database without its password and options, for messages.

    The pattern is greedy: a password that was not encoded may hold any character.
    """
    return re.sub(r"//([^:@/]*):.*@", r"//\1@", address).partition("?")[0]
