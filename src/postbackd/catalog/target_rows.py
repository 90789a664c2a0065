"""Targets as people write them: one row of a catalog file, which the options of ``postbackd target`` fill too.

A row never holds a secret: account values are named in it, and are sealed beside it (see ``catalog.account_values``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from postbackd.catalog.entries import need_preset
from postbackd.catalog.errors import EntryError
from postbackd.core.deliveries import Message
from postbackd.core.model import How, RequestForm, Target
from postbackd.core.outgoing import compile_forms, convert_preset_url
from postbackd.core.platforms import PLATFORMS
from postbackd.core.shipping import KINDS, POSTBACK, WEBHOOK
from postbackd.core.templates import TemplateError
from postbackd.presets import Receiving
from postbackd.reports.period import read_duration, write_duration

_USUAL = How()
_CONVERSION, _ADJUSTMENT, _RETRACTION = (message.word for message in Message)
_PAUSE = re.compile(r"([0-9]{1,7})\s*(ms|s)")


class TargetRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[target]]``; ``None`` is what the preset says, or what is usual."""

    name: str
    preset: str | None = None
    kind: str | None = None
    url: str | None = None
    method: str | None = None
    body_type: str = ""
    body: str = ""
    headers: dict[str, str] = {}
    on_empty: str = _USUAL.on_empty
    adjust_url: str | None = None
    retract_url: str | None = None
    account: list[str] | None = None
    """Names of account values; ``None``: all that are stored."""
    options: dict[str, str] = {}
    types: dict[str, str] = {}
    statuses: dict[str, str] | None = None
    success: list[str] | None = None
    failure: list[str] | None = None
    final: list[int] | None = None
    fresh: str | None = None
    fresh_from: str | None = None
    schedule: list[str] = []
    connect_timeout: str = "2s"
    timeout: str = "5s"
    concurrency: int = _USUAL.concurrency


def read_target(row: TargetRow, id_: int, secrets: Mapping[str, str]) -> Target:
    """The target of a row.  ``secrets``: its account values, sealed.  Raises ``EntryError``.

    It is not checked yet (``catalog.entries.check_entry``).
    """
    preset = need_preset("target", row.preset) if row.preset else None
    known = preset.target if preset else Receiving()
    kind = row.kind or known.kind
    if kind not in KINDS:
        raise EntryError("kind", f"{kind!r} is not one of {', '.join(KINDS)}")
    if preset and kind != known.kind:
        raise EntryError("kind", f"the preset is of kind {known.kind}; leave the kind out, or the preset")
    fresh_s = known.fresh_s if row.fresh is None else _read_duration("fresh", row.fresh)
    how = How(
        kind=kind,
        requests=_read_requests(row, kind, preset.target_url if preset else None, known.reversal),
        on_empty=row.on_empty,
        types=row.types,
        statuses=row.statuses if row.statuses is not None else dict(known.statuses),
        success=tuple(row.success) if row.success is not None else known.success,
        failure=tuple(row.failure) if row.failure is not None else known.failure,
        final=tuple(row.final) if row.final is not None else known.final,
        fresh_s=fresh_s,
        fresh_from=row.fresh_from or known.fresh_from,
        schedule_s=tuple(_read_duration("schedule", pause) for pause in row.schedule),
        connect_ms=_read_pause("connect_timeout", row.connect_timeout),
        total_ms=_read_pause("timeout", row.timeout),
        concurrency=row.concurrency,
        options=row.options,
    )
    return Target(id=id_, name=row.name, preset=preset.id if preset else None, how=how, secrets={**secrets})


def _read_requests(
    row: TargetRow, kind: str, preset_url: str | None, reversal: str
) -> dict[str, RequestForm]:
    _refuse_what_is_made(row, kind)
    if kind in PLATFORMS:
        return {}
    url = row.url
    if url is None and preset_url is not None:
        url = convert_preset_url(preset_url)
    if not url:
        raise EntryError("url", f"a target of kind {kind} needs one; say where it is to be told")
    if kind == WEBHOOK:
        return {_CONVERSION: RequestForm(url=url, headers=row.headers)}
    urls = {_CONVERSION: url, _ADJUSTMENT: row.adjust_url, _RETRACTION: row.retract_url}
    if reversal != "cannot":
        told = _RETRACTION if reversal == "retract" else _ADJUSTMENT
        urls[told] = url if urls[told] is None else urls[told]
    method = row.method or ("POST" if row.body or row.body_type else "GET")
    return {
        word: RequestForm(
            url=text,
            method=method.upper(),
            body_type=row.body_type,
            body=row.body,
            headers=row.headers,
        )
        for word, text in urls.items()
        if text
    }


