"""Texts with macros, taken apart once and filled often: the parts of a request (see ``core.outgoing``).

Nothing here knows what a text is for.  A text is cut into tokens, so that the macros of other systems are opaque and
a separator inside of one separates nothing; values are encoded for the place they are put in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct

KNOWN: tuple[str, ...] = (
    *("click_id", "source_click_id", "type", "goal", "status", "value", "currency", "transaction_id"),
    *(f"sub{n}" for n in range(1, 11)),
    *("conversion_id", "delivery_id", "timestamp", "timestamp_ms", "time"),
    *("country", "campaign", "source", "network", "offer"),
)
"""The macros of a request, without their braces; ``{account.NAME}`` comes on top."""

_LISTED = (
    "{click_id}, {source_click_id}, {type}, {goal}, {status}, {value}, {currency}, {transaction_id}, "
    "{sub1} to {sub10}, {conversion_id}, {delivery_id}, {timestamp}, {timestamp_ms}, {time}, {country}, "
    "{campaign}, {source}, {network}, {offer} and {account.NAME}"
)
# The longest delimiter first.
_MACRO = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{[^{}]*\}\}|\$\{[^{}]*\}|\{([^{}]*)\}|[{}]")
_NUMBER_MACRO = re.compile(r"\{(value|timestamp|timestamp_ms):number\}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
ACCOUNT = "account."
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_URL_SAFE = _PRINTABLE.replace("#", "")
_HEADER_SAFE = " " + _PRINTABLE
_SHOWN_BEFORE, _SHOWN_PART, _SHOWN_AFTER = 20, 40, 10


class TemplateError(ValueError):
    """A request that cannot be used; the message marks the place and says what to do."""


class Place(NamedTuple):
    """A text of the request, and what it is called in messages."""

    name: str
    text: str

    def refuse(self, what: str, start: int, end: int) -> TemplateError:
        before = self.text[max(0, start - _SHOWN_BEFORE) : start]
        part = self.text[start : min(end, start + _SHOWN_PART)]
        shown = ascii(f"{before}>>{part}<<{self.text[end : end + _SHOWN_AFTER]}")
        return TemplateError(f"{self.name}, position {start + 1}, {shown}: {what}")

    def refuse_found(self, what: str, found: re.Match[str]) -> TemplateError:
        return self.refuse(what, found.start(), found.end())


# --- texts with macros ----------------------------------------------------------------------------------------

Encode = Callable[[str], str]


class Kind(IntEnum):
    LITERAL = 0
    FOREIGN = 1
    """The macro of another system, delimiters included."""
    OWN = 2
    """The name of one of ours."""


class Token(NamedTuple):
    text: str
    kind: Kind = Kind.LITERAL


def tokenize(place: Place, accounts: Collection[str], start: int = 0) -> list[Token]:
    """Literals and macros in turn.  Raises ``TemplateError`` for a macro that is not known and a single brace."""
    tokens, end = [], start
    for found in _MACRO.finditer(place.text, start):
        tokens.append(Token(place.text[end : found.start()]))
        tokens.append(_macro(place, found, accounts))
        end = found.end()
    tokens.append(Token(place.text[end:]))
    return tokens


def _macro(place: Place, found: re.Match[str], accounts: Collection[str]) -> Token:
    name: str | None = found[1]
    if name is None and len(found[0]) > 1:
        return Token(found[0], Kind.FOREIGN)
    if name is None:
        what = f"a single {found[0]}; write macros as {{click_id}}, and a literal brace as %7B or %7D"
        raise place.refuse_found(what, found)
    if name.startswith(ACCOUNT):
        account = name.removeprefix(ACCOUNT)
        if account in accounts:
            return Token(name, Kind.OWN)
        known = f"known are {', '.join(sorted(accounts))}" if accounts else "the target has none"
        raise place.refuse_found(f"no account value {account!r}; {known}; give it with the target", found)
    if name in KNOWN:
        return Token(name, Kind.OWN)
    what = (
        f"unknown macro {{{name}}}; known are {_LISTED}. Use one of these or leave it out "
        f"(write {{{{{name}}}}} or ${{{name}}} if the receiver fills it)"
    )
    raise place.refuse_found(what, found)


def split(tokens: list[Token], separator: str, at_most: int = -1) -> list[list[Token]]:
    """Cut at a character, where it is not a part of a macro."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind is not Kind.LITERAL:
            parts[-1].append(token)
            continue
        left = at_most if at_most < 0 else at_most + 1 - len(parts)
        first, *others = token.text.split(separator, left)
        parts[-1].append(Token(first))
        parts += [[Token(text)] for text in others]
    return parts


