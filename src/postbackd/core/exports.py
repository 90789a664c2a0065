"""The form of a partner's export: its encoding, delimiter, header, and which column means what.

Every network's export looks different, so the form is guessed from the file itself, shown to whoever asked, and can be
said instead.  Nothing here reads a file: the functions take its first bytes, its first records.  How amounts and times
are written is decided in ``core.export_values``.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from postbackd.core.click_id import KeyRing
from postbackd.core.money import CURRENCIES
from postbackd.core.params import POSTBACK_NAMES


class ExportError(ValueError):
    """The file cannot be read as an export; the message says why, and what to do."""


FIELDS = ("transaction_id", "click_id", "type", "value", "currency", "status", "time")
"""What a column can mean."""

DELIMITERS = (",", ";", "\t", "|")
"""What may stand between two cells."""

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "cp1252")
"""How the text of a file may be written."""

LONGEST_CELL = 131_072
"""Characters; a longer cell is a quotation mark that is never closed."""

MAX_COLUMNS = 1000

_MAX_PREAMBLE = 40
"""Lines in front of the header: title, account, period."""

_SAMPLE_ROWS = 200

_NAMES: Mapping[str, str] = {
    "transaction_id": (
        "transactionid txid txnid tid transaction orderid ordernumber orderno ordernr orderref orderreference order "
        "advertiserorderid saleid conversionid actionid leadid eventid referenceid referencenumber reference ref "
        "invoiceid invoice invoicenumber bestellnummer bestellnr auftragsnummer transaktionsid transaktion "
        "numerodecommande idcommande commande pedido idpedido numeropedido idordine zamowienie uniqueid id"
    ),
    "click_id": (
        "clickid click subid subid1 sub1 affsub affsub1 affsubid clickref clickreference cid s1 s2 sid u1 "
        "publisherref publisherreference trackingid subaffiliateid aid"
    ),
    "type": "eventtype conversiontype eventname event goalname goal actionname actiontype type",
    "value": (
        "payout payoutamount commission commissionamount publishercommission affiliatecommission netcommission "
        "earnings earning reward provision vergutung provvigione comision revenue value amount sum saleamount "
        "ordervalue orderamount sale total totalamount price betrag wert umsatz montant importe importo kwota"
    ),
    "currency": (
        "currency currencycode cur payoutcurrency commissioncurrency wahrung waehrung devise moneda valuta waluta"
    ),
    "status": (
        "status conversionstatus transactionstatus commissionstatus orderstatus actionstatus approvalstatus state "
        "validation validationstatus estado statut stato"
    ),
    "time": (
        "conversiontime conversiondate conversiondatetime datetime transactiontime transactiondate transactiondatetime "
        "timestamp eventtime eventdate ordertime orderdate orderdatetime actiontime actiondate saledate saletime "
        "created createdat creationdate createddate datum zeitpunkt datumzeit fecha data dateheure date time zeit"
    ),
}  # fmt: skip

_CLOCK_NAMES = frozenset({"time", "hour", "uhrzeit", "zeit", "heure", "hora", "ora", "czas"})
_CLOCK = re.compile(
    r"\s*[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?\s*(?:[ap]\.?m\.?)?\s*", re.IGNORECASE
)
_PLAIN_LETTERS = str.maketrans("äöüéèêáàâíìóòôúùçñ", "aoueeeaaaiiooouucn")


class Given(Struct, frozen=True, kw_only=True):
    """What whoever asked says of the file, instead of letting it be guessed."""

    columns: Mapping[str, str] = {}
    """Field -> header of its column, or ``#3`` for the third; empty: there is none."""
    delimiter: str = ""
    encoding: str = ""
    decimal: str = ""
    """``.`` or ``,``"""
    dates: str = ""
    """One of ``export_values.ORDERS``."""
    shift_min: int | None = None
    """Minutes by which the file's clock is ahead of UTC."""
    types: Mapping[str, str] = {}
    """The partner's word for a type -> ours; the empty word: every row is of this type."""


class Header(Struct, frozen=True, kw_only=True):
    """Where the columns are, and what they mean."""

    record: int
    """Which record of the file it is, the first is 0."""
    names: tuple[str, ...]
    columns: dict[str, int]
    """Field -> position of its column."""
    clock: int | None = None
    """Position of a column with the time of day, where the date stands alone."""
    currency: str = ""
    """Named by the header of the value, such as ``Payout (EUR)``."""
    others: dict[str, tuple[str, ...]] = {}
    """Field -> headers of other columns that it might be."""
    by_content: bool = False
    """Whether the click id's column was recognised by ids of ours in it, whatever its name."""


