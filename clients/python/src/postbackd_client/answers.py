"""What an answer means: counted, refused for good, or worth another try.

postbackd says what became of a conversion (``Postbackd-Verdict``, or JSON in the body); of other trackers the status
has to do, and a text in the body where one is known to answer 200 to what it refuses.

Nothing here sends anything or knows the time: what an HTTP date means is told with the present moment.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, List, Mapping, Optional, Pattern

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
UPDATED = "updated"
HELD = "held"
UNMATCHED = "unmatched"
REJECTED = "rejected"
DELIVERED = "delivered"
"""A 2xx of a tracker that says no more."""
RETRY = "retry"
REFUSED = "refused"

_VERDICTS = frozenset({ACCEPTED, DUPLICATE, UPDATED, HELD, UNMATCHED, REJECTED})
_QUEUED = "queued"
_RETRIED = frozenset({408, 425, 429})
"""Statuses of the sender's kind that ask for patience: RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4."""
LONGEST_WAIT_S = 3_600
"""Of a Retry-After: one odd answer, maybe of something that stands before the tracker, must not stop a day's
sending."""


@dataclass(frozen=True)
class Outcome:
    """What became of one conversion that was sent."""

    kind: str
    """One of the words above."""
    status: int = 0
    """Of HTTP; 0 when there was no answer."""
    verdict: str = ""
    """postbackd's word, empty with other trackers."""
    reason: str = ""
    """Why it was not counted, or why it has to be tried again."""
    retry_after_s: Optional[float] = None
    """How long the tracker asks to be left alone."""
    request_id: str = ""
    """Under which ``postbackd why`` explains it."""

    @property
    def settled(self) -> bool:
        """Whether nothing remains to be done; otherwise it has to be sent again."""
        return self.kind != RETRY

    @property
    def counted(self) -> bool:
        """Whether the tracker has taken it, as far as it says."""
        return self.kind in (ACCEPTED, DUPLICATE, UPDATED, DELIVERED)


@dataclass(frozen=True)
class Meaning:
    """What is to be read in a tracker's 2xx."""

    names_verdict: bool = False
    """Every answer of it does.  One that does not was given by something in front of it, which stores nothing."""

    failure: Optional[Pattern[str]] = None
    """How its body says that it took nothing."""
    duplicate: Optional[Pattern[str]] = None
    """Looked for first: a repeat of what is counted already is no failure."""


SILENT = Meaning()
"""A 2xx is a success, whatever its body says."""

POSTBACKD = Meaning(names_verdict=True)


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, now_s: float, meaning: Meaning
) -> Outcome:
    """What an answer to one conversion means.  ``headers`` by lower-case name."""
    if 200 <= status < 300:
        return _read_success(status, headers, body, meaning)
    retry_after_s = read_retry_after(headers.get("retry-after", ""), now_s)
    if 400 <= status < 500 and status not in _RETRIED:
        document = _read_json(body)
        if document.get("verdict") == REJECTED:
            return _verdict(status, document)
        return Outcome(REFUSED, status, reason=f"the tracker answered {status}")
    told = f"the tracker answered {status}"
    if 300 <= status < 400:
        told += ", a redirect, which is not followed: set the URL that it leads to"
    return Outcome(RETRY, status, reason=told, retry_after_s=retry_after_s)


def _read_success(status: int, headers: Mapping[str, str], body: bytes, meaning: Meaning) -> Outcome:
    word = headers.get("postbackd-verdict", "")
    if word:
        document = {
            "verdict": word,
            "reason": headers.get("postbackd-reason", ""),
            "request": headers.get("x-request-id", ""),
        }
        return _verdict(status, document)
    found_document = _read_json(body)
    if isinstance(found_document.get("verdict"), str):
        return _verdict(status, found_document)
    text = body.decode("utf-8", "replace")
    if meaning.duplicate and meaning.duplicate.search(text):
        return Outcome(DUPLICATE, status)
    if meaning.failure and (found := meaning.failure.search(text)):
        return Outcome(REFUSED, status, reason=_printable(found.group(found.lastindex or 0)))
    if meaning.names_verdict:
        return Outcome(
            RETRY, status, reason="the answer names no verdict: something in front of postbackd gave it"
        )
    return Outcome(DELIVERED, status)


def _verdict(status: int, document: Mapping[str, Any]) -> Outcome:
    """``queued`` (the database is away; kept on the server's disk) is a promise to count: accepted."""
    word = _printable(document.get("verdict"))
    kind = word if word in _VERDICTS else ACCEPTED if word == _QUEUED else DELIVERED
    return Outcome(
        kind,
        status,
        word,
        _printable(document.get("reason")),
        request_id=_printable(document.get("request")),
    )


def read_batch(status: int, body: bytes, count: int) -> Optional[List[Outcome]]:
    """The outcomes of a batch in its order; ``None`` when the answer does not fit the batch: then nothing is known."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != count:
        return None
    if not all(isinstance(one, dict) and isinstance(one.get("verdict"), str) for one in found):
        return None
    return [_verdict(status, one) for one in found]


def no_answer(reason: str) -> Outcome:
    """Nothing is known of what became of it."""
    return Outcome(RETRY, reason=reason)


def read_retry_after(text: str, now_s: float) -> Optional[float]:
    """Seconds to wait by a Retry-After in seconds or as a date (RFC 9110 10.2.3); ``None`` when it is neither."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(min(int(text), LONGEST_WAIT_S))
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            return None
        return min(max(0.0, moment.timestamp() - now_s), float(LONGEST_WAIT_S))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _read_json(body: bytes) -> Mapping[str, Any]:
    if not body.lstrip().startswith(b"{"):
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _printable(text: Any) -> str:
    """A word of an answer as it may stand in a log: short, and on one line."""
    return "".join(c for c in str(text or "")[:200] if c.isprintable())
