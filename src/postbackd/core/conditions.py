"""Conditions: which conversions a rule fires on, written as text.

    type = sale, lead and value >= 10 USD and (country = DE, AT or offer = "Shoes & Co") and first

    ``type`` ``status`` ``country`` ``currency`` ``offer`` ``network`` ``campaign``
                  ``=`` or ``!=``, and one name or several
    ``value``     ``>=`` ``>`` ``<=`` ``<`` or ``=`` and an amount; with a currency it holds in that currency only
    ``first``     no conversion of the same click and type was counted before
    ``and`` ``or`` ``not`` and parentheses; ``not`` binds closest, then ``and``, then ``or``

- ``=`` holds when the field is one of the names, ``!=`` when it is none of them.
- A name with spaces, commas or signs, or that is ``and``, ``or`` or ``not``, stands in double or single quotes; the
  quote itself is written twice inside.  ``country = ""`` holds when the country is not known.
- Keywords, types, statuses, countries and currencies may be in either case; names of offers, networks and campaigns are
  compared as they are.
- A condition that says nothing of ``status`` means approved conversions; so empty text means all of these.

There is no test of the hour, of a share or of chance: a rule that withholds some of the conversions that it is for
would make the source's figures wrong on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import NoReturn

from msgspec import Struct

from postbackd.core.condition_parts import (
    ALWAYS,
    COMPARISONS,
    NAMED_FIELDS,
    RESERVED,
    Among,
    Amount,
    Boxes,
    Either,
    Every,
    FirstOnly,
    Not,
    Part,
    Subject,
    Test,
    TooManyBoxes,
    inner_parts,
    make_test,
    say_why_not,
    write_part,
)
from postbackd.core.money import CURRENCIES, read_micros
from postbackd.core.statuses import Status

MAX_LENGTH = 4_000
"""Longest condition, in characters."""

MAX_DEPTH = 50
"""Parentheses and ``not`` inside each other."""

_STATUS_WORDS = tuple(status.word for status in Status)
_APPROVED = Among("status", (Status.APPROVED.word,))
_CATALOG_FIELDS = ("offer", "network", "campaign")


class ConditionError(ValueError):
    """A text that is no condition.  The message says what was expected and what to do, and marks the place."""

    def __init__(self, text: str, at: int, problem: str) -> None:
        super().__init__(f"position {at + 1}: {problem}\n{_mark(text, at)}")
        self.position = at + 1
        """Counted in characters, from 1."""
        self.problem = problem
        """The message without the mark."""


_SHOWN = 60
"""Characters of a condition that are shown around a mistake."""


def _mark(text: str, at: int) -> str:
    """The text around a place, on one line, and a caret under it."""
    start = max(0, at - _SHOWN // 2)
    shown = re.sub(r"\s", " ", text[start : start + _SHOWN])
    shown = "".join(character if character.isprintable() else "?" for character in shown)
    before, after = "…" * (start > 0), "…" * (start + _SHOWN < len(text))
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + at - start)}^"


class Condition:
    """A condition, read once.  Does not change."""

    __slots__ = ("_stated", "_whole", "fields", "holds", "text")

    def __init__(self, text: str, stated: Part) -> None:
        """``stated``: what the text says, without the status that it implies."""
        self.text = text
        fields = {_field_of(part) for part in inner_parts(stated)} - {""}
        self._stated = stated
        if "status" not in fields:
            stated = Every((_APPROVED, *(stated.parts if isinstance(stated, Every) else (stated,))))
        self._whole = stated
        self.fields = frozenset(fields)
        """What the text tests: names of fields, ``value`` and ``first``."""
        self.holds: Test = make_test(self._whole)
        """``holds(subject)``: whether the rule fires on such a conversion."""

    @property
    def offers(self) -> frozenset[str]:
        """The offers that the text names."""
        return self.names("offer")

    def names(self, field: str) -> frozenset[str]:
        """What the text compares a field with."""
        return frozenset(name for part in _tests_of(self._stated, field) for name in part.names)

    def why_not(self, subject: Subject) -> str:
        """The first test that fails, in words; empty when the condition holds."""
        if self.holds(subject):
            return ""
        why = say_why_not(self._whole, subject)
        if "status" not in self.fields and subject.status != Status.APPROVED:
            why += "; a condition that names no status is for approved conversions"
        return why

    def warnings(
        self,
        offers: Collection[str] | None = None,
        networks: Collection[str] | None = None,
        campaigns: Collection[str] | None = None,
        reached: Collection[str] | None = None,
    ) -> list[str]:
        """What is doubtful: names that do not exist, a condition that never or always holds.

        ``offers``, ``networks``, ``campaigns``: all names that there are; ``None``: not looked at.  ``reached``: the
        campaigns whose conversions are tested at all, if not every one.  A condition so large that it cannot be looked
        through (see ``MAX_BOXES``) gets warnings about names only.
        """
        given = dict(zip(_CATALOG_FIELDS, (offers, networks, campaigns), strict=True))
        known = {field: names for field, names in given.items() if names is not None}
        found = [
            warning
            for field, names in known.items()
            for warning in _unknown_names(field, self.names(field), names)
        ]
        try:
            return found + self._judge(known, known if reached is None else {**known, "campaign": reached})
        except TooManyBoxes:
            return found

    def _judge(self, known: dict[str, Collection[str]], reached: dict[str, Collection[str]]) -> list[str]:
        boxes = Boxes(reached)
        if not boxes.of(self._whole):
            clashes = " and ".join(boxes.clashes)
            return [
                f"the rule can never fire: no conversion passes its tests of {clashes} at once; change one of them"
            ]
        if self._stated != ALWAYS and not Boxes(known).of(self._stated, negated=True):
            which = "conversion, whatever its status" if "status" in self.fields else "approved conversion"
            return [f"the condition holds for every {which}; was something left out?"]
        if not isinstance(self._stated, Either):
            return []
        return [
            f"{write_part(part)} never holds, so this part of the condition has no effect; change it or leave it out"
            for part in self._stated.parts
            if not Boxes(known).of(part)
        ]


def _field_of(part: Part) -> str:
    match part:
        case Among():
            return part.field
        case Amount():
            return "value"
        case FirstOnly():
            return "first"
        case _:
            return ""


def _tests_of(part: Part, field: str) -> Iterable[Among]:
    return (inner for inner in inner_parts(part) if isinstance(inner, Among) and inner.field == field)


def _unknown_names(field: str, named: Collection[str], known: Collection[str]) -> list[str]:
    return [_say_unknown(field, name, known) for name in sorted(named) if name not in known]


def _say_unknown(field: str, name: str, known: Collection[str]) -> str:
    folded = {other.casefold(): other for other in known}
    close = get_close_matches(name.casefold(), folded, 1, cutoff=0.75)
    hint = f"did you mean {folded[close[0]]!r}?" if close else f"'postbackd {field} list' shows all"
    return f"there is no {field} {name!r}; {hint}"


def compile_condition(text: str) -> Condition:
    """Read a condition.  Raises ``ConditionError``."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(
            text, MAX_LENGTH, f"a condition has at most {MAX_LENGTH} characters; make two rules of it"
        )
    return Condition(text, _Reader(text).read() if text.strip() else ALWAYS)