class Values:
    """Where the values of one request come from."""

    __slots__ = ("_accounts", "_shown", "_values")

    def __init__(self, values: Mapping[str, str | None], accounts: Mapping[str, str], *, shown: bool) -> None:
        self._values = values
        self._accounts = accounts
        self._shown = shown

    def encoded(self, name: str, encode: Encode) -> str:
        if name.startswith(ACCOUNT):
            return self._secret(name.removeprefix(ACCOUNT), encode)
        value = self._values.get(name)
        return encode(value) if value else ""

    def _secret(self, account: str, encode: Encode) -> str:
        value = self._accounts.get(account)
        if value is None and not self._shown:
            raise TemplateError(f"the target has no account value {account!r} any more; give it again")
        if self._shown:
            return "" if value == "" else f"({account})"
        return encode(value) if value else ""


class Text(Struct, frozen=True):
    """A text with macros: its literals are encoded already."""

    head: str
    tail: tuple[tuple[str, str], ...] = ()
    """Each macro with the literal that follows it."""
    bare: bool = False
    """Nothing but macros: when they are all empty, so is what it says."""

    def fill(self, values: Values, encode: Encode) -> str:
        text = self.head
        for name, literal in self.tail:
            text += values.encoded(name, encode) + literal
        return text


def compile_text(tokens: list[Token], encode_literal: Encode) -> Text:
    literals, names = [""], []
    for token in tokens:
        if token.kind is Kind.OWN:
            names.append(token.text)
            literals.append("")
        else:
            literals[-1] += encode_literal(token.text)
    return Text(literals[0], tuple(zip(names, literals[1:], strict=True)), bool(names) and not any(literals))


def url_literal(text: str) -> str:
    return quote(text, safe=_URL_SAFE)


def percent_encode(value: str) -> str:
    """Letters and digits, that is every click id of ours, as they are; lone surrogates become ``?``."""
    return value if value.isascii() and value.isalnum() else quote(value, safe="", errors="replace")


def path_value(value: str) -> str:
    """A value of dots alone must not be a step upwards in the path."""
    return percent_encode(value) if value.strip(".") else value.replace(".", "%2E")


def header_value(value: str) -> str:
    return quote(value, safe=_HEADER_SAFE, errors="replace")


def clean_unicode(value: str) -> str:
    """Lone surrogates cannot be written in UTF-8."""
    return value.encode("utf-8", "replace").decode("utf-8")


# --- parameters of a query or form ----------------------------------------------------------------------------


class Parameter(Struct, frozen=True):
    name: Text
    """With the ``=``; empty when there is none."""
    value: Text


def compile_parameters(tokens: list[Token]) -> tuple[Parameter, ...]:
    parameters = []
    for tokens_of_one in split(tokens, "&"):
        name, *value = split(tokens_of_one, "=", 1)
        if value:
            found = Parameter(
                compile_text([*name, Token("=")], url_literal), compile_text(value[0], url_literal)
            )
        else:
            found = Parameter(Text(""), compile_text(name, url_literal))
        parameters.append(found)
    return tuple(parameters)


