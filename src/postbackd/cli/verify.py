"""``postbackd verify``: is every row that is money what it was when it was written?"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import click

from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import print_json, visit
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused
from postbackd.store.sqlite_file import FILE_NAME, connect
from postbackd.store.verifying import Damage, Progress, Reader, verify

if TYPE_CHECKING:
    import asyncpg

    from postbackd.store.sealing_rows import Writer

_PATIENCE_MS = 10_000


@click.command("verify")
@click.option(
    "--seal",
    is_flag=True,
    help="Give a checksum to rows from before there were any, once, after a look at what they say.",
)
@click.option(
    "--accept",
    metavar="ID",
    help="Take what the damaged rows of this conversion say now for what they are to say; needs --because.",
)
@click.option("--because", metavar="TEXT", help="Why, for the audit log.")
@click.option(
    "--progress", is_flag=True, hidden=True, help="Say on standard error how far it is, for a program."
)
@as_json
@takes_data
def verify_command(
    seal: bool,
    accept: str | None,
    because: str | None,
    progress: bool,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Find every damaged conversion and change of one, and name it; exit code 1 when there is any.

    Reads the whole database beside a running server and changes nothing (but with --seal or --accept). Checked are the
    structure of the database, the checksum of each row that is money, and that all is there that the log says was
    counted.
    """
    if (accept is None) != (because is None) or (accept is not None and seal):
        raise click.UsageError("--accept and --because go together, and not with --seal")
    if accept is not None:
        _accept(settings, accept.strip().lower(), (because or "").strip(), json_wanted)
        return
    looked = _Looked(json_wanted, progress=progress)
    try:
        asyncio.run(_verify(settings, seal, looked))
    except StoreRefused as error:
        raise click.ClickException(str(error)) from error
    looked.finish()


class _Looked:
    """What was found so far, and how it is shown."""

    def __init__(self, json_wanted: bool, *, progress: bool) -> None:
        self._json = json_wanted
        self._progress = progress
        self._damages: list[Damage] = []
        self._rows: Counter[str] = Counter()
        self.unsealed = self.sealed = 0
        self._shown = sys.stderr.isatty() and not json_wanted

    def take(self, found: Damage | Progress) -> None:
        if isinstance(found, Progress):
            self._rows[found.step] += found.rows
            self.unsealed += found.unsealed
            if self._progress:
                said = {"done": self._rows.total(), "step": found.step}
                click.echo(f"progress {json.dumps(said)}", err=True)
            if self._shown:
                click.echo(f"\r{found.step}: {self._rows[found.step]} rows ", err=True, nl=False)
            return
        if self._json:
            self._damages.append(found)
        else:
            click.echo(found.write())
            self._damages.append(Damage(where=found.where, detail=""))

    def finish(self) -> None:
        rows = self._rows.total()
        if self._json:
            damages = [
                {"where": d.where, "conversion": d.conversion or None, "detail": d.detail}
                for d in self._damages
            ]
            print_json({"rows": rows, "unsealed": self.unsealed, "sealed": self.sealed, "findings": damages})
        else:
            if self._shown:
                click.echo("", err=True)
            click.echo(f"{rows} money rows read, {len(self._damages)} findings")
            if self.sealed:
                click.echo(f"{self.sealed} rows were given a checksum")
            elif self.unsealed:
                click.echo(
                    f"{self.unsealed} rows are from before there were checksums; look at them, "
                    "then run 'postbackd verify --seal' once"
                )
        if self._damages:
            raise click.ClickException(
                f"{len(self._damages)} findings; keep the database as it is, and restore what is damaged from a backup "
                "(rows that are to stay as they are: 'postbackd verify --accept ID --because TEXT')"
            )


def _accept(settings: Settings, conversion: str, because: str, json_wanted: bool) -> None:
    """Names what is accepted, and keeps who did so and why."""
    if not because:
        raise click.UsageError("--because says why; it stands in the audit log")
    try:
        accepted = asyncio.run(_accept_rows(settings, conversion))
    except StoreRefused as error:
        raise click.ClickException(str(error)) from error
    if not accepted:
        raise click.ClickException(
            f"no row of conversion {conversion} is damaged; 'postbackd verify' names those that are"
        )
    visit(settings, lambda session: session.note("accept damage", f"conversion {conversion}: {because}"))
    if json_wanted:
        print_json({"accepted": [{"where": d.where, "detail": d.detail} for d in accepted]})
        return
    for damage in accepted:
        click.echo(f"accepted as it is: {damage.write()}")


async def _accept_rows(settings: Settings, conversion: str) -> Sequence[Damage]:
    from postbackd.store.sealing_rows import accept

    reader, writer, close = await _open(settings, seal=True)
    try:
        assert writer is not None
        return await accept(reader, writer, conversion, now_ms())
    finally:
        await close()


async def _verify(settings: Settings, seal: bool, looked: _Looked) -> None:
    reader, writer, close = await _open(settings, seal)
    try:
        async for found in verify(reader):
            looked.take(found)
        if writer is not None and looked.unsealed:
            from postbackd.store.sealing_rows import seal as seal_rows

            async for count in seal_rows(reader, writer):
                looked.sealed += count
    finally:
        await close()


async def _open(settings: Settings, seal: bool) -> tuple[Reader, Writer | None, Any]:
    """The reader, the writer when one is wanted, and what closes both.  Raises ``StoreRefused``."""
    if settings.store is not None:
        return await _open_postgres(settings.store, seal)
    from postbackd.store.sqlite_verify import SqliteReader, open_to_read

    path = Path(settings.data) / FILE_NAME
    if not path.exists():
        raise StoreRefused(f"no database in {settings.data}; name its directory with --data")
    try:
        reader = SqliteReader(open_to_read(path, alone=False))
    except (apsw.Error, OSError) as error:
        raise StoreRefused(f"structure: {path} cannot be opened ({error}); restore a backup") from error
    if not seal:
        return reader, None, reader.close
    from postbackd.store.sealing_rows import SqliteSealer

    db = connect(path, _PATIENCE_MS, create=False)

    async def close() -> None:
        await reader.close()
        db.close()

    return reader, SqliteSealer(db), close


async def _open_postgres(address: str, seal: bool) -> tuple[Reader, Writer | None, Any]:
    from postbackd.store.postgres_connection import check_server, connect, refusing
    from postbackd.store.postgres_sealing import PostgresSealer
    from postbackd.store.postgres_verify import PostgresReader

    connections: list[asyncpg.Connection] = []
    with refusing(address):
        connections += [await connect(address, {"jit": "off"}) for _ in range(2 if seal else 1)]
        await check_server(connections[0])

    async def close() -> None:
        for connection in connections:
            connection.terminate()

    reader = PostgresReader(connections[0])
    return reader, PostgresSealer(connections[1]) if seal else None, close
