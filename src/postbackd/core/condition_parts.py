"""The parts of a rule's condition: tests of a conversion, and what joins them.

Here is decided when a part holds, how it is written, why it fails, and which conversions it can hold for at all.  How
conditions are read from text is in ``core.conditions``.

*Boxes* answer whether a part can hold: a condition is written as an "or" of boxes, each of which says of every field
what it may be.  A box in which a field may be nothing at all is left out; when none is left, the part never holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from operator import attrgetter, eq, ge, gt, le, lt

from msgspec import Struct

from postbackd.core.money import CURRENCIES, write_micros
from postbackd.core.statuses import Status

NAMED_FIELDS = ("type", "status", "offer", "country", "currency", "network", "campaign")
"""The fields that are compared with a list of words."""

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {">=": ge, ">": gt, "<=": le, "<": lt, "=": eq}

RESERVED = frozenset({"and", "or", "not"})
"""Words that must be quoted to be a value."""

MAX_BOXES = 1024
"""Conditions that need more boxes are not looked through, which bounds the work to a fraction of a second."""

_PLAIN = re.compile(r"[^\s()=!<>,\"'][^\s()=!<>,\"]*")


class Subject(Struct, frozen=True, gc=False):
    """What a condition can test: a conversion as it is now, and its click."""

    type: str
    """In lower case, as conversions are stored."""
    status: int
    value_micros: int
    currency: str
    offer: str
    network: str
    country: str | None
    """Two upper-case letters; ``None``: not known."""
    first: bool
    campaign: str = ""


class Among(Struct, frozen=True):
    """``type = sale, lead``: a field is one of the names, or (``others``) none of them."""

    field: str
    names: tuple[str, ...]
    """In the form in which a ``Subject`` has them; a status by its word, a country that is not known as ``""``."""
    others: bool = False


class Amount(Struct, frozen=True):
    """``value >= 10 USD``; with a currency it holds in that currency only."""

    comparison: str
    micros: int
    currency: str = ""


class FirstOnly(Struct, frozen=True):
    """``first``: no conversion of the same click and type was counted before."""


class Not(Struct, frozen=True):
    part: Part


class Every(Struct, frozen=True):
    """Joined by ``and``."""

    parts: tuple[Part, ...]


class Either(Struct, frozen=True):
    """Joined by ``or``."""

    parts: tuple[Part, ...]


Part = Among | Amount | FirstOnly | Not | Every | Either
Test = Callable[[Subject], bool]

ALWAYS = Every(())


def make_test(part: Part) -> Test:
    """The part as one function that says whether it holds."""
    match part:
        case Among():
            return _test_among(part)
        case Amount():
            return _test_amount(part)
        case FirstOnly():
            return attrgetter("first")
        case Not():
            inner = make_test(part.part)
            return lambda subject: not inner(subject)
        case Every():
            return _test_every(tuple(map(make_test, part.parts)))
        case Either():
            return _test_either(tuple(map(make_test, part.parts)))


def _test_among(part: Among) -> Test:
    get: Callable[[Subject], str | int | None] = attrgetter(part.field)
    names: frozenset[str | int | None] = frozenset(part.names)
    if part.field == "status":
        names = frozenset(Status[name.upper()] for name in part.names)
    elif part.field == "country":
        names = frozenset(name or None for name in part.names)
    if part.others:
        return lambda subject: get(subject) not in names
    return lambda subject: get(subject) in names


def _test_amount(part: Amount) -> Test:
    compare, micros, currency = COMPARISONS[part.comparison], part.micros, part.currency
    if currency:
        return lambda subject: subject.currency == currency and compare(subject.value_micros, micros)
    return lambda subject: compare(subject.value_micros, micros)


def _test_every(tests: tuple[Test, ...]) -> Test:
    """Halves of halves: no loop for the usual two tests, no deep nesting for hundreds."""
    if len(tests) <= 1:
        return tests[0] if tests else lambda subject: True
    left, right = _test_every(tests[: len(tests) // 2]), _test_every(tests[len(tests) // 2 :])
    return lambda subject: left(subject) and right(subject)


def _test_either(tests: tuple[Test, ...]) -> Test:
    if len(tests) == 1:
        return tests[0]
    left, right = _test_either(tests[: len(tests) // 2]), _test_either(tests[len(tests) // 2 :])
    return lambda subject: left(subject) or right(subject)


def inner_parts(part: Part) -> Iterator[Part]:
    """The part itself and all that it is made of."""
    yield part
    if isinstance(part, Not):
        yield from inner_parts(part.part)
    elif isinstance(part, Every | Either):
        for inner in part.parts:
            yield from inner_parts(inner)


# --- in words --------------------------------------------------------------------------------------------------


def write_part(part: Part) -> str:
    """The part as text that reads back as the same."""
    match part:
        case Among():
            return f"{part.field} {'!=' if part.others else '='} {', '.join(map(_write_name, part.names))}"
        case Amount():
            return f"value {part.comparison} {write_micros(part.micros)} {part.currency}".rstrip()
        case FirstOnly():
            return "first"
        case Not():
            return f"not ({write_part(part.part)})"
        case Every():
            return " and ".join(
                f"({write_part(inner)})" if isinstance(inner, Either) else write_part(inner)
                for inner in part.parts
            )
        case Either():
            return " or ".join(map(write_part, part.parts))


def _write_name(name: str) -> str:
    if _PLAIN.fullmatch(name) and name.lower() not in RESERVED:
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def say_why_not(part: Part, subject: Subject) -> str:
    """The first test that fails, in words; only for a part that does not hold."""
    match part:
        case Every():
            first = next((inner for inner in part.parts if not make_test(inner)(subject)), part)
            return say_why_not(first, subject) if first is not part else ""
        case Either():
            return "; and ".join(say_why_not(inner, subject) for inner in part.parts)
        case Not():
            return f"{write_part(part)} fails, for {write_part(part.part)} holds"
        case _:
            return f"{write_part(part)} fails: {_say_what_is(part, subject)}"


def _say_what_is(part: Among | Amount | FirstOnly, subject: Subject) -> str:
    if isinstance(part, FirstOnly):
        return "a conversion of this type was counted for the click before"
    if isinstance(part, Amount):
        return f"the value is {write_micros(subject.value_micros)} {subject.currency}".rstrip()
    if part.field == "status":
        return f"the status is {Status(subject.status).word}"
    found = getattr(subject, part.field)
    return f"the {part.field} is {_write_name(found)}" if found else f"the {part.field} is not known"


# --- can it hold? ----------------------------------------------------------------------------------------------


class TooManyBoxes(Exception):
    """The part would take more than ``MAX_BOXES`` boxes."""


class Choice(Struct, frozen=True):
    """What a field may be: one of the names, or (``others``) anything but them."""

    names: frozenset[str]
    others: bool = False


class Box(Struct, frozen=True):
    """Conversions of which each field alone is limited; a field that is not named may be anything."""

    low: int = 0
    """The smallest value in micros: no conversion is worth less than nothing."""
    high: int | None = None
    choices: Mapping[str, Choice] = {}


_ANYTHING = Box()


class Boxes:
    """Writes parts as boxes.  ``domains``: all that a field can be, where that is known."""

    def __init__(self, domains: Mapping[str, Collection[str]]) -> None:
        known = {"status": [status.word for status in Status], "currency": CURRENCIES, "first": ["yes", "no"]}
        self._domains = {field: frozenset(names) for field, names in (known | dict(domains)).items()}
        self.clashes: dict[str, None] = {}
        """The fields (and ``value``) that were found to be able to be nothing, in the order found."""

    def of(self, part: Part, *, negated: bool = False) -> list[Box]:
        """The boxes that the part (``negated``: its opposite) holds in.  Raises ``TooManyBoxes``."""
        match part:
            case Among():
                return self._one(Box(choices={part.field: _choice_of(part, negated=negated)}))
            case Amount():
                return self._of_amount(part, negated=negated)
            case FirstOnly():
                return self._one(Box(choices={"first": Choice(frozenset(["no" if negated else "yes"]))}))
            case Not():
                return self.of(part.part, negated=not negated)
            case Every() | Either():
                if isinstance(part, Every) is not negated:
                    return self._all_of(part.parts, negated=negated)
                return self._any_of(part.parts, negated=negated)

    def _any_of(self, parts: tuple[Part, ...], *, negated: bool) -> list[Box]:
        found: list[Box] = []
        for part in parts:
            found += self.of(part, negated=negated)
            if len(found) > MAX_BOXES:
                raise TooManyBoxes
        return found

    def _all_of(self, parts: tuple[Part, ...], *, negated: bool) -> list[Box]:
        found = [Box()]
        for part in parts:
            others = self.of(part, negated=negated)
            if len(found) * len(others) > MAX_BOXES:
                raise TooManyBoxes
            found = [box for one in found for other in others for box in self._one(one, other)]
        return found

    def _of_amount(self, part: Amount, *, negated: bool) -> list[Box]:
        currency = {"currency": Choice(frozenset([part.currency]))} if part.currency else {}
        if not negated:
            return self._one(_box_of_values(part, currency))
        found = [box for word in _OPPOSITE[part.comparison] for box in self.of(Amount(word, part.micros))]
        if part.currency:
            found += self.of(Among("currency", (part.currency,), others=True))
        return found

    def _one(self, one: Box, other: Box = _ANYTHING) -> list[Box]:
        """What both boxes hold in common: a box, or none."""
        high = (
            one.high if other.high is None else other.high if one.high is None else min(one.high, other.high)
        )
        low = max(one.low, other.low)
        if high is not None and low > high:
            self.clashes.setdefault("value")
            return []
        choices = dict(one.choices)
        for field, choice in other.choices.items():
            choices[field] = _meet(choices[field], choice) if field in choices else choice
        for field, choice in choices.items():
            if self._is_nothing(field, choice):
                self.clashes.setdefault(field)
                return []
        return [Box(low, high, choices)]

    def _is_nothing(self, field: str, choice: Choice) -> bool:
        domain = self._domains.get(field)
        if domain is None:
            return not (choice.names or choice.others)
        return domain <= choice.names if choice.others else domain.isdisjoint(choice.names)


_OPPOSITE = {">=": ("<",), ">": ("<=",), "<=": (">",), "<": (">=",), "=": ("<", ">")}


def _box_of_values(part: Amount, choices: Mapping[str, Choice]) -> Box:
    """The values that compare so, both ends included."""
    low = {">=": part.micros, ">": part.micros + 1, "=": part.micros}.get(part.comparison, 0)
    high = {"<=": part.micros, "<": part.micros - 1, "=": part.micros}.get(part.comparison)
    return Box(max(low, 0), high, choices)


def _choice_of(part: Among, *, negated: bool) -> Choice:
    return Choice(frozenset(part.names), part.others is not negated)


def _meet(one: Choice, other: Choice) -> Choice:
    """What a field may be when both limit it."""
    if one.others and other.others:
        return Choice(one.names | other.names, others=True)
    if one.others:
        return Choice(other.names - one.names)
    return Choice(one.names - other.names if other.others else one.names & other.names)
