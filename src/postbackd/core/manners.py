"""How an endpoint behaves, judged by its answers: repeats, copies in parallel, unknown ids, bad input.

A judgement is right, wrong, or not known: most trackers answer 2xx to everything and do not say what they counted.
What is not said is not guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from postbackd.core.exchange import COUNTED, Exchange, Said, describe, read_said

_SAYS_REPEAT = re.compile(rb"\b(?:duplicate|already)\b", re.IGNORECASE)
"""In the body of an endpoint that names no verdict."""


class Checked(Struct, frozen=True, kw_only=True):
    """One thing that was tried."""

    check: str
    ok: bool | None
    """``None``: the answers do not say."""
    detail: str

    @property
    def word(self) -> str:
        return {True: "right", False: "wrong", None: "not told"}[self.ok]


def judge_repeat(answers: Sequence[Exchange], check: str = "duplicate") -> Checked:
    """The same postback, sent again after it was answered: the first answer, then the others."""
    first, *others = answers
    if not first.ok:
        return Checked(check=check, ok=None, detail=f"could not be tried: {describe(first)}")
    bad = next((one for one in others if not one.ok), None)
    if bad is not None:
        detail = f"a repeat is answered with an error ({describe(bad)}): senders that retry go on retrying"
        return Checked(check=check, ok=False, detail=detail)
    said = [read_said(one) for one in answers]
    if said[0].is_test:
        detail = "a test is counted nowhere: give click ids of the endpoint to see"
        return Checked(check=check, ok=None, detail=detail)
    if not said[0].verdict:
        return _judge_silent(check, others)
    return _judge_verdicts(check, said)


def _judge_silent(check: str, others: Sequence[Exchange]) -> Checked:
    if all(_SAYS_REPEAT.search(one.body) for one in others):
        return Checked(check=check, ok=True, detail="the answer to the repeat says so")
    detail = "answered 2xx each time, and not said whether it was counted twice; look into its report"
    return Checked(check=check, ok=None, detail=detail)


def _judge_verdicts(check: str, said: Sequence[Said]) -> Checked:
    first, *others = said
    if first.verdict not in (*COUNTED, "duplicate"):
        detail = f"could not be tried: {first.verdict} {first.reason}".strip()
        return Checked(check=check, ok=None, detail=detail)
    again = [one for one in others if one.verdict in ("accepted", "queued")]
    new = [one for one in again if one.conversion != first.conversion or not one.conversion]
    if new:
        named = f": {first.conversion or 'unnamed'} and {new[0].conversion or 'unnamed'}"
        return Checked(check=check, ok=False, detail=f"counted again as another conversion{named}")
    odd = next((one for one in others if _names_another(first, one)), None)
    if odd is not None:
        detail = f"called {odd.verdict}, but of another conversion ({odd.conversion})"
        return Checked(check=check, ok=False, detail=detail)
    words = Counter(one.verdict or "no verdict" for one in others)
    if set(words) & {"rejected", "unmatched", "no verdict"}:
        detail = f"answered {', '.join(sorted(words))}, not duplicate"
        return Checked(check=check, ok=False, detail=detail)
    return Checked(check=check, ok=True, detail=f"{first.verdict}, then {', '.join(sorted(words))}")


def _names_another(first: Said, other: Said) -> bool:
    return bool(first.conversion and other.conversion and first.conversion != other.conversion)


def judge_parallel(answers: Sequence[Exchange], check: str = "parallel copies") -> Checked:
    """Copies of one new postback that were sent at the same time: exactly one is a new conversion."""
    count = len(answers)
    failed = [one for one in answers if not one.ok]
    if failed:
        detail = f"{len(failed)} of {count} copies failed ({describe(failed[0])})"
        return Checked(check=check, ok=False, detail=detail)
    said = [read_said(one) for one in answers]
    if any(one.is_test for one in said):
        return judge_repeat(answers, check)
    if not all(one.verdict for one in said):
        if sum(_SAYS_REPEAT.search(one.body) is not None for one in answers) == count - 1:
            return Checked(
                check=check, ok=True, detail=f"all but one of {count} copies were called duplicates"
            )
        detail = f"{count} copies were answered 2xx, and not said how many were counted"
        return Checked(check=check, ok=None, detail=detail)
    accepted = [one for one in said if one.verdict in ("accepted", "queued")]
    names = {one.conversion for one in said if one.conversion}
    counted = max(len({one.conversion or str(number) for number, one in enumerate(accepted)}), len(names))
    if counted > 1:
        return Checked(
            check=check, ok=False, detail=f"{count} copies at once were counted as {counted} conversions"
        )
    if not accepted:
        return Checked(
            check=check, ok=None, detail=f"could not be tried: {said[0].verdict} {said[0].reason}".strip()
        )
    return Checked(check=check, ok=True, detail=f"{count} copies at once were counted once")


def judge_unknown(answer: Exchange, check: str = "unknown id") -> Checked:
    """A click id that nobody issued."""
    return _judge_useless(answer, check, "an id that nobody issued")


def judge_bad(answer: Exchange, check: str) -> Checked:
    """A postback that cannot be used: whoever sent it has to learn of it."""
    return _judge_useless(answer, check, "it")


def _judge_useless(answer: Exchange, check: str, what: str) -> Checked:
    if answer.error:
        return Checked(check=check, ok=False, detail=f"no answer ({answer.kind}: {answer.error})")
    if answer.status >= 500:
        detail = f"HTTP {answer.status}: senders take it for an outage, and retry"
        return Checked(check=check, ok=False, detail=detail)
    if answer.status >= 400:
        return Checked(check=check, ok=True, detail=f"refused with HTTP {answer.status}")
    said = read_said(answer)
    if said.is_test:
        return Checked(check=check, ok=None, detail="recognised as a test before anything else")
    if said.verdict in COUNTED:
        return Checked(check=check, ok=False, detail=f"{what} was {said.verdict}, as if it were right")
    if said.verdict:
        return Checked(
            check=check, ok=True, detail=f"{said.verdict}{f': {said.reason}' if said.reason else ''}"
        )
    return Checked(check=check, ok=None, detail=f"HTTP {answer.status} without a word on what became of it")
