"""From the cells of an export's row to what it says, by today's settings of its network, or why it says nothing.

The rules are those of postbacks (``core.terms``): the network's own status words, its currency where none is named,
negative amounts as what was taken back.  What is read holds no personal data: a transaction id is replaced as the
firewall replaces it in postbacks, so that equal ones stay equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum

from msgspec import Struct

from postbackd.core.click_id import KeyRing
from postbackd.core.click_ref import MAX_OWN_ID, NEVER_AN_OWN_ID
from postbackd.core.diagnosis import Reason, diagnose_click_id
from postbackd.core.export_values import Amount, TimeReader, read_amount, write_zone
from postbackd.core.exports import FIELDS, Given, Header
from postbackd.core.macros import looks_like_macro
from postbackd.core.money import CURRENCIES
from postbackd.core.params import MAX_LENGTHS, clean
from postbackd.core.privacy import Masker
from postbackd.core.statuses import TAKEN_BACK, read_status
from postbackd.core.terms import NetworkRules, keep_text

_REMEMBERED = 50_000


class Problem(IntEnum):
    """Why a row cannot be used; the number is kept in a file for a day, the word is what people see."""

    sentence: str

    def __new__(cls, number: int, sentence: str = "") -> Problem:
        problem = int.__new__(cls, number)
        problem._value_ = number
        problem.sentence = sentence
        return problem

    @property
    def word(self) -> str:
        """What people see and what the API says."""
        return self.name.lower()

    NO_ID = 1, "It has neither a transaction id nor a click id (a line of totals, perhaps)."
    CLICK_ID_UNUSABLE = 2, "It has no transaction id, and its click id was cut off or altered."
    VALUE_UNREADABLE = 3, "Its amount cannot be read."
    VALUE_AMBIGUOUS = 4, "Its amount can be read in two ways; say which with --decimal."
    VALUE_NEGATIVE = 5, "Its amount is negative, and its status does not say that it was taken back."
    CURRENCY_UNKNOWN = 6, "Its currency is no ISO 4217 code."
    TOO_MANY_CELLS = (
        7,
        "It has more cells than the header: a delimiter inside a cell without quotation marks.",
    )
    MALFORMED = 8, "It is not valid CSV."
    FIELD_TOO_LONG = 9, "Its transaction id is longer than one can be."
    PERSONAL_DATA = 10, "Its transaction id holds personal data, and the network is set to refuse that."
    SEVERAL_CONVERSIONS = 11, "Several conversions here fit it, and nothing in it says which."
    ANOTHER_CLICK = 12, "Its transaction id is counted here for another click than the one it names."


class Layout(Struct, frozen=True, kw_only=True):
    """The form of one export, as it was guessed and said."""

    encoding: str
    delimiter: str
    header: Header
    decimal: str
    """``.`` or ``,``; empty: not known, and amounts for which that matters are not read."""
    dates: str
    clocks: bool
    """Whether its times say more than the day."""
    decimals: int = 2
    """Most decimals of its amounts: how exact they can be."""
    notes: tuple[str, ...] = ()


class Row(Struct, frozen=True, gc=False, array_like=True):
    """What a row of an export says."""

    line: int
    problem: int = 0
    transaction_id: str = ""
    click: int | None = None
    """Stamp of the click, when the id is ours."""
    campaign: int | None = None
    own_id: str | None = None
    """Another click id, which may be a caller's own."""
    type: str | None = None
    value_micros: int | None = None
    currency: str = ""
    status: int | None = None
    status_text: str | None = None
    time_ms: int | None = None
    """As ``export_values.Moment``."""
    day: int | None = None
    zone_min: int | None = None