# --- bytes and text --------------------------------------------------------------------------------------------------


def guess_encoding(head: bytes) -> tuple[str, int]:
    """``(encoding, bytes of its mark)`` by the first bytes of a file; ``utf-8`` where nothing says otherwise.

    Whether it is UTF-8 all through only reading it shows; then it is Windows-1252.  Raises ``ExportError`` for
    what is no text at all.
    """
    for magic, what in _NO_TEXT.items():
        if head.startswith(magic):
            raise ExportError(f"the file is {what}; save or unpack it as CSV (UTF-8)")
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8", 3
    if head.startswith(b"\xff\xfe"):
        return "utf-16-le", 2
    if head.startswith(b"\xfe\xff"):
        return "utf-16-be", 2
    even, odd = head[0:2000:2].count(0), head[1:2000:2].count(0)
    half = max(1, min(len(head), 2000) // 2)
    if odd > half * 0.6 and even < half * 0.1:
        return "utf-16-le", 0
    if even > half * 0.6 and odd < half * 0.1:
        return "utf-16-be", 0
    return "utf-8", 0


_NO_TEXT: Mapping[bytes, str] = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"SQLite format 3\x00": "a database",
}


def guess_delimiter(lines: Sequence[str]) -> str:
    """What stands between the cells, by the first lines."""
    if lines and (named := re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE)):
        return named[1]
    best, delimiter = 0.0, ","
    for candidate in DELIMITERS:
        score = _score(lines, candidate)
        if score > best:
            best, delimiter = score, candidate
    return delimiter


def _score(lines: Sequence[str], delimiter: str) -> float:
    """How well the lines fall into columns: many of them, equally wide, under names that are known."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0
    if not rows:
        return 0.0
    width, share = Counter(map(len, rows)).most_common(1)[0]
    if width < 2:
        return 0.0
    known = max(sum(plain_name(cell) in _KNOWN for cell in row) for row in rows[:_MAX_PREAMBLE])
    return share / len(rows) * min(width, 20) + 3 * known


def plain_name(name: str) -> str:
    """A header as names are compared: lower-case letters and digits, what stands in brackets left out."""
    bare = re.sub(r"\(.{0,100}?\)|\[.{0,100}?\]", "", name)
    return re.sub(r"[^a-z0-9]", "", bare.casefold().translate(_PLAIN_LETTERS))


_KNOWN = frozenset(name for names in _NAMES.values() for name in names.split())

# --- the header --------------------------------------------------------------------------------------------------


def find_header(
    records: Sequence[Sequence[str]], own_names: Mapping[str, Sequence[str]], keys: KeyRing, given: Given
) -> Header:
    """The header among the first records of a file, and what its columns mean.

    ``own_names``: what the network calls the fields in its postbacks, which its export is likely to do too.
    Raises ``ExportError`` when no column can tell one conversion from another.
    """
    for record in records:
        check_width(record)
    for number, record in enumerate(records[:_MAX_PREAMBLE]):
        if not any(cell.strip() for cell in record):
            continue
        sample = records[number + 1 : number + 1 + _SAMPLE_ROWS]
        names = tuple(cell.strip() for cell in record)
        if given.columns and not _has_all(names, given.columns):
            continue
        header = _read_header(number, names, sample, own_names, keys, given)
        if {"transaction_id", "click_id"} & header.columns.keys():
            return header
    raise ExportError(_no_header(records, given))


def check_width(record: Sequence[str]) -> None:
    """Raises ``ExportError`` when it is of no table of conversions."""
    if len(record) > MAX_COLUMNS:
        raise ExportError(f"the file has more than {MAX_COLUMNS} columns; is it a table of conversions?")


def _no_header(records: Sequence[Sequence[str]], given: Given) -> str:
    filled = [record for record in records[:_MAX_PREAMBLE] if any(cell.strip() for cell in record)]
    if not filled:
        return "the file is empty; export it again"
    widest = max(filled, key=len)
    names = ", ".join(repr(cell.strip()[:40]) for cell in widest[:30])
    for wanted in given.columns.values():
        if wanted and not any(_find_column(record, wanted) is not None for record in filled):
            return f"there is no column {wanted[:60]!r}; the columns are: {names}"
    return (
        "no column was recognised as the transaction id or the click id; name it with "
        f"--column transaction_id=NAME or --column click_id=NAME; the columns are: {names}"
    )


def _has_all(names: Sequence[str], columns: Mapping[str, str]) -> bool:
    return all(not wanted or _find_column(names, wanted) is not None for wanted in columns.values())


def _find_column(names: Sequence[str], wanted: str) -> int | None:
    """The position of a column by its header as written, its plain form, or ``#`` and its number."""
    wanted = wanted.strip()
    if re.fullmatch(r"#[0-9]{1,4}", wanted):
        position = int(wanted[1:]) - 1
        return position if 0 <= position < len(names) else None
    stripped = [name.strip() for name in names]
    if wanted in stripped:
        return stripped.index(wanted)
    folded = [name.casefold() for name in stripped]
    if wanted.casefold() in folded:
        return folded.index(wanted.casefold())
    return None


