"""The address of a landing page: which of its parameters hold ids, and how an id is handed on to another address.

Query strings come from visitors: any bytes, any size.  Nothing here raises for them, and the work is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Optional, Union
from urllib.parse import quote, unquote_to_bytes

_LONGEST_QUERY = 16_384
"""Characters that are looked at: twice what most servers let through in a request line."""
_MOST_PARAMETERS = 200
_LONGEST_NAME = 64
_LONGEST_RAW_VALUE = 4 * 512
"""A value of the longest kind, each of its characters percent-encoded, and some room."""


def as_text(raw: Union[bytes, str, None]) -> str:
    """A query or header as text with one character a byte, as WSGI hands it over; never raises."""
    if raw is None:
        return ""
    return raw.decode("latin-1") if isinstance(raw, bytes) else raw


def parameters(query: Union[bytes, str, None], wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """(name in lower case, value) of the wanted parameters, in the order of the query.

    A value that is no UTF-8 comes back with replacement characters, a far too long one as it stands in the
    query: neither passes as an id.
    """
    text = as_text(query)
    if len(text) > _LONGEST_QUERY:
        # Up to the last whole parameter: half an id must not be taken for one.
        text = text[: text.rfind("&", 0, _LONGEST_QUERY) + 1]
    for pair in text.split("&", _MOST_PARAMETERS)[:_MOST_PARAMETERS]:
        raw_name, _, raw_value = pair.partition("=")
        if len(raw_name) > _LONGEST_NAME:
            continue
        name = _decoded(raw_name).lower()
        if name in wanted:
            yield name, raw_value if len(raw_value) > _LONGEST_RAW_VALUE else _decoded(raw_value)


def _decoded(raw: str) -> str:
    try:
        octets = raw.replace("+", " ").encode("latin-1")
    except UnicodeEncodeError:  # a server that decoded the query already
        octets = raw.replace("+", " ").encode("utf-8", "replace")
    return unquote_to_bytes(octets).decode("utf-8", "replace")


def append(url: str, click_id: Optional[str], name: str = "click_id") -> str:
    """``url`` with the click id as its parameter ``name``, for a checkout on another domain.

    A parameter of that name which the URL holds already is replaced; a fragment stays at the end.  Without a
    click id the URL comes back as it is, so the call needs no ``if`` around it.
    """
    if not click_id:
        return url
    rest, mark, fragment = url.partition("#")
    path, _, query = rest.partition("?")
    others = [pair for pair in query.split("&") if pair and _decoded(pair.partition("=")[0]) != name]
    others.append(f"{quote(name, safe='')}={quote(click_id, safe='')}")
    return f"{path}?{'&'.join(others)}{mark}{fragment}"
