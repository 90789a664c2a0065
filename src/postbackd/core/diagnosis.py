"""Why a postback could not be used: the closed list of reasons, and what is wrong with a click id.

The log, the API, the reports and the documentation take word, cause and fix from ``Reason``; nothing else
spells them.  The numbers are stored: append new ones, never renumber.

A click id is looked at here only after ``KeyRing.verify`` refused it, so this may take its time, but it is
linear in the length of hostile text.  It repairs only what verifies after the repair, and guesses nothing.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Self
from urllib.parse import unquote

from msgspec import Struct

from postbackd.core.click_id import TEXT_LENGTH, KeyRing, read_unverified, stamp_ms
from postbackd.core.macros import looks_like_macro
from postbackd.core.privacy import MASK_PREFIX


class Reason(IntEnum):
    """Number, cause in one sentence, fix in one sentence."""

    cause: str
    fix: str
    word: str

    def __new__(cls, number: int, cause: str = "", fix: str = "") -> Self:
        reason = int.__new__(cls, number)
        reason._value_ = number
        return reason

    def __init__(self, _number: int, cause: str = "", fix: str = "") -> None:
        self.cause = cause
        self.fix = fix
        self.word = self._name_.lower()

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """A number that a damaged row holds: it is not on the list, and takes no log and no report away."""
        if not isinstance(value, int):
            return None
        reason = int.__new__(cls, value)
        reason._name_, reason._value_ = f"UNKNOWN ({value})", value
        reason.__init__(  # type: ignore[misc]
            value,
            "The row of the log is damaged: it has a reason that there is not.",
            "Run 'postbackd verify', and look at the row in a backup.",
        )
        return reason

    NONE = 0, "Nothing is wrong.", "Nothing needs to be done."
    CLICK_ID_MISSING = (
        1,
        "The request has no click id parameter.",
        "Add click_id= with the network's macro for your sub id to the postback URL.",
    )
    CLICK_ID_EMPTY = (
        2,
        "The click id parameter is there but empty.",
        "Check that the offer link passes {click_id} in the sub id whose macro the postback URL uses.",
    )
    MACRO_LITERAL = (
        3,
        "A macro or placeholder arrived instead of its value: the network did not fill it.",
        "Use the network's own spelling of the macro in the postback URL, where the network allows it.",
    )
    CLICK_ID_TRUNCATED = (
        4,
        "The click id was cut off: it is the beginning of one of ours.",
        "Pass {click_id} in a field that keeps at least 26 characters, on every hop to the network.",
    )
    CLICK_ID_ALTERED = (
        5,
        "The click id looks like ours but was changed on its way, forged, or signed with a retired key.",
        "Compare it with the id in the offer link and look for a hop that changes characters.",
    )
    CLICK_ID_DOUBLE_ENCODED = (
        6,
        "The click id was encoded more often than once, or wrapped in quotes or spaces; it was repaired.",
        "Remove the additional encoding or quotes around the macro in the postback URL.",
    )
    CLICK_ID_IN_OTHER_FIELD = (
        7,
        "The click id was found in another parameter than the one mapped for it; it was used.",
        "Map the click id of this network to the parameter that held it.",
    )
    CLICK_ID_FOREIGN = (
        8,
        "The click id is not one of ours: another system made it.",
        "Put the macro of the sub id that carries {click_id} into the postback URL, not another id.",
    )
    CLICK_NOT_YET_SEEN = (
        9,
        "The click id is genuine but no such click is stored yet.",
        "Wait: it is matched when the click arrives; if none arrives, it was lost before it reached us.",
    )
    CLICK_PURGED = (
        10,
        "The click id is genuine but its click is older than the retention time and was deleted.",
        "Keep clicks longer if conversions of this age should count.",
    )
    CLICK_BEFORE_WINDOW = (
        11,
        "The conversion came sooner after the click than the offer allows.",
        "Check the traffic for automated conversions, or lower the offer's minimum window.",
    )
    CLICK_AFTER_WINDOW = (
        12,
        "The conversion came later after the click than the offer allows.",
        "Raise the offer's maximum window if conversions of this age should count, then replay.",
    )
    VALUE_INVALID = (
        13,
        "The value is not an amount that can be read without guessing.",
        "Send plain decimal text with a dot, such as 12.50.",
    )
    VALUE_MACRO_LITERAL = (
        14,
        "A macro arrived instead of the value: the network did not fill it.",
        "Use the network's own spelling of its payout macro in the postback URL; then have the postback sent again.",
    )
    CURRENCY_UNKNOWN = (
        15,
        "The currency is not an ISO 4217 code, or a macro that the network did not fill.",
        "Send a code such as USD or EUR, or leave it out and set the network's currency; then send the postback again.",
    )
    STATUS_UNKNOWN = (
        16,
        "The status word is not known; the conversion is counted as pending.",
        "Map the word to pending, approved, rejected or reversed in the network's statuses.",
    )
    TYPE_NOT_ALLOWED = (
        17,
        "The conversion type is not one that this network may send.",
        "Add the type to the network's types and replay, or correct it in the postback URL and have it sent again.",
    )
    SENDER_IP_NOT_ALLOWED = (
        18,
        "The request came from an address that this network does not send from.",
        "Add the address to the network's list if the network confirms it.",
    )
    SIGNATURE_MISSING = (
        19,
        "The network must sign its requests and this one has no signature.",
        "Switch signing on at the network, or do not require it here.",
    )
    SIGNATURE_INVALID = (
        20,
        "The signature does not fit the request.",
        "Enter the same secret and signing method on both sides.",
    )
    TIMESTAMP_OUT_OF_RANGE = (
        21,
        "The time is unreadable, in the future or too far back: receipt counts instead, or a signature is refused.",
        "Send seconds or milliseconds since 1970, or ISO 8601 with a time zone, by a clock that is right.",
    )
    TEST_EVENT = (
        22,
        "The click id is a test word: somebody tried the postback URL out.",
        "To test end to end, open the campaign link and send the click id that it hands out.",
    )
    BODY_MALFORMED = (
        23,
        "The body is not what its content type says, or is not readable at all.",
        "Send a URL-encoded form, a JSON object, a JSON array or NDJSON, in UTF-8, with the matching Content-Type.",
    )
    TOO_MANY_PARAMETERS = (
        24,
        "The request has more than 32 parameters.",
        "Send only the parameters that are mapped.",
    )
    FIELD_TOO_LONG = (
        25,
        "A mapped parameter is longer than its field can hold.",
        "Check which macro fills it; an id or an amount is never that long.",
    )
    REPEAT_WITHOUT_TRANSACTION_ID = (
        26,
        "This click and type are counted already, and the repeat has no transaction id to tell it apart.",
        "Add the network's transaction id to the postback URL; to decide this one, set the dedup mode and replay.",
    )
    TOKEN_MISSING = (
        27,
        "The network must send a token and this request has none.",
        "Add token= to the postback URL, or send the header X-Postback-Token or Authorization: Bearer.",
    )
    TOKEN_INVALID = (
        28,
        "The token is not the network's, or it was replaced and its time is over.",
        "Give the network its current token; 'postbackd network rotate NAME token' makes another one.",
    )
    PERSONAL_DATA = (
        29,
        "The postback carries personal data (an e-mail address, a phone or card number, a full IP address).",
        "Take the parameter out of the postback URL, or let the network's personal data be replaced or dropped.",
    )


SENDER_REASONS = frozenset(
    {
        Reason.SENDER_IP_NOT_ALLOWED,
        Reason.SIGNATURE_MISSING,
        Reason.SIGNATURE_INVALID,
        Reason.TIMESTAMP_OUT_OF_RANGE,
        Reason.TOKEN_MISSING,
        Reason.TOKEN_INVALID,
    }
)
"""Of a rejected postback: its sender did not show that it may send."""


class ClickIdFinding(Struct, frozen=True, gc=False):
    """What is wrong with a click id."""

    reason: Reason
    stamp: int | None = None
    campaign: int | None = None
    """Stamp and campaign are set when an id of ours verified after a repair or inside the text."""
    repaired: bool = False
    """Whether the repaired id may be used: nothing but encoding, quotes and white space was taken off."""
    hint: str | None = None
    """For people: what the text looks like."""


TEST_CLICK_ID = "test_click"
"""What our own tests send for a click id: it is logged as ``TEST_EVENT`` and counts nothing."""

_EMPTY = frozenset(
    {"", "0", "-", "null", "undefined", "none", "nil", "nan", "n/a", "na", "(null)", "[null]", "false"}
)
_TEST_WORD = re.compile(
    r"test(?:ing|er)?[ _-]?(?:click|clickid|click[ _-]id|cid|subid|id|conversion|postback|pixel|event|lead"
    r"|sale|order|transaction|txid|value|user)?[ _-]?[0-9]{0,12}"
    r"|(?:click|clickid|subid|postback|conversion)[ _-]?test[0-9]{0,6}"
)
_INSIDE_MACRO = re.compile(
    r"\{\{?[$:_]?[A-Za-z][\w.:]*\}|\[[A-Z_]{3,}\]|__[A-Z_]{3,}__|##[A-Z_]{3,}##", re.ASCII
)
_WRAPPING = re.compile("[\\s\"'`\u00b4\u2018\u2019\u201c\u201d\u00ab\u00bb\u200b\u200c\u200d\u2060\ufeff]+")
_MAX_DECODINGS = 3
_MAX_QUOTED = 60

_EARLIEST_MS = 1_590_969_600_000
"""2020-06-01.  Shapes without a valid check count as ours from then on: a run of zeros says 2020-01-01."""
_DAY_MS = 86_400_000
_ULID_FROM_MS = 1_451_606_400_000
"""2016-01-01: ULIDs have the alphabet and length of our ids, but count milliseconds from 1970."""

_SHORTEST_PREFIX = 8
"""Characters; fewer do not hold enough of the time to tell them from a word."""
_STRICT = re.compile(r"[0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]+")
_NOT_BASE32 = re.compile(r"[^0-9A-TV-Za-tv-z]")
_RUN = re.compile(r"[0-9A-Za-z]{26,}")
_MAX_SEARCHED = 512
"""An id is looked for in the first characters only; fields are shorter, hostile text need not be read."""

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), hint)
    for pattern, hint in (
        (rf"{MASK_PREFIX}[0-9a-f]{{16}}", "it looked like personal data, so only a hash of it is kept"),
        (r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "a UUID"),
        (
            r"(?:Cj[0wk]KC|EAIaIQobChMI|CI[a-zA-Z0-9]{2}|CN[a-zA-Z0-9]{2}|CL[a-zA-Z0-9]{2})[\w-]{15,200}",
            "a Google gclid",
        ),
        (r"0AAAAA[\w-]{10,100}", "a Google gbraid or wbraid"),
        (r"(?:IwAR|IwY2x|IwZX|PAAa|PAZX|PAQ0)[\w.-]{10,500}", "a Meta fbclid"),
        (r"fb\.[0-9]\.[0-9]{13}\..{1,500}", "a Meta fbc or fbp value"),
        (r"E\.C\.P\.[\w.-]{10,500}", "a TikTok ttclid"),
        (r"[0-9a-f]{32}", "32 hexadecimal digits: a Microsoft msclkid, a UUID without dashes or an MD5 hash"),
        (r"[0-9A-Fa-f]{32}", "32 hexadecimal digits: a UUID without dashes or an MD5 hash"),
        (r"102[0-9a-f]{27}", "30 hexadecimal digits that start with 102: a TUNE transaction id"),
        (r"[0-9a-f]{24}", "24 hexadecimal digits: an ObjectId, as RedTrack and Affise use for click ids"),
        (r"[wd][0-9A-Z]{23}", "the form of a Voluum click id"),
        (r"[0-9]+", "digits only: most likely the network's own id"),
        (r"[0-9A-Fa-f]{16,128}", "hexadecimal digits only"),
        (r"https?://.*", "a web address"),
        (r"(?=.*[0-9])[0-9a-v]{12,14}", "the form of a Keitaro sub id"),
        (r"[^\s@]+@[^\s@]+", "an address with an @"),
    )
)


def diagnose_click_id(text: str | None, keys: KeyRing, now_ms: int) -> ClickIdFinding:
    """What is wrong with a click id that ``keys.verify`` refused.

    ``now_ms`` is the time in milliseconds since 1970: an id of a later time was not issued here.
    Never raises, whatever the text.
    """
    if text is None:
        return ClickIdFinding(Reason.CLICK_ID_MISSING)
    text = text[:_MAX_SEARCHED]
    return (
        _match_word(text.strip())
        or _repair(text, keys)
        or _find_inside(text, keys)
        or _match_shape(unwrap(text), now_ms)
    )


def unwrap(text: str) -> str:
    """The text without quotes and white space, wherever in it they are."""
    return _WRAPPING.sub("", text)


def _match_word(text: str) -> ClickIdFinding | None:
    """Texts that stand for "no id": nothing, a macro nobody filled, a test word."""
    bare = unwrap(text) if len(text) <= _SHORTEST_PREFIX else text
    word = bare.casefold()
    if word in _EMPTY:
        return ClickIdFinding(Reason.CLICK_ID_EMPTY)
    macro = _find_macro(text)
    if macro is not None:
        return ClickIdFinding(Reason.MACRO_LITERAL, hint=f"{macro} was sent as it is")
    if _TEST_WORD.fullmatch(word):
        return ClickIdFinding(Reason.TEST_EVENT)
    return None


def _find_macro(text: str) -> str | None:
    """The macro that the text is or holds; never the text around it, which may be anything."""
    if looks_like_macro(text):
        return text[:_MAX_QUOTED]
    unwrapped = unwrap(unquote(text))
    if looks_like_macro(unwrapped):
        return unwrapped[:_MAX_QUOTED]
    inside = _INSIDE_MACRO.search(text)
    return inside.group()[:_MAX_QUOTED] if inside else None


def _repair(text: str, keys: KeyRing) -> ClickIdFinding | None:
    """Take encoding, quotes and white space off until the id verifies."""
    for _ in range(_MAX_DECODINGS + 1):
        found = keys.verify(unwrap(text))
        if found is not None:
            return ClickIdFinding(Reason.CLICK_ID_DOUBLE_ENCODED, *found, repaired=True)
        if "%" not in text:
            return None
        text = unquote(text)
    return None


def _find_inside(text: str, keys: KeyRing) -> ClickIdFinding | None:
    """An id of ours with something in front of it or behind it."""
    plain = unwrap(unquote(text))
    for run in _RUN.findall(plain) + _RUN.findall(plain.replace("-", "")):
        for part in (run[:TEXT_LENGTH], run[-TEXT_LENGTH:]):
            found = keys.verify(part)
            if found is not None:
                return ClickIdFinding(
                    Reason.CLICK_ID_ALTERED,
                    *found,
                    hint="a genuine click id with other text in front of it or behind it",
                )
    return None


def _match_shape(text: str, now_ms: int) -> ClickIdFinding:
    """The rest, told apart by alphabet, length and the time that the first characters spell."""
    compact = text.replace("-", "")
    if len(compact) == TEXT_LENGTH:
        spelled, changed = _NOT_BASE32.subn("0", compact)
        if changed <= 1 and _is_ours(spelled, now_ms):
            return ClickIdFinding(Reason.CLICK_ID_ALTERED)
    elif _is_beginning(compact, now_ms):
        hint = f"{len(compact)} of {TEXT_LENGTH} characters arrived"
        return ClickIdFinding(Reason.CLICK_ID_TRUNCATED, hint=hint)
    return ClickIdFinding(Reason.CLICK_ID_FOREIGN, hint=_name_shape(text, now_ms))


def _is_beginning(compact: str, now_ms: int) -> bool:
    """Whether the text can be the first characters of an id of ours; our writer never makes ``i l o u``."""
    return (
        _SHORTEST_PREFIX <= len(compact) < TEXT_LENGTH
        and _STRICT.fullmatch(compact) is not None
        and _is_ours(compact.ljust(TEXT_LENGTH, "0"), now_ms)
    )


def _is_ours(spelled: str, now_ms: int) -> bool:
    """Whether 26 characters begin with a time at which we can have issued ids."""
    number = read_unverified(spelled)
    if number is None or _is_ulid(number, now_ms):
        return False
    return _EARLIEST_MS <= stamp_ms(number >> 64) <= now_ms + _DAY_MS


def _is_ulid(number: int, now_ms: int) -> bool:
    return _ULID_FROM_MS <= number >> 80 <= now_ms + _DAY_MS


def _name_shape(text: str, now_ms: int) -> str | None:
    for pattern, hint in _SHAPES:
        if pattern.fullmatch(text):
            return hint
    number = read_unverified(text)
    if number is not None and _is_ulid(number, now_ms):
        return "a ULID"
    if len(text) < _SHORTEST_PREFIX:
        return f"{len(text)} characters: too short to be one of ours"
    return None