def _refuse_what_is_made(row: TargetRow, kind: str) -> None:
    """A webhook's method and body are ours; of a platform the whole request, and how its answers are read."""
    made: dict[str, object] = {}
    if kind != POSTBACK:
        made |= {"method": row.method, "body": row.body, "body_type": row.body_type}
        made |= {"adjust_url": row.adjust_url, "retract_url": row.retract_url}
    if kind in PLATFORMS:
        made |= {"url": row.url, "headers": row.headers}
        made |= {"success": row.success, "failure": row.failure, "final": row.final}
    for field, value in made.items():
        if value:
            raise EntryError(field, f"a target of kind {kind} makes its own; leave it out")
    if row.options and kind not in PLATFORMS:
        raise EntryError("options", f"a target of kind {kind} has none; they are for {', '.join(PLATFORMS)}")


def _read_duration(field: str, text: str) -> int:
    try:
        return read_duration(text)
    except ValueError as error:
        raise EntryError(field, str(error)) from error


def _read_pause(field: str, text: str) -> int:
    found = _PAUSE.fullmatch(text.strip())
    if found is None:
        raise EntryError(field, f"{text!r} is no time-out; write a number and s or ms, such as 2s or 1500ms")
    return int(found[1]) * (1000 if found[2] == "s" else 1)


def _write_pause(ms: int) -> str:
    return f"{ms}ms" if ms % 1000 else f"{ms // 1000}s"


def write_target(target: Target) -> dict[str, Any]:
    """The row of a target, with the names of its account values.  What cannot be set for its kind is left out."""
    how = target.how
    form = how.requests.get(_CONVERSION, RequestForm(url=""))
    urls = {
        word: how.requests[word].url if word in how.requests else "" for word in (_ADJUSTMENT, _RETRACTION)
    }
    row: dict[str, Any] = {"name": target.name, "preset": target.preset, "kind": how.kind}
    if how.kind not in PLATFORMS:
        row["url"] = form.url
    if how.kind == POSTBACK:
        row |= {"method": form.method, "body_type": form.body_type, "body": form.body}
    if how.kind not in PLATFORMS:
        row |= {"headers": form.headers, "on_empty": how.on_empty}
    if how.kind == POSTBACK:
        row |= {"adjust_url": urls[_ADJUSTMENT], "retract_url": urls[_RETRACTION]}
    row["account"] = sorted(target.secrets)
    if how.kind in PLATFORMS:
        row["options"] = how.options
    row |= {"types": how.types, "statuses": how.statuses}
    if how.kind not in PLATFORMS:
        row |= {"success": list(how.success), "failure": list(how.failure), "final": list(how.final)}
    row |= {
        "fresh": write_duration(how.fresh_s),
        "fresh_from": how.fresh_from,
        "schedule": [write_duration(pause_s) for pause_s in how.schedule_s],
        "connect_timeout": _write_pause(how.connect_ms),
        "timeout": _write_pause(how.total_ms),
        "concurrency": how.concurrency,
    }
    return {field: value for field, value in row.items() if value is not None}


class _AnyName(frozenset[str]):
    """All account values that there could be."""

    def __contains__(self, name: object) -> bool:
        return True


def needed_accounts(target: Target) -> tuple[str, ...]:
    """The account values that the requests of a target name.  Raises ``EntryError``."""
    try:
        needed: Collection[str] = {
            name
            for template in compile_forms(target.how.requests, target.how.on_empty, _AnyName()).values()
            for name in template.accounts
        }
    except TemplateError as error:
        raise EntryError("request", str(error)) from error
    return tuple(sorted(needed))
