"""What is told of an alarm, where to, and when it is tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.alarms import DAY_MS, TITLES, Alarm, Quiet, Said, Scope
from postbackd.core.moments import write_moment

WEBHOOK, EMAIL = "webhook", "email"
PLACES = (WEBHOOK, EMAIL)
"""Where notices go."""

WAITING, SENT, GIVEN_UP = "waiting", "sent", "given up"
"""States of a notice.  The words are stored."""

_SECOND_MS = 1_000
_LADDER_MS = tuple(n * _SECOND_MS for n in (5, 30, 120, 600, 1800, 3600, 7200))
"""Pauses after each failure; the last one repeats.  Whoever is to be woken is to be woken soon."""

GIVE_UP_MS = DAY_MS
"""A notice that could not be delivered for so long is old; the reminder of an alarm that lasts goes out anyway."""

_LONGEST_ERROR = 300


class Notice(Struct, frozen=True, kw_only=True):
    """One message to one place, as it is stored."""

    id: int
    alarm: int
    place: str
    said: Said
    body: str
    """JSON, the same in every attempt."""
    made_ms: int
    due_ms: int
    attempts: int = 0
    state: str = WAITING
    settled_ms: int | None = None
    error: str = ""

    @property
    def webhook_id(self) -> str:
        """Tells a repeat."""
        return f"alarm_{self.made_ms:x}_{self.id}"


class Answer(Struct, frozen=True):
    """What became of one attempt."""

    ok: bool
    detail: str
    final: bool = False
    """It makes no sense to try again."""


def settle(notice: Notice, answer: Answer, now_ms: int) -> Notice:
    """The notice after an attempt."""
    attempts = notice.attempts + 1
    if answer.ok:
        return msgspec.structs.replace(notice, attempts=attempts, state=SENT, settled_ms=now_ms, error="")
    error = answer.detail[:_LONGEST_ERROR]
    if answer.final or now_ms - notice.made_ms >= GIVE_UP_MS:
        return msgspec.structs.replace(
            notice, attempts=attempts, state=GIVEN_UP, settled_ms=now_ms, error=error
        )
    pause_ms = _LADDER_MS[min(attempts, len(_LADDER_MS)) - 1]
    return msgspec.structs.replace(notice, attempts=attempts, due_ms=now_ms + pause_ms, error=error)


def describe(
    alarm: Alarm, names: Mapping[tuple[str, int], str], quiet: Quiet | None = None
) -> dict[str, Any]:
    """The document of an alarm, as commands, the API and notices show it."""
    subject: dict[str, Any] = {"type": str(alarm.scope)}
    if alarm.scope is not Scope.SERVER:
        name = names.get((alarm.scope, alarm.subject))
        subject |= {"id": alarm.subject, "name": name}
    return {
        "id": alarm.id,
        "kind": str(alarm.kind),
        "title": TITLES[alarm.kind],
        "subject": subject,
        "state": alarm.state,
        "urgent": alarm.urgent,
        "seen": alarm.seen,
        "normal": alarm.normal,
        "todo": alarm.todo,
        "raised": write_moment(alarm.raised_ms),
        "last_seen": write_moment(alarm.bad_ms),
        "ended": None if alarm.ended_ms is None else write_moment(alarm.ended_ms),
        "quiet": None if quiet is None else describe_quiet(quiet),
    }


def describe_quiet(quiet: Quiet) -> dict[str, Any]:
    return {
        "until": write_moment(quiet.until_ms) if quiet.until_ms else None,
        "who": quiet.who,
        "why": quiet.why,
        "since": write_moment(quiet.at_ms),
    }


def write_body(document: Mapping[str, Any], said: Said, now_ms: int, server: str) -> str:
    """The body of a webhook, from which an e-mail is written too."""
    payload = {
        "type": f"alarm.{said}",
        "timestamp": write_moment(now_ms),
        "data": {**{k: v for k, v in document.items() if k != "quiet"}, "server": server},
    }
    return msgspec.json.encode(payload).decode()


_SUBJECTS: Mapping[Said, str] = {
    Said.RAISED: "ALARM",
    Said.REMINDER: "STILL",
    Said.CLEARED: "over",
    Said.TEST: "test",
}


def write_mail(body: str) -> tuple[str, str]:
    """Subject and text of the e-mail that says what a body says."""
    payload = msgspec.json.decode(body)
    alarm = payload["data"]
    said = Said(payload["type"].partition(".")[2])
    of = alarm["subject"].get("name") or alarm["subject"]["type"]
    subject = _one_line(f"[postbackd] {_SUBJECTS[said]}: {of}: {alarm['title']}")
    lines = [
        f"What was seen:  {alarm['seen']}",
        f"What is normal: {alarm['normal']}",
        f"What to do:     {alarm['todo']}",
        "",
        f"Raised:         {alarm['raised']}",
        *([f"Over:           {alarm['ended']}"] if alarm["ended"] else []),
        f"Server:         {alarm['server']}",
    ]
    if said in (Said.RAISED, Said.REMINDER):
        lines += ["", f"To hear no more of it: postbackd alarm quiet {alarm['id']} --for 8h --why '...'"]
    return subject, "\n".join(map(_one_paragraph, lines)) + "\n"


_LONGEST_SUBJECT = 180


def _one_line(text: str) -> str:
    """What networks call things can hold anything; a header can not."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_SUBJECT]


def _one_paragraph(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def make_notices(places: Sequence[str], alarm: int, said: Said, body: str, now_ms: int) -> Sequence[Notice]:
    """One for each place; without ids."""
    return [
        Notice(id=0, alarm=alarm, place=place, said=said, body=body, made_ms=now_ms, due_ms=now_ms)
        for place in places
    ]