def _read_header(
    number: int,
    names: tuple[str, ...],
    sample: Sequence[Sequence[str]],
    own_names: Mapping[str, Sequence[str]],
    keys: KeyRing,
    given: Given,
) -> Header:
    columns: dict[str, int] = {}
    for field, wanted in given.columns.items():
        position = _find_column(names, wanted) if wanted else None
        if position is not None:
            columns[field] = position
    by_content = False
    if "click_id" not in given.columns:
        content = _column_of_click_ids(sample, len(names), keys)
        if content is not None and content not in columns.values():
            columns["click_id"], by_content = content, True
    plain = [plain_name(name) for name in names]
    filled = _filled_columns(sample, len(names))
    others: dict[str, tuple[str, ...]] = {}
    for field in FIELDS:
        ranked = _rank(field, plain, own_names.get(field, ()))
        free = [position for position in ranked if position not in columns.values()]
        if field not in given.columns and field not in columns and free:
            # A column without a single value says nothing, whatever its name.
            columns[field] = next((position for position in free if position in filled), free[0])
        others[field] = tuple(names[position] for position in free if position != columns.get(field))
    value = columns.get("value")
    return Header(
        record=number,
        names=names,
        columns=columns,
        clock=_find_clock(plain, sample, columns),
        currency=_currency_in(names[value]) if value is not None else "",
        others={field: found for field, found in others.items() if found},
        by_content=by_content,
    )


def _rank(field: str, plain: Sequence[str], own: Sequence[str]) -> list[int]:
    """Columns that may be a field, the likeliest first: names of the network's own, then the usual ones."""
    usual = _NAMES[field].split()
    known = {
        name: place
        for place, name in reversed(
            list(enumerate([*map(plain_name, own), *usual, *map(plain_name, POSTBACK_NAMES[field])]))
        )
        if name
    }
    places = []
    for position, name in enumerate(plain):
        place = known.get(name)
        if place is None and field == "value":
            place = known.get(_without_currency(name))
        if place is not None:
            places.append((place, position))
    return [position for _, position in sorted(places)]


def _without_currency(name: str) -> str:
    """``payouteur`` is a payout."""
    if name[-3:].upper() in CURRENCIES:
        return name[:-3]
    return name[3:] if name[:3].upper() in CURRENCIES else ""


def _currency_in(name: str) -> str:
    words = re.findall(r"(?<![A-Za-z])[A-Z]{3}(?![A-Za-z])", name)
    named = next((word for word in words if word in CURRENCIES), "")
    return named or ("EUR" if "€" in name else "")


def _filled_columns(sample: Sequence[Sequence[str]], width: int) -> set[int]:
    return {
        position
        for position in range(width)
        if not sample or any(len(row) > position and row[position].strip() for row in sample)
    }


def _column_of_click_ids(sample: Sequence[Sequence[str]], width: int, keys: KeyRing) -> int | None:
    """The column in which most ids of ours verify; a check of 40 bits is no accident."""
    counts = [
        sum(1 for row in sample if len(row) > position and keys.verify(row[position].strip()) is not None)
        for position in range(width)
    ]
    most = max(counts, default=0)
    return counts.index(most) if most else None


def _find_clock(
    plain: Sequence[str], sample: Sequence[Sequence[str]], columns: Mapping[str, int]
) -> int | None:
    """A column with the time of day beside the one with the date."""
    date = columns.get("time")
    if date is None or any(len(row) > date and ":" in row[date] for row in sample):
        return None
    for position, name in enumerate(plain):
        if name in _CLOCK_NAMES and position not in columns.values():
            cells = [row[position] for row in sample if len(row) > position and row[position].strip()]
            if cells and all(_CLOCK.fullmatch(cell[:40]) for cell in cells):
                return position
    return None
