"""Click ids that arrived damaged: what each may have been.  A person looks at it before anything is counted by it.

An id of ours is named only when it verifies after the repair, and only when nothing else in the postback verifies as
another click: two genuine ids are a choice, and nobody may make it but the sender.  A caller's own id has no check;
for it there are candidates, and the database must know exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from postbackd.core.click_id import TEXT_LENGTH, KeyRing, stamp_ms
from postbackd.core.click_ref import MAX_OWN_ID
from postbackd.core.diagnosis import unwrap
from postbackd.core.model import ClickRef, Postback


class Damage(StrEnum):
    """What was done to an id on its way."""

    ENCODED = "encoded more often than once"
    WRAPPED = "wrapped in white space or quotes"
    SURROUNDED = "other text in front of it or behind it"
    OTHER_FIELD = "sent in another field"
    CASE = "written in the other case"


class Mend(Struct, frozen=True):
    """An id as it may be used."""

    damage: Damage
    text: str
    """The id, as it would have been sent unharmed."""
    field: str = "click_id"
    """The canonical field that held it."""


MOST_DECODINGS = 5
"""Each hop may encode once more; the front door takes off three by itself."""

SHORTEST_CASED = 16
"""Characters that a caller's own id must have before another case of it is tried; and nothing may be stored that mixes
cases, for two such ids may differ in case alone (``reports.repairing``)."""

_RUN = re.compile(r"[0-9A-Za-z-]{26,}")


def mend_own(postback: Postback, keys: KeyRing) -> Mend | None:
    """The id of ours that a stored postback holds, when it verifies and no other does."""
    if postback.click.click_id is not None:
        return None  # the id is whole, something else is wrong
    found: dict[int, Mend] = {}
    for field, text in _fields(postback):
        for damage, stamp, campaign in _look_into(text, keys):
            told = damage if field == "click_id" else Damage.OTHER_FIELD
            found.setdefault(stamp, Mend(told, keys.write(stamp, campaign), field))
    if len(found) != 1:
        return None
    ((stamp, mend),) = found.items()
    if mend.field not in ("click_id", "transaction_id"):
        return None  # which other fields were mixed up, too, nobody knows
    # A click is made before its postback; nodes whose clocks differ may be a minute apart.
    late = stamp_ms(stamp) > stamp_ms(postback.request.request_id) + 60_000
    return None if late else mend


def _fields(postback: Postback) -> Iterator[tuple[str, str]]:
    """What was kept of a postback, field by field, the click id first."""
    terms = postback.terms
    for field, text in (
        ("click_id", postback.click_text),
        ("transaction_id", postback.transaction_text),
        ("type", terms.type_text),
        ("value", terms.value_text),
        ("currency", terms.currency_text),
        ("status", terms.status_text),
        ("time", postback.time_text),
    ):
        if text:
            yield field, text


def _look_into(text: str, keys: KeyRing) -> Iterator[tuple[Damage, int, int]]:
    """Every id of ours in the text: ``(damage, stamp, campaign)``."""
    damage = Damage.WRAPPED
    for _ in range(MOST_DECODINGS + 1):
        if verified := keys.verify(unwrap(text)):
            yield damage, *verified
            return
        if "%" not in text:
            break
        text, damage = unquote(text), Damage.ENCODED
    for run in _RUN.findall(text):
        yield from _look_into_run(run, keys)


def _look_into_run(run: str, keys: KeyRing) -> Iterator[tuple[Damage, int, int]]:
    """Ids of ours anywhere in a run of characters that could be theirs.

    A check of 40 bits fits a wrong place once in 10**12 tries, and a run of 255 characters has 230 places.
    """
    bare = run.replace("-", "")
    for start in range(len(bare) - TEXT_LENGTH + 1):
        if verified := keys.verify(bare[start : start + TEXT_LENGTH]):
            yield Damage.SURROUNDED, *verified


def own_id_candidates(text: str | None) -> tuple[Mend, ...]:
    """What a caller's own id may have been: the text without encoding, quotes and white space, or in the other case.

    Whoever calls must find exactly one of them stored.
    """
    if not text or len(text) > MAX_OWN_ID:
        return ()
    candidates: dict[str, Mend] = {}
    decoded, damage = text, Damage.WRAPPED
    for _ in range(MOST_DECODINGS + 1):
        for bare in (decoded.strip(), unwrap(decoded)):
            candidates.setdefault(bare, Mend(damage, bare))
        if "%" not in decoded:
            break
        decoded, damage = unquote(decoded), Damage.ENCODED
    for bare in tuple(candidates):
        if len(bare) >= SHORTEST_CASED and bare in (bare.lower(), bare.upper()):
            for other in (bare.lower(), bare.upper()):
                candidates.setdefault(other, Mend(Damage.CASE, other))
    candidates.pop(text, None)
    return tuple(mend for bare, mend in candidates.items() if bare)


def apply_mend(postback: Postback, mend: Mend) -> Postback:
    """The stored postback as if the id had arrived unharmed, to be judged again; nothing else of it changes."""
    emptied = {"transaction_text": None} if mend.field == "transaction_id" else {}
    return msgspec.structs.replace(postback, click=ClickRef(), click_text=mend.text, **emptied)