# --- reading ---------------------------------------------------------------------------------------------------


class _Token(Struct, frozen=True):
    kind: str
    """``word``, ``quoted``, ``sign``, or ``end``."""
    text: str
    """A quoted name without its quotes."""
    at: int

    @property
    def keyword(self) -> str:
        """A word in lower case, a sign as it is; empty for a quoted name and at the end."""
        return "" if self.kind in ("quoted", "end") else self.text.lower()

    @property
    def shown(self) -> str:
        return (
            "the end" if self.kind == "end" else ascii(self.text) if len(self.text) < 40 else "a longer text"
        )


_TOKEN = re.compile(
    r"""\s*(?: (?P<sign> >=|<=|!=|[=<>(),] )
          | "(?P<double> (?:[^"]|"")* )"
          | '(?P<single> (?:[^']|'')* )'
          | (?P<word> [^\s()=!<>,"'][^\s()=!<>,"]* )
        )""",
    re.VERBOSE,
)


def _split(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    end = 0
    text = text.rstrip()
    while end < len(text):
        found = _TOKEN.match(text, end)
        if found is None:
            at = end + len(text[end:]) - len(text[end:].lstrip())
            raise ConditionError(text, at, _say_bad_character(text[at]))
        kind = found.lastgroup or ""
        at, end = found.start(kind), found.end()
        word = found[kind]
        if kind in ("double", "single"):
            quote = '"' if kind == "double" else "'"
            kind, at, word = "quoted", at - 1, word.replace(quote * 2, quote)
        if not word.isprintable():
            raise ConditionError(text, at, "a character that cannot be printed; remove it")
        tokens.append(_Token(kind, word, at))
    tokens.append(_Token("end", "", end))
    return tokens


def _say_bad_character(character: str) -> str:
    if character in "\"'":
        return f"a quote that is not closed; write {character} after the name too"
    return "a single !; write != for 'is none of', and 'not' before a test"


_EXAMPLES = "write for example: type = sale, lead and value >= 10 USD"
_WITHHOLDING = (
    "share percent percentage probability chance random sample rate throttle hour time day weekday date"
)
_NOT_OFFERED = frozenset(_WITHHOLDING.split())
_AMOUNT = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]{0,6})?|\.[0-9]{1,6}))([A-Za-z]{3})?")


