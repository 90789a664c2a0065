"""Checks of what arrives for the first time: status words, unfilled macros, parameters, senders.

``Memory`` remembers every word that ever arrived, by network and kind, so that "first" means first: once its alarm is
over the same word raises none again unless it has been away for ``FORGET_MS``.

Of parameters that are not mapped the front door notes some names (``core.unmapped``), once an hour each, and of every
request how many parameters it had: a name that never came, or more parameters than ever before, are a new one.  A word
of that kind is a name, or a number in digits; no name begins with a digit.  Of a sender only the truncated address is
known, and only where a step of the network's own list did not pass it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from postbackd.core.alarms import DAY_MS, Judgement, Key, Kind, Scope, Sighting
from postbackd.core.moments import write_moment

FORGET_MS = 30 * DAY_MS
"""A word that was away for so long is new again."""

LEARNING_MS = 7 * DAY_MS
"""Which parameters a network sends is learned for so long; its rarest kind of postback should have come by then."""

LEAST_LEARNED = 50
"""Postbacks that are learned from."""

_SHOWN = 5
_LONGEST = 60
"""Words, and characters of one, that a sentence shows."""


class Word(Struct, frozen=True, kw_only=True):
    """One thing that a network sent."""

    kind: Kind
    network: int
    word: str
    first_ms: int
    """When it came first; 0: while we were learning what is usual."""
    last_ms: int
    count: int


class Memory:
    """What has been seen.  ``meet`` notes what arrived; ``check`` says what of it is new."""

    def __init__(self, words: Iterable[Word] = ()) -> None:
        self._words = {(word.kind, word.network, word.word): word for word in words}
        self._changed: dict[tuple[Kind, int, str], Word] = {}

    def meet(
        self, kind: Kind, network: int, word: str, at_ms: int, count: int, *, is_usual: bool = False
    ) -> None:
        """A network sent a word so many times, the last time at ``at_ms``; ``is_usual``: it is no news."""
        place = (kind, network, word[:_LONGEST])
        known = self._words.get(place)
        if known is not None and at_ms - known.last_ms > FORGET_MS:
            known = None
        met = Word(
            kind=kind,
            network=network,
            word=place[2],
            first_ms=known.first_ms if known else 0 if is_usual else at_ms,
            last_ms=max(at_ms, known.last_ms) if known else at_ms,
            count=count + (known.count if known else 0),
        )
        self._words[place] = self._changed[place] = met

    def take_changed(self) -> Sequence[Word]:
        """What has to be stored."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def most_parameters(self, network: int, before_ms: int) -> int:
        """The largest number of parameters of a request that was known before a time."""
        words = self.of(Kind.PARAMETER, network)
        return max((_number(word) for word in words if word.first_ms < before_ms), default=0)

    def of(self, kind: Kind, network: int) -> list[Word]:
        """The words of a network, the latest first."""
        found = [word for word in self._words.values() if word.kind is kind and word.network == network]
        return sorted(found, key=lambda word: -word.last_ms)

    def check(self, network: int, name: str, lasting: Collection[Key], now_ms: int) -> Iterable[Sighting]:
        """One sighting of each kind."""
        for kind in (Kind.STATUS, Kind.MACRO, Kind.PARAMETER, Kind.SENDER):
            key = Key(kind, Scope.NETWORK, network)
            lately = [word for word in self.of(kind, network) if now_ms - word.last_ms < DAY_MS]
            fresh = [word for word in lately if word.first_ms and now_ms - word.first_ms < DAY_MS]
            if kind is Kind.PARAMETER:
                most = self.most_parameters(network, now_ms - DAY_MS)
                fresh = [word for word in fresh if _is_named(word) or _number(word) > most]
            # An alarm lasts for as long as anything of its kind arrives that is not simply usual.
            # A new parameter does no harm: once it has been known for as long as the usual ones it is usual.
            since_ms = now_ms - LEARNING_MS if kind is Kind.PARAMETER else 0
            told = fresh or ([word for word in lately if word.first_ms > since_ms] if key in lasting else [])
            if told:
                yield _SAY[kind](key, name, told, self)
            else:
                yield Sighting(key, Judgement.GOOD)


