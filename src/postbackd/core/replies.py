"""What an answer says about a delivery.

HTTP 200 is not acceptance: some sources answer 200 to everything and put the error into the body.  So a success is a
2xx status, and a body that fits the patterns of the target.  Redirects are not followed; they are failures.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from enum import IntEnum
from functools import lru_cache

from msgspec import Struct

from postbackd.core.deliveries import Answer
from postbackd.core.model import How

BODY_BYTES = 4096
"""How much of an answer is looked at."""

LONGEST_PAUSE_MS = 86_400_000
"""A longer Retry-After is cut to this: a target that says "in a year" is asked again tomorrow."""

EXCERPT_CHARACTERS = 200

_SLOW_DOWN = frozenset({429, 502, 504})
_GONE = 410
_UNAVAILABLE = 503
_LONGEST_PATTERN = 200
_MOST_PATTERNS = 20


class Outcome(IntEnum):
    """What became of an attempt."""

    DELIVERED = 1
    FAILED = 2
    """To be tried again, as long as the schedule lasts."""
    DEAD = 3
    """Trying again is useless."""


class Judged(Struct, frozen=True, gc=False):
    """An answer, understood."""

    outcome: Outcome
    reason: str = ""
    """Why it is no success, in a few words."""
    pause_target: bool = False
    """The target says that it is gone (410): stop sending to it until an operator looks."""
    slow_down: bool = False
    """The target, or what stands before it, is overloaded: fewer requests at a time."""
    retry_after_ms: int = 0
    """How long to wait at least, as the target asked for; 0: it did not."""


class PatternError(ValueError):
    """A body pattern that cannot be used; the message says why."""


def judge_answer(answer: Answer, how: How, now_ms: int) -> Judged:
    """What the answer to a delivery means, by the patterns and final statuses of its target."""
    status = answer.status
    if not status:
        return Judged(Outcome.FAILED, answer.error or "no answer")
    reason = _refusal(answer, how)
    if not reason:
        return Judged(Outcome.DELIVERED)
    wait_ms = read_retry_after(answer.headers.get("retry-after", ""), now_ms)
    return Judged(
        Outcome.DEAD if status in how.final else Outcome.FAILED,
        reason,
        pause_target=status == _GONE,
        slow_down=status in _SLOW_DOWN or (status == _UNAVAILABLE and wait_ms > 0),
        retry_after_ms=wait_ms,
    )


def _refusal(answer: Answer, how: How) -> str:
    """Why the answer is no success, empty when it is one."""
    status = answer.status
    if 300 <= status < 400:
        return f"HTTP {status}: redirects are not followed"
    if not 200 <= status < 300:
        return f"HTTP {status}"
    if not (how.success or how.failure):
        return ""
    text = answer.body[:BODY_BYTES].decode("utf-8", "replace")
    for pattern in compile_patterns(how.failure):
        if pattern.search(text):
            return f"HTTP {status}, but the answer fits the failure pattern {pattern.pattern!a}"
    successes = compile_patterns(how.success)
    if successes and not any(pattern.search(text) for pattern in successes):
        return f"HTTP {status}, but the answer fits no success pattern"
    return ""


def read_retry_after(text: str, now_ms: int) -> int:
    """Milliseconds to wait by a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).

    0 for nonsense, negative numbers and times in the past; at most a day.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Longer numbers are a day all the same, and int() need not read them.
        return min(int(text[:9]) * 1000, LONGEST_PAUSE_MS)
    if not text.endswith("GMT"):
        return 0
    try:
        at_ms = int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return 0
    return max(0, min(at_ms - now_ms, LONGEST_PAUSE_MS))


def excerpt(text: str, longest: int = EXCERPT_CHARACTERS) -> str:
    """The beginning of a text of the outside for the log, on one line and printable."""
    text = " ".join(text.split())
    return "".join(letter if letter.isprintable() else " " for letter in text[:longest])


# --- body patterns --------------------------------------------------------------------------------------------

_ATOM = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[aiLmsux-]+\)|\(\?(?:P<\w+>|<[=!]|[aiLmsux-]*:|[=!>])|.", re.DOTALL
)
_REPEAT = re.compile(r"[*+?]|\{[0-9,]+\}")
_UNBOUNDED = re.compile(r"[*+]|\{[0-9]*,\}")
_REFERENCE = re.compile(r"\\[1-9]|\(\?P=|\(\?\(|\(\?#")
_MOST_UNBOUNDED = 4


def check_patterns(patterns: Sequence[str]) -> None:
    """Raise ``PatternError`` for a pattern that is wrong, or could take very long on a hostile answer.

    Refused are a repeat of a group that repeats or chooses itself (``(a+)+``: exponential), references to groups,
    more than one ``.*`` and more than four ``*`` and ``+``.  What is left is polynomial, on 4 kB of text.
    """
    if len(patterns) > _MOST_PATTERNS:
        raise PatternError(f"there are {len(patterns)} patterns; {_MOST_PATTERNS} are the most")
    for pattern in patterns:
        what = _complaint(pattern)
        if what:
            raise PatternError(f"the pattern {pattern[:60]!a} {what}")


def _complaint(pattern: str) -> str:
    if not pattern or len(pattern) > _LONGEST_PATTERN:
        return f"is empty or has more than {_LONGEST_PATTERN} characters; a part of the answer is enough"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", FutureWarning
            )  # sets in sets, which will mean something else one day
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        return f"is no regular expression: {error}"
    if _REFERENCE.search(pattern):
        return "refers to a group or holds a comment; write out what is meant"
    atoms = _repeated_atoms(pattern)
    if atoms is None:
        return "repeats a group that repeats or chooses itself, which may take for ever; write it flat"
    if atoms.count(".") > 1:
        return "has more than one .*; make a pattern of each part"
    if len(atoms) > _MOST_UNBOUNDED:
        return f"has more than {_MOST_UNBOUNDED} times * or +; shorten it"
    return ""


def _repeated_atoms(pattern: str) -> list[str] | None:
    """What is repeated without a limit; ``None`` when it is a group that holds a repeat or a choice."""
    repeated = []
    busy = [False]  # of every open group: whether it holds a repeat or a choice
    last, last_busy = "", False
    position = 0
    while position < len(pattern):
        repeat = _REPEAT.match(pattern, position)
        found = repeat or _ATOM.match(pattern, position)
        assert found is not None  # the last choice of an atom is any character
        position = found.end()
        text = found[0]
        if repeat is not None:
            if last_busy and text != "?":
                return None
            if _UNBOUNDED.fullmatch(text):
                repeated.append(last)
            busy[-1] = True
            last, last_busy = text, False
            continue
        last, last_busy = text, False
        if text == "(" or (text.startswith("(?") and not text.endswith(")")):
            busy.append(False)
        elif text == ")":
            last_busy = busy.pop()
            busy[-1] |= last_busy
        elif text == "|":
            busy[-1] = True
    return repeated


@lru_cache(maxsize=1024)
def compile_patterns(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """The patterns of a target, compiled once; upper and lower case are told apart."""
    return tuple(re.compile(pattern) for pattern in patterns)