class RowReader:
    """Reads the rows of one export."""

    def __init__(
        self,
        layout: Layout,
        given: Given,
        rules: NetworkRules,
        keys: KeyRing,
        masker: Masker,
        now_ms: int,
    ) -> None:
        """``now_ms``: milliseconds since 1970; a click id of a later time was not issued here."""
        header = layout.header
        (
            self._transaction, self._click, self._type, self._value, self._currency, self._status, self._time,
        ) = (header.columns.get(field, -1) for field in FIELDS)  # fmt: skip
        self._clock = -1 if header.clock is None else header.clock
        self._width = len(header.names)
        self._decimal = layout.decimal
        self._default_currency = header.currency or rules.currency
        self._rules, self._keys, self._masker, self._now_ms = rules, keys, masker, now_ms
        self._types = {word.strip().casefold(): ours.strip().casefold() for word, ours in given.types.items()}
        self._times = TimeReader(layout.dates)
        self._statuses: dict[str, tuple[int | None, str]] = {}
        self._type_words: dict[str, str | None] = {}
        self._amounts: dict[tuple[str, str], Amount] = {}
        self.unknown_statuses: Counter[str] = Counter()
        self.unread_times = 0
        self.first_unread_time = 0
        """The line of the first time that cannot be read."""

    def read(self, line: int, cells: Sequence[str]) -> Row:
        """What a row says.  Never raises, whatever is in the cells."""
        width = len(cells)
        if width > self._width and any(cell.strip() for cell in cells[self._width :]):
            return Row(line, Problem.TOO_MANY_CELLS)
        if width < self._width:
            cells = [*cells, *[""] * (self._width - width)]
        status, status_text = self._read_status(cells[self._status]) if self._status >= 0 else (None, None)
        problem, transaction = self._read_transaction(
            cells[self._transaction] if self._transaction >= 0 else ""
        )
        click_problem, click, campaign, own_id = 0, None, None, None
        if self._click >= 0:
            click_problem, click, campaign, own_id = self._read_click(cells[self._click])
        if not problem and not transaction and click is None and own_id is None:
            problem = click_problem or Problem.NO_ID
        if transaction and click is None and own_id is None and _is_total(transaction, cells):
            transaction, problem = "", Problem.NO_ID
        amount = self._read_value(cells)
        value = None
        if amount is not None:
            found, value = _judge_amount(amount, status)
            problem = problem or found
        type_ = self._read_type(cells[self._type] if self._type >= 0 else "")
        time_ms, day, zone = self._read_time(line, cells) if self._time >= 0 else (None, None, None)
        currency = amount.currency if amount is not None else self._default_currency
        return Row(
            line, problem, transaction, click, campaign, own_id, type_, value, currency, status, status_text,
            time_ms, day, zone,
        )  # fmt: skip

    def _read_transaction(self, text: str) -> tuple[int, str]:
        text = text.strip()
        if not text:
            return 0, ""
        if not text.isprintable():
            text = clean(text)
        if len(text) > MAX_LENGTHS["transaction_id"]:
            return Problem.FIELD_TOO_LONG, keep_text(self._masker, text, "transaction_id")
        kept = self._masker.mask(text)
        if kept is not text and kept != text:
            if self._rules.personal_data == "refuse":
                return Problem.PERSONAL_DATA, kept
            return 0, "" if self._rules.personal_data == "drop" else kept
        if looks_like_macro(text):
            return 0, ""
        return 0, text

    def _read_click(self, text: str) -> tuple[int, int | None, int | None, str | None]:
        """``(problem, stamp, campaign, own id)``."""
        text = text.strip()
        verified = self._keys.verify(text) if text else None
        if verified is not None:
            return 0, *verified, None
        if not text:
            return 0, None, None, None
        text = clean(text)
        finding = diagnose_click_id(text, self._keys, self._now_ms)
        if finding.stamp is not None and finding.repaired:
            return 0, finding.stamp, finding.campaign, None
        if finding.reason in NEVER_AN_OWN_ID:
            return 0, None, None, None
        if finding.reason in _BROKEN or len(text) > MAX_OWN_ID:
            return Problem.CLICK_ID_UNUSABLE, None, None, None
        return 0, None, None, self._masker.mask(text)

    def _read_type(self, text: str) -> str | None:
        if text not in self._type_words:
            word = keep_text(self._masker, clean(text), "type")[: MAX_LENGTHS["type"]].strip().casefold()
            if len(self._type_words) >= _REMEMBERED:
                self._type_words.clear()
            self._type_words[text] = self._types.get(word, self._types.get("", word)) or None
        return self._type_words[text]

    def _read_status(self, text: str) -> tuple[int | None, str | None]:
        found = self._statuses.get(text)
        if found is None:
            shown = keep_text(self._masker, clean(text.strip()), "status")[: MAX_LENGTHS["status"]]
            found = (read_status(text, self._rules.statuses) if shown else None, shown)
            if len(self._statuses) >= _REMEMBERED:
                self._statuses.clear()
            self._statuses[text] = found
        status, shown = found
        if status is None and shown and (shown in self.unknown_statuses or len(self.unknown_statuses) < 100):
            self.unknown_statuses[shown] += 1
        return status, shown or None

    def _read_value(self, cells: Sequence[str]) -> Amount | None:
        """``None``: the export, or this row of it, says none."""
        if self._value < 0:
            return None
        text, code = cells[self._value], cells[self._currency] if self._currency >= 0 else ""
        amount = self._amounts.get((text, code))
        if amount is None:
            amount = self._read_amount(text.strip(), code.strip().upper())
            if len(self._amounts) >= _REMEMBERED:
                self._amounts.clear()
            self._amounts[text, code] = amount
        return amount if amount is not _NO_VALUE else None

    def _read_amount(self, text: str, code: str) -> Amount:
        if not text or text in ("-", "\u2013", "\u2014"):
            return _NO_VALUE
        if code and code not in CURRENCIES:
            return _UNKNOWN_CURRENCY
        return read_amount(text, self._decimal, code or self._default_currency)

    def _read_time(self, line: int, cells: Sequence[str]) -> tuple[int | None, int | None, int | None]:
        text = cells[self._time]
        if self._clock >= 0:
            text = f"{text.strip()} {cells[self._clock].strip()}"
        moment = self._times.read(text)
        if moment is not None:
            return moment.ms, moment.day, moment.zone_min
        if text.strip():
            self.unread_times += 1
            self.first_unread_time = self.first_unread_time or line
        return None, None, None


