"""``postbackd audit``: who changed what."""

from __future__ import annotations

from collections.abc import Sequence

import click

from postbackd.cli.options import as_json, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.moments import write_moment
from postbackd.core.people import AuditEntry
from postbackd.reports.table import format_table
from postbackd.settings import Settings


@click.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most lines.")
@click.option("--who", default="", metavar="NAME", help="Of one user or token only.")
@as_json
@takes_data
def audit(limit: int, who: str, settings: Settings, json_wanted: bool) -> None:
    """The audit log, newest first: changes, also refused ones, and attempts to sign in.

    It says which fields were given, never what was in them. Kept for 400 days.
    """

    async def work(session: Session) -> Sequence[AuditEntry]:
        return await session.store.people.list_audit(1 << 62, limit, who)

    found = visit(settings, work)
    if json_wanted:
        print_json([
            {
                "id": one.id, "at": write_moment(one.at_ms), "who": one.who, "kind": one.kind, "action": one.action,
                "object": one.object, "fields": list(one.fields), "status": one.status, "prefix": one.prefix,
            }
            for one in found
        ])  # fmt: skip
        return
    click.echo(format_table(("at", "who", "by", "action", "what", "fields", "status", "from"), [
        (write_moment(one.at_ms), one.who, one.kind, one.action, one.object, " ".join(one.fields), str(one.status),
         one.prefix)
        for one in found
    ]))  # fmt: skip
