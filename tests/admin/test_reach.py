"""Everything that the command line can do can be done over the API, or it is said why not."""

from __future__ import annotations

from collections.abc import Iterator

import click

from postbackd.admin.api import ENDPOINTS
from postbackd.cli.main import root

ENDPOINT_OF = {
    **{
        f"{kind} {verb}": [f"{method} /{kind}s{rest}"]
        for kind in ("network", "source", "offer", "campaign", "target", "rule")
        for verb, method, rest in (
            ("add", "POST", ""),
            ("list", "GET", ""),
            ("show", "GET", "/{name}"),
            ("set", "PATCH", "/{name}"),
            ("remove", "DELETE", "/{name}"),
        )
    },
    "network rotate": ["POST /networks/{name}/rotate"],
    "network sign": ["POST /networks/{name}/sign"],
    "target pause": ["POST /targets/{name}/pause"],
    "target resume": ["POST /targets/{name}/resume"],
    "rule test": ["POST /rules/test"],
    "delivery list": ["GET /deliveries"],
    "delivery show": ["GET /deliveries/{id}"],
    "delivery retry": ["POST /deliveries/retry"],
    "delivery cancel": ["POST /deliveries/cancel"],
    "lint": ["POST /lint"],
    "presets list": ["GET /presets"],
    "presets show": ["GET /presets/{name}"],
    "report": ["GET /report"],
    "report explore": ["GET /reports/explore", "GET /reports/explore.csv"],
    "report check": ["POST /reports/check"],
    "reconcile": ["POST /reconcile"],
    "alarm list": ["GET /alarms"],
    "alarm show": ["GET /alarms/{id}"],
    "alarm quiet": ["POST /alarms/{id}/quiet"],
    "alarm unquiet": ["POST /alarms/{id}/unquiet"],
    "alarm test": ["POST /alarms/test"],
    "log": ["GET /log", "GET /log/live"],
    "why": ["GET /why/{id}"],
    "unmatched": ["GET /unmatched"],
    "unmatched repair": ["POST /unmatched/repair"],
    "replay": ["POST /replay"],
    "apply": ["POST /apply"],
    "export": ["GET /export"],
    "doctor": ["GET /doctor"],
    "settings": ["GET /settings"],
    "verify": ["POST /verify", "GET /jobs/{id}"],
    "backup": ["POST /backups"],
    "backup list": ["GET /backups"],
    "backup verify": ["POST /backups/{name}/verify"],
    "keys list": ["GET /keys"],
    "keys rotate": ["POST /keys/rotate"],
    "secrets check": ["POST /secrets/check"],
    "purge": ["POST /purge"],
    "privacy": ["GET /privacy", "GET /personal-data"],
    "privacy check": ["POST /privacy/check"],
    "privacy export": ["GET /privacy/export"],
    "privacy hash": ["POST /privacy/hash"],
    "erase": ["POST /erase/preview", "POST /erase"],
    "erase list": ["GET /erasures"],
    "version": ["GET /about"],
    "user list": ["GET /users"],
    "user invite": ["POST /users/invite"],
    "user remove": ["DELETE /users/{id}"],
    "user role": ["PATCH /users/{id}"],
    "user reset": ["POST /users/{id}/reset"],
    "token list": ["GET /tokens"],
    "token add": ["POST /tokens"],
    "token remove": ["DELETE /tokens/{id}"],
    "audit": ["GET /audit"],
}
"""Command -> the endpoints that do the same."""

_STARTS = "it starts a process of this program"
_FROM_HERE = "it asks endpoints from where it is run, as a tool of a command line; no server need be there"
_BY_HAND = "it changes the key or the database below the running server, from the machine that holds them"
NOT_OVER_HTTP = {
    "serve": _STARTS,
    "ingest": _STARTS,
    "deliver": _STARTS,
    "admin": _STARTS,
    "certificates": _STARTS,
    "metrics": "/metrics shows them beside the API, in the words of Prometheus",
    "demo": "it makes a database of its own, beside the one that is served",
    "simulate catalog": "what it prints is given to POST /apply",
    "simulate run": "it plays visitors and networks, who come over the front door",
    "simulate check": "it holds what GET /report and GET /unmatched say against a file of this machine",
    "simulate remove": "it removes a database that no server uses",
    "receiver": "it is a server of its own, to try deliveries out on this machine",
    "send": _FROM_HERE,
    "probe": _FROM_HERE,
    "compare": _FROM_HERE,
    "restore": "it makes a new data directory, beside which no server runs yet",
    "completion": "it is for a shell",
    "secrets seal": _BY_HAND,
    "secrets rotate": _BY_HAND,
    "db copy": _BY_HAND,
    "db distribute": _BY_HAND,
    "db migrate": _BY_HAND,
    "db status": "it looks at the way into a database that may not answer; the doctor tells what it finds",
}
"""Command -> why there is no endpoint for it."""


def commands(group: click.Group, context: click.Context, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = (*before, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join(path)
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=context), path)


def test_every_command_has_an_endpoint_or_a_reason() -> None:
    known = ENDPOINT_OF.keys() | NOT_OVER_HTTP.keys()
    assert [name for name in commands(root, click.Context(root)) if name not in known] == []


def test_every_endpoint_that_a_command_names_is_there() -> None:
    there = {f"{one.method} {one.path}" for one in ENDPOINTS}
    named = {endpoint for endpoints in ENDPOINT_OF.values() for endpoint in endpoints}
    assert sorted(named - there) == []


def test_no_command_has_both() -> None:
    assert ENDPOINT_OF.keys() & NOT_OVER_HTTP.keys() == set()
