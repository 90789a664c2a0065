"""Whether what counts of a signed request is what was signed.

Our own scheme signs all that counts but the order of parameters.  The schemes of networks do not: some sign a few
parameters, some the query alone.  Whoever has seen one genuine request could put another value beside the signed one,
under a second spelling of the name, under another name of the same field, in a body or in a batch, and have that one
counted.  Such a request is not genuine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from postbackd.core.params import BYTE_ORDER_MARK, BodyMalformed, Received, decode_form, read_json_body
from postbackd.core.senders import Scheme
from postbackd.core.signature import Signed, read_pairs, signed_names

Names = Mapping[str, Sequence[str]]
"""Canonical field -> the names of its parameters (``params.FieldMap.names``)."""


def is_read_as_signed(scheme: Scheme, signed: Signed, names: Names) -> bool:
    """Whether a request whose signature is right has one reading only."""
    if scheme.kind == "request":
        return _is_told_once(signed.query, names)
    if scheme.kind == "fields":
        pairs = _all_pairs(signed)
        return pairs is not None and _is_alone(pairs, signed_names(scheme), names)
    if signed.body:  # is not signed, and would be read first
        return False
    counts = Counter(name.lower() for name, _ in read_pairs(signed.query))
    return scheme.kind == "url" or max(counts.values(), default=0) <= 1


def _is_told_once(query: str, names: Names) -> bool:
    """Whether no parameter that means something is there twice: its order would decide, and is not signed."""
    counts = Counter(name.lower() for name, _ in read_pairs(query))
    if max(counts.values(), default=0) <= 1:
        return True
    return all(counts[name.lower()] <= 1 for spellings in names.values() for name in spellings)


def _is_alone(pairs: Sequence[tuple[str, str]], wanted: Collection[str], names: Names) -> bool:
    """Whether each signed parameter is there once, and no other parameter speaks of the same field."""
    ours = {name.lower() for name in wanted}
    counts = Counter(name.lower() for name, _ in pairs)
    if any(counts[name] != 1 for name in ours):
        return False
    rivals: set[str] = set()
    for spellings in names.values():
        lower = {spelling.lower() for spelling in spellings}
        if lower & ours:
            rivals |= lower - ours
    return not any(value and name.lower() in rivals for name, value in pairs)


def _all_pairs(signed: Signed) -> Sequence[tuple[str, str]] | None:
    """The parameters of query and body; ``None`` when the body is a batch, or nothing that can be told from one."""
    of_query = list(read_pairs(signed.query))
    body = signed.body.removeprefix(BYTE_ORDER_MARK)
    if not body:
        return of_query
    start = body.lstrip()[:1]
    if start == b"[" or b"ndjson" in signed.content_type or b"jsonl" in signed.content_type:
        return None
    if start != b"{":
        return [*read_pairs(decode_form(body)), *of_query]
    try:
        content = read_json_body(body)
    except BodyMalformed:
        return None
    if not isinstance(content, dict):
        return None
    return [*Received([], 0, "", content).pairs(), *of_query]