_TOTALS = frozenset(
    {
        "total",
        "totals",
        "grand total",
        "subtotal",
        "sum",
        "summe",
        "gesamt",
        "totale",
        "totaal",
        "suma",
        "итого",
    }
)


def _is_total(transaction: str, cells: Sequence[str]) -> bool:
    """A line of sums at the end; most of its cells are empty."""
    word = transaction.strip(" :").casefold()
    return word in _TOTALS and sum(bool(cell.strip()) for cell in cells) <= max(2, len(cells) // 2)


_BROKEN = frozenset({Reason.CLICK_ID_ALTERED, Reason.CLICK_ID_TRUNCATED})
_NO_VALUE = Amount(problem="none")
_UNKNOWN_CURRENCY = Amount(problem="currency")

_AMOUNT_PROBLEMS: Mapping[str, Problem] = {
    "unreadable": Problem.VALUE_UNREADABLE,
    "ambiguous": Problem.VALUE_AMBIGUOUS,
    "currency": Problem.CURRENCY_UNKNOWN,
}


def _judge_amount(amount: Amount, status: int | None) -> tuple[int, int | None]:
    """``(problem, micros)``."""
    if amount.problem:
        return _AMOUNT_PROBLEMS[amount.problem], None
    if amount.micros < 0:
        return (0, -amount.micros) if status in TAKEN_BACK else (Problem.VALUE_NEGATIVE, None)
    return 0, amount.micros


def describe_layout(layout: Layout, shift_min: int | None) -> dict[str, object]:
    """The form of an export, for people and scripts."""
    header = layout.header
    named = {field: header.names[position] for field, position in header.columns.items()}
    used = {*header.columns.values(), *(() if header.clock is None else (header.clock,))}
    return {
        "encoding": layout.encoding,
        "delimiter": layout.delimiter,
        "columns": {field: named.get(field) for field in FIELDS},
        "time_of_day_column": None if header.clock is None else header.names[header.clock],
        "click_id_by_content": header.by_content,
        "other_candidates": {field: list(names) for field, names in header.others.items()},
        "unused_columns": [name for position, name in enumerate(header.names) if position not in used],
        "decimal": layout.decimal or None,
        "currency": header.currency or None,
        "dates": layout.dates if "time" in named else None,
        "time_zone": None if shift_min is None else write_zone(shift_min),
    }
