"""Secrets that people give: what one may be, and how it comes to be sealed.  None of them is put into a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import token_bytes, token_urlsafe

from postbackd.catalog.errors import EntryError
from postbackd.core.shipping import WEBHOOK
from postbackd.core.webhooks import OLD_SECRET, SECRET, read_secret, write_secret

Seal = Callable[[Mapping[str, str], str], dict[str, str]]
"""Seals values (name -> secret) for a purpose of ``store.sealed``; the key is made when there is none.

Raises ``NotNow`` when that cannot be done.
"""

_LONGEST_VALUE = 8192
_LONGEST_SECRET = 1024
_SECRET_BYTES = 32


def make_webhook_secret() -> str:
    """A new secret for a webhook target."""
    return write_secret(token_bytes(_SECRET_BYTES))


def make_token() -> str:
    """A new token of a network: 256 random bits."""
    return f"pbt_{token_urlsafe(_SECRET_BYTES)}"


def make_sender_secret() -> str:
    """A new signing secret of a network, for our own scheme."""
    return f"pbs_{token_urlsafe(_SECRET_BYTES)}"


def check_values(values: Mapping[str, str], kind: str) -> None:
    """Raise ``EntryError`` for an account value that cannot be one.  ``kind``: of the target."""
    for name, value in values.items():
        if not value or len(value) > _LONGEST_VALUE or not value.isprintable():
            raise EntryError(
                f"account {name}",
                f"a value is 1 to {_LONGEST_VALUE} printable characters (it is not shown here)",
            )
        if kind == WEBHOOK and name in (SECRET, OLD_SECRET):
            try:
                read_secret(value)
            except ValueError as error:
                raise EntryError(f"account {name}", str(error)) from error


def check_sender_secret(secret: str) -> None:
    """Raise ``EntryError`` for a signing secret of a network that cannot be one."""
    if not 1 <= len(secret) <= _LONGEST_SECRET or not secret.isprintable():
        raise EntryError("secret", f"1 to {_LONGEST_SECRET} printable characters (it is not shown here)")
