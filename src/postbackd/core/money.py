"""Money as text and as integers: millionths of a currency unit (*micros*).  No float comes near it.

What senders write is decided here once; ``None`` means unreadable, and nothing is guessed:

    written                         read as          why
    ``12.50`` ``12`` ``.5`` ``12.`` decimal text     the dot is always the decimal point (``1.234``: below 2)
    `` 12.50 ``                     12.50            surrounding white space means nothing
    ``+3`` ``-3`` ``-0`` ``- 3``    3, -3, 0, -3     the caller decides what a negative value means
    ``12,50`` ``12,5``              12.50            one comma, no dot, one or two digits after it
    ``1,234.56`` ``1,234,567``      thousands        groups of three; a dot or second comma proves it
    ``1,234`` ``12,500``            None             a decimal or a thousands comma: a factor of 1,000 apart
    ``1.234,56`` ``12,34,567``      None             not written in either of the two accepted ways
    ``$12.50`` ``12,50 €``          12.50            only when it is a symbol of the currency asked for
    ``12.50 USD`` ``usd12.50``      12.50            only when it is the currency asked for
    ``0.30000000000000004``         0.30             7 to 18 decimals, rounded half-even: printed floats
    19 decimals or more             None             nobody's price
    ``1e3`` ``NaN`` ``inf`` ``0x10`` ``1_000``  None  number syntax of programming languages
    empty, ``١٢``, U+2212 as sign   None             only ASCII digits and signs are digits and signs
    more than 10**12 units          None             no payout; micros stay inside a signed 64-bit column
    more than 64 characters         None             bounds the work
"""

from __future__ import annotations

import re

MICROS = 1_000_000
"""Micros in one unit of a currency."""

MAX_MICROS = 10**12 * MICROS
"""The largest value read, either sign: 10**18, of which nine still add up inside a signed 64-bit column."""

_MAX_TEXT = 64
_MAX_DECIMALS = 18

_ISO_4217 = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL "
    "GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD "
    "KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO "
    "NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD "
    "SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV "
    "WST XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XUA YER ZAR ZMW ZWG"
)
CURRENCIES: frozenset[str] = frozenset(_ISO_4217.split())
"""Active alphabetic codes of ISO 4217, without ``XTS`` (tests) and ``XXX`` (no currency).

``ANG`` (until 2025) and ``BGN`` (until 2026) stay: reversals of old conversions still name them.
"""

_DOLLARS = (
    "ARS AUD BBD BMD BND BSD BZD CAD CLP COP CUP DOP FJD GYD HKD JMD KYD LRD MXN NAD NZD SBD SGD SRD TTD TWD "
    "USD UYU XCD"
)
_SYMBOLS: dict[str, frozenset[str]] = {
    symbol: frozenset(codes.split())
    for symbol, codes in {
        "$": _DOLLARS,
        "US$": "USD",
        "A$": "AUD",
        "AU$": "AUD",
        "C$": "CAD",
        "CA$": "CAD",
        "HK$": "HKD",
        "MX$": "MXN",
        "NT$": "TWD",
        "NZ$": "NZD",
        "R$": "BRL",
        "S$": "SGD",
        "€": "EUR",
        "£": "EGP FKP GBP GIP LBP SDG SHP SSP SYP",
        "¥": "CNY JPY",
        "\uffe5": "CNY JPY",  # the yen sign of East Asian keyboards
        "元": "CNY TWD",
        "₽": "RUB",
        "₹": "INR",
        "₩": "KPW KRW",
        "₺": "TRY",
        "₴": "UAH",
        "₫": "VND",
        "₪": "ILS",
        "฿": "THB",
        "₦": "NGN",
        "₱": "CUP PHP",
        "₡": "CRC SVC",
        "₲": "PYG",
        "₸": "KZT",
        "₼": "AZN",
        "₾": "GEL",
        "₮": "MNT",
        "₵": "GHS",
        "₭": "LAK",
        "৳": "BDT",
        "֏": "AMD",
        "៛": "KHR",
        "zł": "PLN",
        "kr": "DKK ISK NOK SEK",
        "Kč": "CZK",
        "Ft": "HUF",
        "лв": "BGN",
        "Rs": "INR LKR MUR NPR PKR SCR",
        "RM": "MYR",
        "Rp": "IDR",
        "Fr": "CHF",
        "lei": "MDL RON",
    }.items()
}

