"""Payouts: what a source is told a conversion is worth.  Integers only (see ``core.money``).

    written             the source is told
    empty               the value as received
    ``fixed 2.50 USD``  always this, whatever the conversion is worth
    ``80%`` ``12.5 %``  this part of the value, in the currency of the conversion

A percentage is more than 0 and at most 1000, with at most six decimals.  Its result is exact, and where it falls
between two millionths of a unit it is rounded half-even, as all money here.  A result beyond ``MAX_MICROS`` becomes
``MAX_MICROS``: more does not fit the column, and nobody is paid as much.
"""

from __future__ import annotations

import re

from msgspec import Struct

from postbackd.core.money import CURRENCIES, MAX_MICROS, MICROS, read_micros

MAX_PERCENT = 1000

_WHOLE = 100 * MICROS
"""One hundred per cent, in the unit of ``Payout.percent_micros``."""

_DECIMAL = r"([0-9]{1,13}(?:\.[0-9]{1,6})?)"
_FIXED = re.compile(rf"fixed\s+{_DECIMAL}\s*([A-Za-z]+)", re.IGNORECASE)
_PERCENT = re.compile(rf"{_DECIMAL}\s*%")
_FORMS = "leave it empty for the value as received, or write it like 'fixed 2.50 USD' or '80%'"


class PayoutError(ValueError):
    """A text that is no payout; the message names the forms that there are."""


class Payout(Struct, frozen=True):
    """What becomes of a value.  Without anything set: nothing."""

    fixed_micros: int = 0
    currency: str = ""
    """Of the fixed value; empty: it is not fixed."""
    percent_micros: int = 0
    """Millionths of a per cent; 0: no percentage."""

    def apply(self, value_micros: int, currency: str) -> tuple[int, str]:
        """The value and the currency that the source is told."""
        if self.currency:
            return self.fixed_micros, self.currency
        if not self.percent_micros:
            return value_micros, currency
        micros, rest = divmod(value_micros * self.percent_micros, _WHOLE)
        if rest * 2 > _WHOLE or (rest * 2 == _WHOLE and micros & 1):
            micros += 1
        return min(micros, MAX_MICROS), currency


def compile_payout(text: str) -> Payout:
    """Read a payout; case and white space mean nothing.  Raises ``PayoutError``."""
    text = text.strip()
    if not text:
        return Payout()
    if fixed := _FIXED.fullmatch(text):
        return _fixed(fixed[1], fixed[2].upper())
    if percent := _PERCENT.fullmatch(text):
        return _percent(percent[1])
    raise PayoutError(f"{text[:40]!a} is no payout; {_FORMS}")


def _fixed(amount: str, currency: str) -> Payout:
    micros = read_micros(amount, currency)
    if micros is None:
        raise PayoutError(f"{amount} is too much for a payout; {_FORMS}")
    if currency not in CURRENCIES:
        raise PayoutError(f"{currency!a} is no ISO 4217 currency; write a fixed payout like 'fixed 2.50 USD'")
    return Payout(fixed_micros=micros, currency=currency)


def _percent(amount: str) -> Payout:
    micros = read_micros(amount, "")
    if micros is None or not 0 < micros <= MAX_PERCENT * MICROS:
        raise PayoutError(f"a percentage is more than 0 and at most {MAX_PERCENT}, not {amount}; {_FORMS}")
    return Payout(percent_micros=micros)