def fill_parameters(parameters: tuple[Parameter, ...], values: Values, *, drop: bool) -> str | None:
    """``None``: every parameter was dropped."""
    filled = []
    for parameter in parameters:
        value = parameter.value.fill(values, percent_encode)
        if value or not (drop and parameter.value.bare):
            filled.append(parameter.name.fill(values, percent_encode) + value)
    return "&".join(filled) if filled else None


# --- JSON documents -------------------------------------------------------------------------------------------


class _Number(Struct, frozen=True):
    macro: str


def compile_document(text: str, accounts: Collection[str]) -> Any:
    """Lists and dictionaries as they are, strings as ``Text``, numbers as they are written.

    A string that is ``{value:number}`` alone becomes a number (also ``timestamp`` and ``timestamp_ms``).
    """
    place = Place("the JSON body", text)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_read_members,
            parse_int=lambda digits: msgspec.Raw(digits.encode()),
            parse_float=lambda digits: msgspec.Raw(digits.encode()),
            parse_constant=lambda word: _refuse_constant(word, place),
        )
        if not isinstance(document, dict | list):
            raise TemplateError("the JSON body is neither an object nor a list")
        return _compile_node(document, "", accounts)
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg}); macros stand inside of strings"
        raise place.refuse(what, error.pos, error.pos + 1) from None
    except RecursionError:
        raise TemplateError("the JSON body is nested too deeply") from None


def _refuse_constant(word: str, place: Place) -> None:
    start = place.text.find(word)
    raise place.refuse(f"{word} is not JSON", start, start + len(word))


def _read_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TemplateError(f"the JSON body has the member {twice!a} twice; only one of them can be meant")
    return members


def _compile_node(node: Any, path: str, accounts: Collection[str]) -> Any:
    if isinstance(node, dict):
        return {
            _member_name(name, accounts): _compile_node(value, f"{path}.{name}", accounts)
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [_compile_node(value, f"{path}[{n}]", accounts) for n, value in enumerate(node)]
    if not isinstance(node, str):
        return node
    number = _NUMBER_MACRO.fullmatch(node)
    if number is not None:
        return _Number(number[1])
    place = Place(f"the JSON body at {path.lstrip('.')!a}", node)
    return compile_text(tokenize(place, accounts), clean_unicode)


def _member_name(name: str, accounts: Collection[str]) -> str:
    place = Place("a name in the JSON body", name)
    if any(token.kind is Kind.OWN for token in tokenize(place, accounts)):
        raise place.refuse("a macro; only strings that are values may hold one", 0, len(name))
    return clean_unicode(name)


def fill_document(node: Any, values: Values, *, drop: bool) -> Any:
    """What can be encoded as JSON, ``UNSET`` for what is dropped.  A number that is none is null when not dropped."""
    if isinstance(node, Text):
        text = node.fill(values, clean_unicode)
        return UNSET if drop and node.bare and not text else text
    if isinstance(node, _Number):
        digits = values.encoded(node.macro, clean_unicode)
        if _NUMBER.fullmatch(digits):
            return msgspec.Raw(digits.encode())
        return UNSET if drop else None
    if isinstance(node, list):
        filled = (fill_document(value, values, drop=drop) for value in node)
        return [value for value in filled if value is not UNSET]
    if isinstance(node, dict):
        members = ((name, fill_document(value, values, drop=drop)) for name, value in node.items())
        return {name: value for name, value in members if value is not UNSET}
    return node


def macros_in(node: Any) -> set[str]:
    """The names of our macros in texts, parameters and documents, however nested."""
    if isinstance(node, Text):
        return {name for name, _ in node.tail}
    if isinstance(node, _Number):
        return {node.macro}
    if isinstance(node, Parameter):
        return macros_in([node.name, node.value])
    if isinstance(node, dict):
        return macros_in(list(node.values()))
    return set().union(*map(macros_in, node)) if isinstance(node, list | tuple) else set()