_ANY_SYMBOL = "|".join(re.escape(symbol) for symbol in sorted(_SYMBOLS, key=len, reverse=True))
_AMOUNT = re.compile(
    rf"([A-Za-z]{{3}}\s*)?([+-])?({_ANY_SYMBOL})?\s*([+-])?([0-9.,]+)\s*({_ANY_SYMBOL})?\s*([A-Za-z]{{3}})?"
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


def read_micros(text: str, currency: str) -> int | None:
    """The amount that ``text`` says, in micros, by the table above; ``None`` when it is unreadable.

    ``currency`` is an upper-case ISO 4217 code: symbols and codes in the text must fit it.  Never raises.
    """
    if text.isascii():  # the digits of other scripts pass isdigit()
        whole, dot, fraction = text.partition(".")
        if len(whole) <= 12 and whole.isdigit():
            if not dot:
                return int(whole) * MICROS
            if len(fraction) <= 6 and fraction.isdigit():
                return int(whole + fraction + "000000"[len(fraction) :])
    return _read_decorated(text, currency)


def _read_decorated(text: str, currency: str) -> int | None:
    """Everything but the plain form: signs, symbols, codes, commas, many decimals."""
    if len(text) > _MAX_TEXT:
        return None
    parts = _AMOUNT.fullmatch(text.strip())
    if parts is None:
        return None
    code, sign, symbol, inner_sign, number, symbol_after, code_after = parts.groups()
    if (sign and inner_sign) or (symbol and symbol_after) or (code and code_after):
        return None
    if not _fits(symbol or symbol_after, code or code_after, currency):
        return None
    micros = _read_number(number)
    return -micros if micros is not None and "-" in (sign, inner_sign) else micros


def _fits(symbol: str | None, code: str | None, currency: str) -> bool:
    if symbol is not None and currency not in _SYMBOLS[symbol]:
        return False
    return code is None or code.strip().upper() == currency


def _read_number(number: str) -> int | None:
    """Micros of an unsigned number made of ASCII digits, dots and commas."""
    digits = _split_number(number)
    if digits is None:
        return None
    whole, fraction = digits
    if len(fraction) > _MAX_DECIMALS or not (whole + fraction).isdigit():
        return None
    units = int(whole or "0")
    exact = units * 10**_MAX_DECIMALS + int(fraction.ljust(_MAX_DECIMALS, "0"))
    micros, rest = divmod(exact, 10**12)
    if rest > 5 * 10**11 or (rest == 5 * 10**11 and micros & 1):
        micros += 1
    return micros if micros <= MAX_MICROS else None


def _split_number(number: str) -> tuple[str, str] | None:
    """Digits before and after the decimal point, once it is clear which character that is."""
    if "," in number and ("." in number or number.count(",") > 1):
        if _THOUSANDS.fullmatch(number) is None:
            return None
        number = number.replace(",", "")
    elif "," in number:
        whole, _, fraction = number.partition(",")
        return (whole, fraction) if whole and 1 <= len(fraction) <= 2 else None
    whole, _, fraction = number.partition(".")
    return whole, fraction


def write_micros(micros: int) -> str:
    """Decimal text, two decimals or as many as it takes: ``12500000`` is ``12.50``, ``1`` is ``0.000001``."""
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), MICROS)
    cents, finer = divmod(rest, 10_000)
    if not finer:
        return f"{sign}{units}.{cents:02d}"
    return f"{sign}{units}." + f"{rest:06d}".rstrip("0")
