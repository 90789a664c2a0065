"""``postbackd db``: the schema of a PostgreSQL database, and the way into it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from postbackd.cli.options import as_json, takes_settings
from postbackd.cli.session import print_json
from postbackd.core.money import write_micros
from postbackd.sealing import KEY_NAME
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from postbackd.store.moving import Mover

T = TypeVar("T")

takes_store = takes_settings("store")
"""``--store`` alone."""


@click.group()
def db() -> None:
    """Look after a PostgreSQL database."""


@db.command()
@as_json
@takes_store
def status(settings: Settings, json_wanted: bool) -> None:
    """Say which migrations have been applied; exit code 1 when some are pending."""
    from postbackd.store.postgres_schema import read_state

    state = _on_database(settings, read_state)
    if json_wanted:
        print_json({
            "applied": [{"number": number, "name": name} for number, name in state.applied],
            "pending": [{"number": m.number, "name": m.name} for m in state.pending],
        })  # fmt: skip
    else:
        for number, name in state.applied:
            click.echo(f"applied  {number:04} {name}")
        for migration in state.pending:
            click.echo(f"pending  {migration.number:04} {migration.name}")
    if state.pending:
        raise click.ClickException(f"{len(state.pending)} pending; run 'postbackd db migrate'")


@db.command()
@click.option("--dry-run", is_flag=True, help="Print the statements; change nothing.")
@takes_store
def migrate(dry_run: bool, settings: Settings) -> None:
    """Apply what is pending; servers of the version before may go on running, or it says that they may not.

    A server that starts does the same by itself.
    """
    from postbackd.store import postgres_schema

    if dry_run:
        pending = _on_database(settings, postgres_schema.read_state).pending
        for migration in pending:
            click.echo(f"-- {migration.number:04} {migration.name}\n{migration.sql}")
    else:
        pending = _on_database(settings, postgres_schema.migrate)
        for migration in pending:
            click.echo(f"applied  {migration.number:04} {migration.name}")
    if not pending:
        click.echo("nothing is pending")


@db.command()
@takes_store
def distribute(settings: Settings) -> None:
    """Spread the tables over the machines of a Citus cluster; restart the servers afterwards.

    Rows that are there are moved, and nobody can write meanwhile.
    """
    from postbackd.store.citus import distribute as spread

    names = _on_database(settings, spread)
    for name in names:
        click.echo(f"distributed  {name}")
    if not names:
        click.echo("the tables are distributed already")


@db.command()
@click.option(
    "--from", "source", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Data directory."
)
@click.option("--to", "target", required=True, metavar="URL", help="Address of the PostgreSQL database.")
@as_json
def copy(source: Path, target: str, json_wanted: bool) -> None:
    """Copy an embedded database into a PostgreSQL database; verified by counts and money totals.

    Run it once beside the running server, which copies most; then stop the server and run it again: that copies what
    has changed; both databases are read once. Then start the server with --store. May be interrupted and run again.
    """
    from postbackd.store.moving import open_mover

    async def work() -> dict[str, Any]:
        mover = await open_mover(source, target)
        try:
            return await _copy(mover)
        finally:
            await mover.close()

    result = _run(work())
    if result.pop("sealed"):
        click.echo(
            "postbackd: servers on the copy need the key of what is sealed in it: give every one of them "
            f"POSTBACKD_SECRET_KEY, or POSTBACKD_SECRET_KEY_FILE={source / KEY_NAME}",
            err=True,
        )
    if json_wanted:
        print_json(result)
    else:
        click.echo(f"{result['rows']} rows compared, {result['copied']} copied")
        for total in result["money"]:
            click.echo(f"{total['conversions']} conversions, {total['value']} {total['currency']}")
        for difference in result["differences"]:
            click.echo(f"differs: {difference}")
    if result["differences"]:
        raise click.ClickException(
            "the databases differ; if a server still writes to the first one, stop it and run this again"
        )


async def _copy(mover: Mover) -> dict[str, Any]:
    await mover.prepare()
    copied = 0
    bar = click.progressbar(
        length=mover.count(), label="copying", file=sys.stderr, hidden=not sys.stderr.isatty()
    )
    with bar:
        async for step in mover.copy():
            copied += step.rows if step.copied else 0
            bar.update(step.rows)
    return {
        "rows": mover.count(),
        "copied": copied,
        "money": [
            {"currency": currency, "value": write_micros(micros), "conversions": count}
            for currency, micros, count in mover.money()
        ],
        "differences": list(await mover.verify()),
        "sealed": mover.is_sealed(),
    }


# --- one visit ---------------------------------------------------------------------------------------------------


def _on_database(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    """Connect, do the work, disconnect.  Every failure that a user can meet leaves as one line."""
    if settings.store is None:
        raise click.UsageError(
            "name the database with --store; 'postbackd serve' looks after the embedded one itself"
        )
    from postbackd.store.postgres_connection import check_server, connect, refusing

    async def visit(address: str) -> T:
        with refusing(address):
            connection = await connect(address, {})
            try:
                await check_server(connection)
                return await work(connection)
            finally:
                await connection.close()

    return _run(visit(settings.store))


def _run(work: Awaitable[T]) -> T:
    async def running() -> T:
        return await work

    try:
        return asyncio.run(running())
    except (StoreRefused, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error
    except _failures() as error:
        raise click.ClickException(f"a database did not answer ({error}); run it again") from error


def _failures() -> tuple[type[Exception], ...]:
    """What either database raises."""
    import apsw
    import asyncpg

    return (OSError, apsw.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
