"""``postbackd erase``: erase what is kept of a person, and certify it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import click

from postbackd.cli.main import Family
from postbackd.cli.options import as_json, is_left_to_another, now_ms, takes_data
from postbackd.cli.session import Session, is_served, print_json, visit
from postbackd.core.click_id import write_stamp
from postbackd.core.privacy import Masker
from postbackd.operations.erasures import describe_certificate, look
from postbackd.reports.table import format_table
from postbackd.settings import Settings
from postbackd.store.base import Erasing
from postbackd.upkeep import erasing

_SPOOL_S = 40.0
"""How long to wait for what lies in this machine's spool to reach the database."""

_LOOK_EVERY_S = 0.1

_OTHER_MACHINES = (
    "other machines that receive for this database may have some of it in their spools: run the same command once on "
    "each of them; it waits until the spool of its machine is empty"
)
"""A spool is a file that only its own machine sees."""


@click.group(cls=Family, invoke_without_command=True)
@click.option("--click-id", metavar="ID", help="Erase this click: an id of ours, or a caller's own.")
@click.option("--transaction-id", metavar="ID", help="Erase the clicks that have this transaction id.")
@click.option("--network", metavar="NAME", help="With --transaction-id: of this network only.")
@click.option(
    "--identity",
    metavar="VALUE",
    help="Erase every click that holds this value in a field: an address, or a keyed hash as 'postbackd privacy hash' "
    "prints it. An id that is - is read from standard input.",
)
@click.option(
    "--rewrite",
    is_flag=True,
    help="PostgreSQL: write the tables that held it anew (VACUUM FULL), because free space keeps old bytes.",
)
@click.option("--yes", is_flag=True, help="Do it; without this only say what would be erased.")
@as_json
@takes_data
@click.pass_context
def erase(
    context: click.Context, /, settings: Settings, json_wanted: bool, yes: bool, rewrite: bool, **asked: Any
) -> None:
    """Erase what is kept of a person: names, ids and texts; totals and deduplication stay.

    Works beside a running server. May be stopped and run again; the certificate says when it is complete.
    """
    if is_left_to_another(context):
        return
    given = [(name, value) for name, value in asked.items() if value and name != "network"]
    if len(given) != 1:
        raise click.UsageError("name one of --click-id, --transaction-id and --identity")
    ((kind, value),) = given
    if value == "-":  # an id that others on this machine shall not see on a command line
        value = sys.stdin.readline().strip()
    if asked["network"] and kind != "transaction_id":
        raise click.UsageError("--network goes with --transaction-id")
    document = visit(settings, lambda session: _erase(session, kind, value, asked["network"], yes, rewrite))
    _print(document, json_wanted)
    if document["done"] is False and yes:
        raise click.ClickException(
            f"the rows are erased; the file is too large to be overwritten in place ({document['left']} pages): stop "
            "the server and write it anew, with VACUUM of the program sqlite3"
        )


@erase.command("list")
@as_json
@takes_data
def list_erasures(settings: Settings, json_wanted: bool) -> None:
    """The certificates of erasures, the latest first."""
    rows = visit(settings, lambda session: session.store.query("erasures"))
    documents = [describe_certificate(row) for row in rows]
    if json_wanted:
        print_json(documents)
        return
    cells = [
        (
            str(d["id"]),
            d["at"],
            d["asked"],
            d["reference"],
            d["completed"] or "not complete: run it again",
            _sum(d["erased"]),
        )
        for d in documents
    ]
    click.echo(format_table(("id", "asked at", "by", "reference", "completed", "erased"), cells))


def _sum(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {table}" for table, count in counts.items()) or "nothing was held"


async def _erase(
    session: Session, kind: str, value: str, network: str | None, yes: bool, rewrite: bool
) -> dict[str, Any]:
    if yes:
        await _wait_for_spool(session.settings)
    found = await look(session.store, kind, value.strip(), network)
    if not yes:
        held = {"clicks": [write_stamp(stamp) for stamp in found.clicks], "log rows": len(found.requests)}
        return {"asked": kind, "reference": found.reference, "found": held, "done": None}
    wanted = Erasing(kind, found.reference, found.clicks, found.requests, now_ms())
    masker = Masker((await session.load()).privacy_key)
    ended = await erasing.erase(session.store, wanted, masker, now_ms, rewrite=rewrite)
    (row,) = [row for row in await session.store.query("erasures") if row["id"] == ended.id]
    told = {} if session.settings.store is None else {"next": _OTHER_MACHINES}
    return {**describe_certificate(row), "done": not ended.left, "left": ended.left, **told}


async def _wait_for_spool(settings: Settings) -> None:
    """What lies in the spool has been told to senders as kept, and would come after the erasure."""
    spool = Path(settings.data) / "spool"
    deadline = monotonic() + _SPOOL_S
    while any(path.stat().st_size for path in spool.glob("*.spool") if path.exists()):
        if not is_served(settings) or monotonic() > deadline:
            raise click.ClickException(
                f"{spool} holds requests that are not in the database yet; start the server and wait until it is empty"
            )
        await asyncio.sleep(_LOOK_EVERY_S)


def _print(document: dict[str, Any], json_wanted: bool) -> None:
    if json_wanted:
        print_json(document)
    elif document["done"] is None:
        found = document["found"]
        more = f" and {found['log rows']} log rows without a click" if found["log rows"] else ""
        click.echo(
            f"would erase {len(found['clicks'])} clicks{more}, with all that hangs on them; run it again with --yes"
        )
    else:
        click.echo(f"certificate {document['id']}: erased {_sum(document['erased'])}")
        click.echo(f"asked at {document['at']} by {document['asked']}, reference {document['reference']}")
        click.echo(
            f"complete in the files at {document['completed']}" if document["done"] else "not complete yet"
        )
        if "next" in document:
            click.echo(document["next"])