class _Reader:
    """Reads the tokens of one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _split(text)
        self._next = 0
        self._depth = 0

    def read(self) -> Part:
        part = self._either()
        token = self._peek()
        if token.kind != "end":
            self._fail(token, self._say_unexpected(token))
        return part

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _take_if(self, keyword: str) -> bool:
        if self._peek().keyword != keyword:
            return False
        self._next += 1
        return True

    def _fail(self, token: _Token, problem: str) -> NoReturn:
        raise ConditionError(self._text, token.at, problem)

    def _say_unexpected(self, token: _Token) -> str:
        if token.keyword == ")":
            return "a closing parenthesis without an opening one; remove it"
        if token.kind == "sign" and self._next > 1 and self._tokens[self._next - 2].keyword == ",":
            return "a comma goes between the names of one test; join two tests with 'and' or 'or'"
        if token.kind == "word":
            return (
                f"expected 'and', 'or' or the end, not {token.shown}; put a name of several words in quotes"
            )
        return f"expected 'and', 'or' or the end, not {token.shown}"

    def _either(self) -> Part:
        parts = [self._every()]
        while self._take_if("or"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _every(self) -> Part:
        parts = [self._not()]
        while self._take_if("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _not(self) -> Part:
        token = self._peek()
        if token.keyword not in ("not", "("):
            return self._test()
        self._next += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(token, f"more than {MAX_DEPTH} parentheses inside each other; make two rules of it")
        part = Not(self._not()) if token.keyword == "not" else self._closed(token)
        self._depth -= 1
        return part

    def _closed(self, opening: _Token) -> Part:
        part = self._either()
        token = self._peek()
        if token.kind == "end":
            self._fail(opening, "a parenthesis that is not closed; write ) after the last test in it")
        if not self._take_if(")"):
            self._fail(token, self._say_unexpected(token).replace("the end", "')'"))
        return part

    def _test(self) -> Part:
        token = self._take()
        field = token.keyword
        if field == "first":
            return FirstOnly()
        if field == "value":
            return self._amount()
        if field not in NAMED_FIELDS:
            self._fail(token, self._say_no_field(token))
        sign = self._take()
        if sign.keyword not in ("=", "!="):
            self._fail(
                sign, f"expected = or != after {field}, not {sign.shown}; write for example: {field} = x, y"
            )
        names = [self._name(field)]
        while self._take_if(","):
            names.append(self._name(field))
        return Among(field, tuple(dict.fromkeys(names)), sign.keyword == "!=")

    @staticmethod
    def _say_no_field(token: _Token) -> str:
        if token.keyword in _NOT_OFFERED:
            return (
                f"there is no test of {token.keyword}: a rule does not withhold a share of its conversions, nor by "
                "the hour; use delay to send later"
            )
        fields = ", ".join((*NAMED_FIELDS, "value", "first"))
        return f"expected a test ({fields}), 'not' or '(', not {token.shown}; {_EXAMPLES}"

    def _name(self, field: str) -> str:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            self._fail(token, f"expected a name, not {token.shown}; {_EXAMPLES}")
        if token.keyword in RESERVED:
            self._fail(
                token, f"expected a name, not {token.shown}; put it in quotes if the name is that word"
            )
        name, problem = _read_name(field, token.text.strip())
        if problem:
            self._fail(token, problem)
        return name

    def _amount(self) -> Part:
        sign = self._take()
        if sign.keyword not in COMPARISONS:
            self._fail(
                sign,
                f"expected >=, >, <=, < or = after value, not {sign.shown}; write for example: value >= 10 USD",
            )
        token = self._take()
        found = _AMOUNT.fullmatch(token.text) if token.kind == "word" else None
        micros = read_micros(found[1], "") if found else None
        if found is None or micros is None:
            self._fail(
                token,
                f"expected an amount with at most 6 decimals, not {token.shown}; write for example: 12.50 USD",
            )
        if self._peek().keyword == ",":
            self._fail(
                self._peek(), "an amount has no comma; write decimals with a dot, thousands without a sign"
            )
        return Amount(sign.keyword, micros, self._currency(token.at, found[2] or ""))

    def _currency(self, at: int, code: str) -> str:
        token = self._peek()
        if not code and token.kind == "word" and token.keyword not in RESERVED:
            code, at = self._take().text, token.at
        if code and code.upper() not in CURRENCIES:
            raise ConditionError(
                self._text,
                at,
                f"{code!a} is no ISO 4217 currency; write one like USD or EUR, or join with 'and'",
            )
        return code.upper()


def _read_name(field: str, name: str) -> tuple[str, str]:
    """The name as a ``Subject`` has it, and what is wrong with it."""
    if field == "country":
        fits = not name or (len(name) == 2 and name.isascii() and name.isalpha())
        return (
            name.upper(),
            "" if fits else f'{name!a} is no country; write its two letters, or "" for not known',
        )
    if not name:
        return name, f"an empty {field}; write its name"
    if field == "status":
        word = name.lower()
        return word, "" if word in _STATUS_WORDS else f"{name!a} is no status; use {', '.join(_STATUS_WORDS)}"
    if field == "currency":
        code = name.upper()
        return (
            code,
            "" if code in CURRENCIES else f"{name!a} is no ISO 4217 currency; write one like USD or EUR",
        )
    return (name.casefold() if field == "type" else name), ""
