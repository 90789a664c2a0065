"""Alarms: what lasts, what was, what was told of it, and quiet."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem
from postbackd.reports.alarms import AlarmBook, UnknownAlarm
from postbackd.reports.period import read_duration

TEST_TOOL = "test_alarms"
"""The tool of the desk that sends a test: places are built from the settings, above here."""

_LARGEST_ID = (1 << 53) - 1


class AlarmSubject(Struct, frozen=True):
    """What an alarm is about."""

    type: str
    """``network``, ``campaign``, ``target`` or ``server``."""
    id: int | None = None
    name: str | None = None


class AlarmQuiet(Struct, frozen=True):
    """Somebody does not want to hear of it."""

    until: str | None
    """Nothing: until it is over."""
    who: str
    why: str
    since: str


class AlarmItem(Struct, frozen=True):
    """One alarm."""

    id: int
    kind: str
    title: str
    subject: AlarmSubject
    state: str
    """``raised`` or ``ended``."""
    urgent: bool
    seen: str
    normal: str
    todo: str
    raised: str
    last_seen: str
    ended: str | None
    quiet: AlarmQuiet | None


class AlarmNotice(Struct, frozen=True):
    """What was told of an alarm, where to, and what became of it."""

    said: str
    place: str
    state: str
    attempts: int
    at: str
    error: str | None


class AlarmDetail(AlarmItem, frozen=True, kw_only=True):
    """One alarm, and what was told of it."""

    notices: list[AlarmNotice]


class AlarmsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    state: Annotated[
        str, Meta(description="``raised``: those that last; ``all``: also those that are over.")
    ] = "raised"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str | None = None


class QuietBody(Struct, frozen=True, forbid_unknown_fields=True):
    for_: Annotated[str | None, Meta(description="Such as 8h or 3d; nothing: until it is over.")] = (
        msgspec.field(default=None, name="for")
    )
    why: Annotated[str, Meta(max_length=300)] = ""


class AlarmTest(Struct, frozen=True):
    """What became of a test."""

    place: str
    ok: bool
    detail: str


def _book(asked: Asked[Any, Any]) -> AlarmBook:
    return AlarmBook(asked.desk.store, asked.desk.now_ms())


def _id(asked: Asked[Any, Any]) -> int:
    text = asked.path["id"]
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:17]) <= _LARGEST_ID:
        raise Problem(404, f"there is no alarm {text[:40]!r}; an alarm's id is a number")
    return int(text[:17])


async def list_alarms(asked: Asked[AlarmsQuery, None]) -> Page[AlarmItem]:
    """The latest first."""
    query = asked.query
    if query.state not in ("raised", "all"):
        raise Problem(400, f"state is {query.state!r}; write raised or all", field="state")
    before = None if query.cursor is None else read_cursor(query.cursor, tuple[int])[0]
    if before is not None and not 0 <= before <= _LARGEST_ID:
        raise Problem(400, "the cursor is none of ours; take it from the answer before", field="cursor")
    found = await _book(asked).list(query.limit + 1, with_ended=query.state == "all", before=before)
    shown = found[: query.limit]
    more = write_cursor(shown[-1]["id"]) if len(found) > len(shown) else None
    return Page([msgspec.convert(one, AlarmItem) for one in shown], more)


async def show_alarm(asked: Asked[None, None]) -> AlarmDetail:
    """What was seen, what is normal, what to do; and whom we told."""
    try:
        return msgspec.convert(await _book(asked).show(_id(asked)), AlarmDetail)
    except UnknownAlarm as error:
        raise Problem(404, str(error)) from error


async def quiet_alarm(asked: Asked[None, QuietBody]) -> AlarmQuiet:
    """Send no notices of it; it is shown all the same."""
    for_s = None
    if asked.body.for_ is not None:
        try:
            for_s = read_duration(asked.body.for_)
        except ValueError as error:
            raise Problem(400, str(error), field="for") from error
        if for_s <= 0:
            raise Problem(400, "0 is no time; write how long, such as 8h", field="for")
    try:
        quiet = await _book(asked).quiet(_id(asked), for_s, asked.who.name, asked.body.why)
    except UnknownAlarm as error:
        raise Problem(404, str(error)) from error
    return msgspec.convert(quiet, AlarmQuiet)


async def unquiet_alarm(asked: Asked[None, None]) -> None:
    """Send notices of it again."""
    try:
        await _book(asked).unquiet(_id(asked))
    except UnknownAlarm as error:
        raise Problem(404, str(error)) from error


async def test_alarms(asked: Asked[None, None]) -> list[AlarmTest]:
    """Send a notice to every place that is configured, and say what became of it."""
    tool = asked.desk.tools.get(TEST_TOOL)
    told = [] if tool is None else await tool()
    if not told:
        raise Problem(
            409,
            "no place is configured; set alarm_webhook with alarm_webhook_secret, or alarm_email_to with smtp_host",
        )
    return [msgspec.convert(one, AlarmTest) for one in told]


ENDPOINTS = (
    Endpoint(
        "GET", "/alarms", Scope.READ, "Alarms", "List alarms, the latest first.", list_alarms,
        query=AlarmsQuery, answer=Page[AlarmItem],
    ),
    Endpoint(
        "POST", "/alarms/test", Scope.OPERATE, "Alarms", "Send a test notice to every place.", test_alarms,
        answer=list[AlarmTest], problems=(409,),
    ),
    Endpoint(
        "GET", "/alarms/{id}", Scope.READ, "Alarms", "Show one alarm and what was told of it.", show_alarm,
        answer=AlarmDetail, problems=(404,),
    ),
    Endpoint(
        "POST", "/alarms/{id}/quiet", Scope.OPERATE, "Alarms", "Send no notices of an alarm.", quiet_alarm,
        body=QuietBody, answer=AlarmQuiet, problems=(404,),
    ),
    Endpoint(
        "POST", "/alarms/{id}/unquiet", Scope.OPERATE, "Alarms", "Send notices of an alarm again.", unquiet_alarm,
        problems=(404,),
    ),
)  # fmt: skip