def _list(words: Sequence[Word]) -> str:
    shown = ", ".join(f"{word.word} ({word.count:,} times)" for word in words[:_SHOWN])
    return f"{shown} and {len(words) - _SHOWN} more" if len(words) > _SHOWN else shown


def _say_status(key: Key, name: str, words: Sequence[Word], _: Memory) -> Sighting:
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{name} sends a status that nobody has explained: {_list(words)}",
        normal="every status word is known or mapped; these postbacks were kept as pending",
        todo=f"map it with 'postbackd network set {name} --status-word {words[0].word}=approved' (or rejected, "
        "reversed), then run 'postbackd replay'",
    )


def _say_macro(key: Key, name: str, words: Sequence[Word], _: Memory) -> Sighting:
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{name} sends a macro instead of its value: {_list(words)}",
        normal="a network puts the click's id and the amount in place of its macros",
        todo="correct the macro in the postback URL at the network (its own spelling of it: 'postbackd presets'); what "
        "came without a click id cannot be counted, so have it sent again",
        urgent=True,
    )


def _is_named(word: Word) -> bool:
    return not word.word.isdecimal()


def _number(word: Word) -> int:
    """How many parameters a request had; 0: the word is a name."""
    return 0 if _is_named(word) else int(word.word)


def _say_parameter(key: Key, name: str, words: Sequence[Word], memory: Memory) -> Sighting:
    named = sorted((word for word in words if _is_named(word)), key=lambda word: word.first_ms)
    return _say_names(key, name, named) if named else _say_number(key, name, words, memory)


def _say_names(key: Key, name: str, words: Sequence[Word]) -> Sighting:
    shown = ", ".join(f"{word.word} since {_say_minute(word.first_ms)}" for word in words[:_SHOWN])
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{name} sends {'a new parameter' if len(words) == 1 else 'new parameters'}: {shown}{more}",
        normal="it sends what is mapped, and what it has always sent; values that are not mapped are not kept",
        todo="ask the network what it means, and map it if it is of use: "
        f"'postbackd network set {name} --field FIELD={words[0].word}'",
    )


def _say_minute(at_ms: int) -> str:
    return write_moment(at_ms)[:16].replace("T", " ") + " UTC"


def _say_number(key: Key, name: str, words: Sequence[Word], memory: Memory) -> Sighting:
    most = max(map(_number, words))
    usual = max((_number(w) for w in memory.of(Kind.PARAMETER, key.subject) if w not in words), default=0)
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{name} sends requests with {most} parameters ({sum(word.count for word in words):,} times)",
        normal=f"at most {usual}; the name of what is new did not come twice, or is none that is kept",
        todo="ask the network what it added (its postback URL shows the name), and map it if it is of use: "
        f"'postbackd network set {name} --field'",
    )


def _say_sender(key: Key, name: str, words: Sequence[Word], _: Memory) -> Sighting:
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"postbacks of {name} come from {_list(words)}",
        normal="they come from the addresses on the network's list (of others only the first part is kept)",
        todo="if the network confirms the address, add it: 'postbackd network set NAME --allow-ip'; if not, somebody "
        "else knows its endpoint key: 'postbackd network rotate NAME key'",
        urgent=True,
    )


_SAY = {
    Kind.STATUS: _say_status,
    Kind.MACRO: _say_macro,
    Kind.PARAMETER: _say_parameter,
    Kind.SENDER: _say_sender,
}


def is_learning(began_ms: int, postbacks: int, at_ms: int) -> bool:
    """Whether it is still being learned which parameters a network sends."""
    return not began_ms or at_ms - began_ms < LEARNING_MS or postbacks < LEAST_LEARNED


def name_of(names: Mapping[tuple[str, int], str], scope: Scope, subject: int) -> str:
    """What people call a subject."""
    if scope is Scope.SERVER:
        return "this server"
    return names.get((scope, subject)) or f"{scope} {subject}"
